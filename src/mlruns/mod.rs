//! STUB
#![allow(dead_code)]
mod report;
pub use report::{
    ArtifactMode, ExportOptions, ExportReport, ImportOptions, ImportReport, Problem, Progress, Unexportable,
};
