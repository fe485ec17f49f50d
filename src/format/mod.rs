//! Headers, frames, directories and metadata events as bytes; pure.

pub mod batch;
pub mod event;
