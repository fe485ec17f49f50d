//! A store in memory for the tests of import and export, the shipped trees, and a comparison like `diff -r`.
#![allow(dead_code)]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use mlrs_db::error::{Error, Result};
use mlrs_db::format::event::{EntityKind, Field, Operation, Value};
use mlrs_db::id::{BlobId, Origin, Stamp, Uid};
use mlrs_db::mlruns::{
    BlobRef, Entities, ExportOptions, ExportReport, ExportSource, Extra, ImportOptions, ImportReport,
    ImportTarget, PointBlock, PointReader, Registers, Which, export, import,
};

/// The points of one origin of one series.
#[derive(Clone, Default, Debug, PartialEq)]
pub struct Stored {
    pub steps: Vec<i64>,
    pub timestamps: Vec<i64>,
    pub bits: Vec<u64>,
    /// (kind, value) of each point.
    pub extras: Vec<Vec<(u8, Vec<u8>)>>,
}

/// The simplest store there can be.
#[derive(Default)]
pub struct Memory {
    pub entities: BTreeMap<Uid, (EntityKind, Registers)>,
    pub points: BTreeMap<(Uid, String), Vec<(Origin, Stored)>>,
    pub blobs: HashMap<BlobId, Vec<u8>>,
    pub blob_bytes_max: usize,
    pub artifacts: PathBuf,
    pub clock: u64,
    /// Writes that still succeed; then every one fails, like a process that was killed.
    pub writes_left: Option<u64>,
}

impl Memory {
    pub fn new(directory: &Path) -> Self {
        Self { artifacts: directory.to_path_buf(), ..Self::default() }
    }

