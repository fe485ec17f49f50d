//! Export of a store, or of one imported tree, as an `mlruns` directory.
//!
//! Contract: what was imported and not changed since comes out with the same bytes; what was changed shows the change
//! and nothing else; what was made through the API has the layout that MLflow 1.22, 2.22 and 3.18 all read. What has
//! no place is in the report.

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;

use super::content::Content;
use super::derive::{covered, is_covered};
use super::export_files::Exporter;
use super::meta::text_of;
use super::plan::LAYOUT;
use super::report::{ExportOptions, ExportReport, Progress};
use super::shape::Layout;
use super::{ExportSource, Registers};
use crate::error::{Error, Result};
use crate::format::event::{EntityKind, Field, Value};
use crate::id::{Stamp, Uid};

/// Writes a store as an `mlruns` directory.
///
/// The target must not exist or be empty, unless `overwrite` is set; it appears under its name only when it is
/// complete. Without a tree's name, a store that holds exactly one imported tree and nothing else gives that tree;
/// otherwise everything is merged and clashes are reported.
///
/// # Errors
/// An unknown tree, a target that is not empty, what the file system or the store refuse.
pub fn export(
    source: &dyn ExportSource,
    destination: &Path,
    options: &ExportOptions,
    progress: &mut dyn FnMut(&Progress),
) -> Result<ExportReport> {
    let chosen = choose(source, options)?;
    let mut exporter = Exporter::new(source, destination, options, progress)?;
    match exporter.everything(&chosen) {
        Ok(()) => exporter.finish(),
        Err(e) => {
            exporter.abandon();
            Err(e)
        }
    }
}

/// What goes into an export.
struct Chosen {
    trees: Vec<Uid>,
    experiments: Vec<Uid>,
    /// All of the store is meant, so what is left over is worth a line.
    all: bool,
}

fn choose(source: &dyn ExportSource, options: &ExportOptions) -> Result<Chosen> {
    let trees = source.entities(EntityKind::TREE)?;
    let experiments = source.entities(EntityKind::EXPERIMENT)?;
    let Some(name) = &options.tree else { return Ok(Chosen { trees, experiments, all: true }) };
    for tree in trees {
        if text_of(&source.registers(tree)?, Field::NAME, "").as_ref() == Some(name) {
            let experiments = source.owned(EntityKind::EXPERIMENT, Field::TREE, tree)?;
            return Ok(Chosen { trees: vec![tree], experiments, all: false });
        }
    }
    Err(Error::not_found("tree", name))
}

/// Whether an entity was removed for good.
pub(super) fn is_purged(registers: &Registers) -> bool {
    registers.get(&(Field::PURGED, String::new())).is_some_and(|(_, value)| *value == Value::Flag(true))
}

/// The layout an entity had in its tree.
pub(super) fn layout_of(registers: &Registers) -> Result<Option<Layout>> {
    registers.get(&(Field::SHAPE, LAYOUT.to_owned())).map_or(Ok(None), |(_, value)| Layout::from_value(value))
}

impl Exporter<'_> {
    fn everything(&mut self, chosen: &Chosen) -> Result<()> {
        for &tree in &chosen.trees {
            let registers = self.source.registers(tree)?;
            if !is_purged(&registers) {
                self.files(EntityKind::TREE, &registers, Path::new(""))?;
            }
        }
        // Every MLflow wants it.
        if chosen.trees.is_empty() {
            self.directory("directory", Path::new(".trash"))?;
        }
        let mut experiments = Vec::with_capacity(chosen.experiments.len());
        for &uid in &chosen.experiments {
            let registers = self.source.registers(uid)?;
            if is_purged(&registers) {
                continue;
            }
            let claimed =
                registers.get(&(Field::NUMERIC_ID, String::new())).map_or(Stamp::default(), |(at, _)| *at);
            let runs = self.source.owned(EntityKind::RUN, Field::EXPERIMENT, uid)?;
            self.state.runs_total += runs.len() as u64;
            experiments.push((claimed, uid));
        }
        // Of two that claim an id the older one has it.
        experiments.sort_unstable();
        let mut known = HashSet::new();
        for &(_, uid) in &experiments {
            known.insert(uid);
            self.state.experiments += 1;
            self.experiment(uid)?;
            self.tell();
        }
        self.registry(&chosen.trees, chosen.all)?;
        if chosen.all {
            self.report_orphans(&known)?;
        }
        Ok(())
    }

    /// Runs whose experiment is not there.
    fn report_orphans(&mut self, known: &HashSet<Uid>) -> Result<()> {
        let runs = self.source.entities(EntityKind::RUN)?;
        if runs.len() as u64 == self.state.runs_total {
            return Ok(());
        }
        for run in runs {
            let registers = self.source.registers(run)?;
            let experiment = registers.get(&(Field::EXPERIMENT, String::new()));
            let placed = matches!(experiment, Some((_, Value::Uid(uid))) if known.contains(uid));
            if !placed && !is_purged(&registers) {
                self.report.refuse("run", run.to_string(), "its experiment is not in the store");
            }
        }
        Ok(())
    }

    /// The stray files and empty directories of an entity, but for those that are entities of their own.
    pub(super) fn files(&mut self, kind: EntityKind, registers: &Registers, directory: &Path) -> Result<()> {
        let source = self.source;
        let read_blob = |blob| {
            let mut bytes = Vec::new();
            source.read_blob(blob).ok()?.read_to_end(&mut bytes).ok()?;
            Some(bytes)
        };
        let covered = covered(kind, registers, &read_blob)?;
        for ((field, key), (_, value)) in registers {
            if *field != Field::FILE || is_covered(&covered, key) {
                continue;
            }
            if let Some(content) = Content::from_value(value)?
                && let Some(path) = self.path_of("file", directory, key)
                && !(self.options.skip_artifacts && matches!(content, Content::Reference(_)))
            {
                self.content("file", &path, &content)?;
            }
        }
        for key in layout_of(registers)?.map(|layout| layout.empty).unwrap_or_default() {
            if !is_covered(&covered, &key)
                && let Some(path) = self.path_of("directory", directory, &key)
            {
                self.directory("directory", &path)?;
            }
        }
        Ok(())
    }
}
