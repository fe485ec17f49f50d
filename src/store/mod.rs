//! The public API.
pub mod report;
