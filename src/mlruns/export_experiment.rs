//! Export of an experiment: its directory, `meta.yaml`, tags and data sets.
//!
//! Contract: an imported experiment keeps its directory until its lifecycle changes; then it is in `.trash` exactly
//! if it is deleted, as MLflow moves it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::Registers;
use super::content::Content;
use super::export::{is_purged, layout_of};
use super::export_files::Exporter;
use super::meta::{DatasetMeta, ExperimentMeta};
use super::path::{file_uri, safe_path};
use super::plan::META;
use super::shape::{Described, Shape};
use super::yaml_emit::emit;
use crate::error::Result;
use crate::format::event::{EntityKind, Field, Value};
use crate::id::Uid;
use crate::model::Lifecycle;

/// What the export of a run needs to know of its experiment.
pub(super) struct ExperimentPlace {
    pub(super) directory: PathBuf,
    pub(super) id: String,
    /// Where artifacts of runs are that do not say it themselves.
    pub(super) location: String,
    /// Directory of each data set.
    pub(super) datasets: HashMap<Uid, String>,
}

impl Exporter<'_> {
    /// Writes an experiment and its runs.
    pub(super) fn experiment(&mut self, uid: Uid) -> Result<()> {
        self.forget_directories();
        let registers = self.source.registers(uid)?;
        let mut meta = ExperimentMeta::from_registers(&registers);
        let layout = layout_of(&registers)?;
        let id = meta.id.get_or_insert_with(|| invented_id(uid)).clone();
        let deleted = meta.lifecycle == Some(Lifecycle::Deleted);
        let key = match &layout {
            Some(layout) if layout.deleted == deleted => layout.directory.clone(),
            Some(layout) => {
                in_or_out(layout.directory.strip_prefix(".trash/").unwrap_or(&layout.directory), deleted)
            }
            None => in_or_out(&id, deleted),
        };
        let runs = self.source.owned(EntityKind::RUN, Field::EXPERIMENT, uid)?;
        let refusal = match safe_path(&key) {
            None => Some("its id is no name for a directory"),
            Some(directory) if self.is_taken(&directory) => Some("another experiment has its id"),
            Some(_) => None,
        };
        if let Some(reason) = refusal {
            let name = format!("{key} ({}), with {} runs", meta.name.unwrap_or_default(), runs.len());
            self.report.refuse("experiment", name, reason);
            return Ok(());
        }
        let directory = safe_path(&key).unwrap_or_default();
        self.directory("experiment", &directory)?;
        let location =
            meta.artifact_location.clone().unwrap_or_else(|| file_uri(&self.destination.join(&id)));
        if layout.is_none() {
            meta.artifact_location.get_or_insert_with(|| location.clone());
        }
        self.describe(&registers, &directory, &meta)?;
        self.values(&registers, &directory, Field::TAG)?;
        let mut place = ExperimentPlace { directory, id, location, datasets: HashMap::new() };
        self.datasets(uid, &mut place)?;
        self.files(EntityKind::EXPERIMENT, &registers, &place.directory.clone())?;
        self.report.experiments += 1;
        for model in self.source.owned(EntityKind::LOGGED_MODEL, Field::EXPERIMENT, uid)? {
            self.logged_model(model, &place)?;
        }
        self.traces(uid, &registers, &place)?;
        for run in runs {
            self.run(run, &mut place)?;
            self.state.runs += 1;
            self.tell();
        }
        Ok(())
    }

    fn datasets(&mut self, experiment: Uid, place: &mut ExperimentPlace) -> Result<()> {
        for uid in self.source.owned(EntityKind::DATASET, Field::EXPERIMENT, experiment)? {
            self.dataset(uid, place)?;
        }
        Ok(())
    }

    /// Writes a data set of the experiment, unless it is there. (Those that were not imported are known only from the
    /// runs that name them.)
    pub(super) fn dataset(&mut self, uid: Uid, place: &mut ExperimentPlace) -> Result<()> {
        if place.datasets.contains_key(&uid) || self.source.kind(uid)? != Some(EntityKind::DATASET) {
            return Ok(());
        }
        let registers = self.source.registers(uid)?;
        if is_purged(&registers) {
            return Ok(());
        }
        let dataset = DatasetMeta::from_registers(&registers);
        let directory = place.directory.join("datasets").join(dataset.directory());
        self.describe(&registers, &directory, &dataset)?;
        place.datasets.insert(uid, dataset.directory());
        Ok(())
    }

    /// Writes the `meta.yaml` of an entity: in the layout it had, or as its original bytes while nothing it shows has
    /// changed.
    pub(super) fn describe<D: Described>(
        &mut self,
        registers: &Registers,
        directory: &Path,
        described: &D,
    ) -> Result<()> {
        let path = directory.join(META);
        let of = |field: Field| registers.get(&(field, META.to_owned())).map(|(_, value)| value);
        let original = of(Field::VERBATIM).map_or(Ok(None), Content::from_override)?;
        if let Some((guard, content)) = original
            && guard == described.guard()
        {
            return self.content("file", &path, &content);
        }
        let shape = of(Field::SHAPE).map_or(Ok(None), Shape::from_value)?;
        let node = shape.unwrap_or_else(Shape::default_of::<D>).render(described);
        let node = self.rewritten(node);
        self.write("file", &path, &emit(&node)?)
    }

    /// Writes params or tags. A deleted tag leaves its directory, as MLflow does.
    pub(super) fn values(&mut self, registers: &Registers, directory: &Path, field: Field) -> Result<()> {
        let (what, name) = if field == Field::TAG { ("tag", "tags") } else { ("param", "params") };
        let directory = directory.join(name);
        for ((register, key), (_, value)) in registers {
            if *register != field {
                continue;
            }
            let Some(path) = self.path_of(what, &directory, key) else { continue };
            match value {
                Value::Text(text) => self.write(what, &path, text.as_bytes())?,
                Value::Bytes(bytes) => self.write(what, &path, bytes)?,
                _ => {
                    self.directory(what, path.parent().unwrap_or(&directory))?;
                }
            }
        }
        Ok(())
    }
}

fn in_or_out(name: &str, deleted: bool) -> String {
    if deleted { format!(".trash/{name}") } else { name.to_owned() }
}

/// An id for an experiment that has none, in the form MLflow 2 and 3 use.
fn invented_id(uid: Uid) -> String {
    let [a, b, c, d, e, f, g, h, ..] = *uid.as_bytes();
    let number = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    (100_000_000_000_000_000 + number % 900_000_000_000_000_000).to_string()
}