    fn write(&mut self) -> Result<()> {
        match &mut self.writes_left {
            Some(0) => Err(Error::InvalidState("killed".into())),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Only the tombstone is left.
    pub fn is_purged(&self, uid: Uid) -> bool {
        self.entities
            .get(&uid)
            .is_some_and(|(_, registers)| registers.contains_key(&(Field::PURGED, String::new())))
    }

    /// What a user of the API does.
    pub fn set(&mut self, kind: EntityKind, uid: Uid, field: Field, key: &str, value: Value) {
        self.commit(vec![Operation { kind, uid, field, key: key.into(), value }]).unwrap();
    }

    pub fn log(&mut self, run: Uid, key: &str, origin: Origin, points: &[(i64, i64, f64)]) {
        let first = self.points_stored(run, key, origin).unwrap();
        let steps: Vec<i64> = points.iter().map(|p| p.0).collect();
        let timestamps: Vec<i64> = points.iter().map(|p| p.1).collect();
        let values: Vec<f64> = points.iter().map(|p| p.2).collect();
        let block = PointBlock { steps: &steps, timestamps: &timestamps, values: &values, extras: &[] };
        self.put_points(run, key, origin, first, &block).unwrap();
    }

    /// Everything but the stamps.
    pub fn state(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        type Values = BTreeMap<(Field, String), Value>;
        let entities: BTreeMap<Uid, (EntityKind, Values)> = self
            .entities
            .iter()
            .map(|(uid, (kind, registers))| {
                (*uid, (*kind, registers.iter().map(|(k, (_, v))| (k.clone(), v.clone())).collect()))
            })
            .collect();
        let blobs: BTreeMap<BlobId, Vec<u8>> = self.blobs.clone().into_iter().collect();
        (entities, self.points.clone(), blobs)
    }

    pub fn uids(&self, kind: EntityKind) -> Vec<Uid> {
        self.entities(kind).unwrap()
    }

    pub fn text(&self, uid: Uid, field: Field, key: &str) -> Option<String> {
        match self.entities.get(&uid)?.1.get(&(field, key.to_owned())) {
            Some((_, Value::Text(text))) => Some(text.clone()),
            _ => None,
        }
    }

    /// (timestamp, value, step) of a metric, imported points first.
    pub fn metric(&self, run: Uid, key: &str) -> Vec<(i64, f64, i64)> {
        let origins = self.points.get(&(run, key.to_owned())).cloned().unwrap_or_default();
        origins
            .iter()
            .flat_map(|(_, s)| {
                s.timestamps
                    .iter()
                    .zip(&s.bits)
                    .zip(&s.steps)
                    .map(|((t, v), s)| (*t, f64::from_bits(*v), *s))
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

impl Entities for Memory {
    fn kind(&self, uid: Uid) -> Result<Option<EntityKind>> {
        Ok(self.entities.get(&uid).filter(|_| !self.is_purged(uid)).map(|(kind, _)| *kind))
    }

    fn registers(&self, uid: Uid) -> Result<Registers> {
        Ok(self.entities.get(&uid).map(|(_, registers)| registers.clone()).unwrap_or_default())
    }

    fn entities(&self, kind: EntityKind) -> Result<Vec<Uid>> {
        Ok(self
            .entities
            .iter()
            .filter(|(uid, (k, _))| *k == kind && !self.is_purged(**uid))
            .map(|(uid, _)| *uid)
            .collect())
    }

    fn artifact_directory(&self, run: Uid) -> Result<PathBuf> {
        Ok(self.artifacts.join(run.to_string()).join("artifacts"))
    }
}

impl PointReader for Memory {
    fn read_points(
        &self,
        run: Uid,
        key: &str,
        which: Which,
        sink: &mut dyn FnMut(&PointBlock<'_>) -> Result<()>,
    ) -> Result<()> {
        for (origin, stored) in self.points.get(&(run, key.to_owned())).into_iter().flatten() {
            let first = match which {
                Which::From(wanted, first) if wanted == *origin => first as usize,
                Which::Except(unwanted) if unwanted != *origin => 0,
                Which::All => 0,
                _ => continue,
            };
            // An odd block size, so that nothing relies on blocks being those that were written.
            for start in (first..stored.bits.len()).step_by(1000) {
                let end = (start + 1000).min(stored.bits.len());
                let values: Vec<f64> = stored.bits[start..end].iter().map(|b| f64::from_bits(*b)).collect();
                let mut extras = Vec::new();
                for kind in [1, 2] {
                    let mut extra = Extra { kind, dictionary: vec![Vec::new()], indices: Vec::new() };
                    for point in &stored.extras[start..end] {
                        let value = point
                            .iter()
                            .find(|(k, _)| *k == kind)
                            .map(|(_, v)| v.clone())
                            .unwrap_or_default();
                        let at = extra.dictionary.iter().position(|d| *d == value).unwrap_or_else(|| {
                            extra.dictionary.push(value);
                            extra.dictionary.len() - 1
                        });
                        extra.indices.push(at as u32);
                    }
                    extras.push(extra);
                }
                let steps = &stored.steps[start..end];
                let timestamps = &stored.timestamps[start..end];
                sink(&PointBlock { steps, timestamps, values: &values, extras: &extras })?;
            }
        }
        Ok(())
    }
}

impl ImportTarget for Memory {
    fn commit(&mut self, operations: Vec<Operation>) -> Result<Stamp> {
        self.write()?;
        self.clock += 1;
        let stamp = Stamp { millis: self.clock, ..Stamp::default() };
        for op in operations {
            let entity = self.entities.entry(op.uid).or_insert_with(|| (op.kind, Registers::new()));
            assert_eq!(entity.0, op.kind);
            if op.field == Field::PURGED {
                entity.1.clear();
            }
            if entity.1.contains_key(&(Field::PURGED, String::new())) {
                continue;
            }
            let slot = entity.1.entry((op.field, op.key)).or_insert((stamp, Value::Absent));
            if !op.field.first_wins() || slot.0 == stamp {
                *slot = (stamp, op.value);
            }
        }
        Ok(stamp)
    }

    fn points_stored(&self, run: Uid, key: &str, origin: Origin) -> Result<u64> {
        let origins = self.points.get(&(run, key.to_owned()));
        Ok(origins.into_iter().flatten().find(|(o, _)| *o == origin).map_or(0, |(_, s)| s.bits.len() as u64))
    }

    fn origins(&self, run: Uid) -> Result<Vec<(String, Origin)>> {
        let of_run = self.points.iter().filter(|((uid, _), _)| *uid == run);
        Ok(of_run.flat_map(|((_, key), all)| all.iter().map(|(o, _)| (key.clone(), *o))).collect())
    }

    fn put_points(
        &mut self,
        run: Uid,
        key: &str,
        origin: Origin,
        first: u64,
        block: &PointBlock<'_>,
    ) -> Result<()> {
        assert_eq!(first, self.points_stored(run, key, origin)?, "ordinals join");
        assert!(block.values.len() <= 4096 && !block.values.is_empty());
        assert!(block.steps.len() == block.values.len() && block.timestamps.len() == block.values.len());
        for extra in block.extras {
            assert_eq!(extra.indices.len(), block.values.len());
            assert!((1..=block.values.len()).contains(&extra.dictionary.len()), "every entry is used");
        }
        self.write()?;
        let origins = self.points.entry((run, key.to_owned())).or_default();
        if !origins.iter().any(|(o, _)| *o == origin) {
            origins.push((origin, Stored::default()));
        }
        let stored = &mut origins.iter_mut().find(|(o, _)| *o == origin).unwrap().1;
        stored.steps.extend_from_slice(block.steps);
        stored.timestamps.extend_from_slice(block.timestamps);
        stored.bits.extend(block.values.iter().map(|v| v.to_bits()));
        for index in 0..block.values.len() {
            stored.extras.push(block.extras.iter().map(|e| (e.kind, e.get(index).to_vec())).collect());
        }
        Ok(())
    }

    fn put_blob(&mut self, bytes: &mut dyn Read) -> Result<BlobRef> {
        self.write()?;
        let mut all = Vec::new();
        bytes.read_to_end(&mut all).unwrap();
        self.blob_bytes_max = self.blob_bytes_max.max(all.len());
        let id = BlobId::derived("test", &[&all]);
        let blob = BlobRef { id, len: all.len() as u64 };
        self.blobs.insert(id, all);
        Ok(blob)
    }
}

impl ExportSource for Memory {
    fn metric_keys(&self, run: Uid) -> Result<Vec<String>> {
        Ok(self.points.keys().filter(|(uid, _)| *uid == run).map(|(_, key)| key.clone()).collect())
    }

    fn read_blob(&self, blob: BlobRef) -> Result<Box<dyn Read + '_>> {
        Ok(Box::new(self.blobs[&blob.id].as_slice()))
    }
}

/// Unpacks a shipped tree: the directory that holds `mlruns` and `poison`.
pub fn unpack(version: &str, into: &Path) -> PathBuf {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/mlflow-{version}.tar.gz"));
    let directory = into.join(format!("mlflow-{version}"));
    fs::create_dir(&directory).unwrap();
    let status =
        Command::new("tar").arg("xzf").arg(&archive).arg("-C").arg(&directory).status().expect("tar runs");
    assert!(status.success(), "{} cannot be unpacked", archive.display());
    assert!(directory.join("mlruns").is_dir() && directory.join("poison/mlruns").is_dir());
    directory
}

pub const VERSIONS: [&str; 3] = ["1.22.0", "2.22.5", "3.18.0"];

pub fn import_tree(source: &Path, memory: &mut Memory, options: &ImportOptions) -> ImportReport {
    import(source, memory, options, &mut |_| {}).unwrap()
}

pub fn export_tree(memory: &Memory, to: &Path) -> ExportReport {
    export(memory, to, &ExportOptions::default(), &mut |_| {}).unwrap()
}

/// What `diff -r` would say: paths that are on one side only or differ. Symbolic links are followed.
pub fn difference(a: &Path, b: &Path) -> Vec<String> {
    let mut found = Vec::new();
    compare(a, b, Path::new(""), &mut found);
    found
}

fn compare(a: &Path, b: &Path, at: &Path, found: &mut Vec<String>) {
    let names = |root: &Path| -> std::collections::BTreeSet<std::ffi::OsString> {
        fs::read_dir(root.join(at)).unwrap().map(|e| e.unwrap().file_name()).collect()
    };
    let (left, right) = (names(a), names(b));
    for name in left.symmetric_difference(&right) {
        let side = if left.contains(name) { "-" } else { "+" };
        found.push(format!("{side}{}", at.join(name).display()));
    }
    for name in left.intersection(&right) {
        let path = at.join(name);
        let (from, to) = (a.join(&path), b.join(&path));
        match (from.is_dir(), to.is_dir()) {
            (true, true) => compare(a, b, &path, found),
            (false, false) => {
                let same = match (fs::read(&from), fs::read(&to)) {
                    (Ok(x), Ok(y)) => x == y,
                    (Err(_), Err(_)) => fs::read_link(&from).unwrap() == fs::read_link(&to).unwrap(),
                    _ => false,
                };
                if !same {
                    found.push(path.display().to_string());
                }
            }
            _ => found.push(path.display().to_string()),
        }
    }
}
