//! Headers, frames, directories and metadata events as bytes.
//!
//! Contract: pure and total. Nothing here does I/O; every reader takes any bytes and answers with what they mean or
//! with [`crate::error::Malformed`]. `docs/format.md` is the specification, golden files in `tests/` hold it still.

pub mod batch;
pub mod blob;
pub mod declare;
pub mod directory;
pub mod entity_row;
pub mod event;
pub mod event_record;
pub mod frame;
pub mod input_tags;
pub mod live;
pub mod segment;
pub mod tree_record;
