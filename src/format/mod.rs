//! Headers, frames, directories and metadata events as bytes; pure.

pub mod entity_row;
pub mod event;
pub mod event_record;
pub mod input_tags;
