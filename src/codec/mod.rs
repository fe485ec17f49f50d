//! Columns of points as bytes and back; pure.
//!
//! Contract: what goes in comes out bit for bit (every f64, every i64); a decoder bounds-checks each read, never
//! panics and allocates nothing that its input's length or the caller's point count does not bound. Checksums are the
//! caller's (`format::batch`).
//!
//! * [`int`]: integers as differences of order 0 to 4, packed per block of 128.
//! * [`value`]: f64 columns as a constant, a grid, f32 or f64, each over [`int`].
//! * [`axis`]: steps and timestamps, optionally as the difference to another axis.
//! * [`extra`]: small dictionaries with an index per point.
//! * [`summary`]: what a directory says of a column.

pub mod axis;
pub mod bits;
pub mod bytes;
pub mod extra;
pub mod grid;
pub mod int;
mod simd;
pub mod summary;
pub mod value;

pub use value::Compression;
