//! Headers, frames, directories and metadata events as bytes; pure.

pub mod event;
