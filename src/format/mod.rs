//! Headers, frames, directories and metadata events as bytes.
//!
//! Contract: pure and total. Nothing here does I/O; every reader takes any bytes and answers with what they mean or
//! with [`crate::error::Malformed`]. `docs/format.md` is the specification, golden files in `tests/` hold it still.

pub mod blob;
pub mod cursor;
pub mod declare;
pub mod directory;
pub mod event;
pub mod frame;
pub mod live;
pub mod segment;
