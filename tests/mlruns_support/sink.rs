//! An import target that takes everything and keeps nothing but a number.

use std::hint::black_box;
use std::io::Read;
use std::path::PathBuf;

use mlrs_db::error::Result;
use mlrs_db::format::event::{EntityKind, Operation};
use mlrs_db::id::{BlobId, Origin, Stamp, Uid};
use mlrs_db::mlruns::{BlobRef, Entities, ImportTarget, PointBlock, PointReader, Registers, Which};

#[derive(Default)]
pub struct Sink {
    pub points: u64,
}

impl Entities for Sink {
    fn kind(&self, _: Uid) -> Result<Option<EntityKind>> {
        Ok(None)
    }
    fn registers(&self, _: Uid) -> Result<Registers> {
        Ok(Registers::new())
    }
    fn entities(&self, _: EntityKind) -> Result<Vec<Uid>> {
        Ok(Vec::new())
    }
    fn artifact_directory(&self, _: Uid) -> Result<PathBuf> {
        Ok(PathBuf::from("/nonexistent/artifacts"))
    }
}

impl PointReader for Sink {
    fn read_points(
        &self,
        _: Uid,
        _: &str,
        _: Which,
        _: &mut dyn FnMut(&PointBlock<'_>) -> Result<()>,
    ) -> Result<()> {
        Ok(())
    }
}

impl ImportTarget for Sink {
    fn commit(&mut self, operations: Vec<Operation>) -> Result<Stamp> {
        black_box(operations);
        Ok(Stamp::default())
    }
    fn points_stored(&self, _: Uid, _: &str, _: Origin) -> Result<u64> {
        Ok(0)
    }
    fn origins(&self, _: Uid) -> Result<Vec<(String, Origin)>> {
        Ok(Vec::new())
    }
    fn put_points(&mut self, _: Uid, _: &str, _: Origin, _: u64, block: &PointBlock<'_>) -> Result<()> {
        self.points += black_box(block).values.len() as u64;
        Ok(())
    }
    fn put_blob(&mut self, bytes: &mut dyn Read) -> Result<BlobRef> {
        let len = std::io::copy(bytes, &mut std::io::sink()).expect("readable");
        Ok(BlobRef { id: BlobId::default(), len })
    }
}
