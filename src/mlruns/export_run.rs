//! Export of a run: its `meta.yaml`, params, tags, inputs, artifacts and metric files.
//!
//! Contract: a metric file is what was imported, byte for byte, followed by what was logged since, in the order of the
//! history. A run that was not imported gets the directories that MLflow 3 insists on.

use std::fs;
use std::path::Path;

use super::content::Content;
use super::digest::md5_of;
use super::export::{is_purged, layout_of};
use super::export_experiment::ExperimentPlace;
use super::export_files::Exporter;
use super::import_run::input_file;
use super::meta::{RunMeta, input_document, text_of};
use super::metric_file::MetricWriter;
use super::metric_record::MetricRecord;
use super::path::safe_path;
use super::plan::META;
use super::run_models::{DATASET, RunModel};
use super::yaml_emit::emit;
use super::{Registers, Which};
use crate::error::{Error, Result};
use crate::format::event::{EntityKind, Field, Value};
use crate::format::input_tags::decode_input_tags;
use crate::id::Uid;

/// Bytes of a metric file written at a time.
const WRITE_BYTES: usize = 1024 * 1024;
const RUN_NAME: &str = "mlflow.runName";

impl Exporter<'_> {
    /// Writes a run.
    pub(super) fn run(&mut self, uid: Uid, place: &mut ExperimentPlace) -> Result<()> {
        self.forget_directories();
        let registers = self.source.registers(uid)?;
        if is_purged(&registers) {
            return Ok(());
        }
        let id = text_of(&registers, Field::RUN_ID_TEXT, "").unwrap_or_else(|| uid.to_string());
        let layout = layout_of(&registers)?;
        let key = layout.as_ref().map_or(&id, |layout| &layout.directory);
        let directory = safe_path(key).map(|key| place.directory.join(key));
        let Some(directory) = directory.filter(|directory| !self.is_taken(directory)) else {
            self.report.refuse(
                "run",
                format!("{} of experiment {}", id, place.id),
                "another file or run has its directory, or its id is no name for one",
            );
            return Ok(());
        };
        let mut meta = RunMeta::from_registers(&registers, id.clone(), Some(place.id.clone()));
        if layout.is_none() {
            meta.artifact_uri.get_or_insert_with(|| format!("{}/{id}/artifacts", place.location));
            for name in ["metrics", "params", "artifacts"] {
                self.directory("directory", &directory.join(name))?;
            }
            // MLflow 1.x knows a run's name only from its tag.
            if let Some(name) = &meta.name
                && !registers.contains_key(&(Field::TAG, RUN_NAME.to_owned()))
            {
                self.write("tag", &directory.join("tags").join(RUN_NAME), name.as_bytes())?;
            }
        }
        self.describe(&registers, &directory, &meta)?;
        self.values(&registers, &directory, Field::PARAM)?;
        self.values(&registers, &directory, Field::TAG)?;
        self.inputs(&registers, &directory, &id, place)?;
        self.run_models(&registers, &directory, &id)?;
        self.files(EntityKind::RUN, &registers, &directory)?;
        if !self.options.skip_artifacts {
            let from = self.source.artifact_directory(uid)?;
            self.artifacts(&from, &directory.join("artifacts"))?;
        }
        for key in self.metric_keys(uid, &registers)? {
            self.metric(uid, &registers, &directory.join("metrics"), &key)?;
        }
        self.report.runs += 1;
        Ok(())
    }

    /// The metrics of a run or logged model that have points or a file.
    pub(super) fn metric_keys(&self, uid: Uid, registers: &Registers) -> Result<Vec<String>> {
        let mut keys = self.source.metric_keys(uid)?;
        keys.extend(
            registers.keys().filter(|(field, _)| *field == Field::METRIC_FILE).map(|(_, key)| key.clone()),
        );
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }

    fn inputs(
        &mut self,
        registers: &Registers,
        directory: &Path,
        run_id: &str,
        place: &mut ExperimentPlace,
    ) -> Result<()> {
        for ((field, key), (_, value)) in registers {
            if *field != Field::INPUT {
                continue;
            }
            let Value::Bytes(tags) = value else { continue };
            let tags = decode_input_tags(tags).map_err(|_| {
                Error::InvalidState("a stored input record is damaged; run `mlrs-db verify`".into())
            })?;
            let dataset = key.parse::<Uid>()?;
            if registers.contains_key(&(Field::VERBATIM, input_file(&dataset))) {
                continue;
            }
            self.dataset(dataset, place)?;
            let Some(source) = place.datasets.get(&dataset) else {
                self.report.refuse(
                    "input",
                    format!("{key} of run {run_id}"),
                    "its data set is not in the experiment",
                );
                continue;
            };
            let path = directory.join("inputs").join(md5_of(&[source, run_id])).join(META);
            self.write("input", &path, &emit(&input_document(DATASET, source, &tags))?)?;
        }
        Ok(())
    }

    /// Logged models that the run used or made.
    fn run_models(&mut self, registers: &Registers, directory: &Path, run_id: &str) -> Result<()> {
        for ((field, id), (_, value)) in registers {
            let model = match (*field, value) {
                (Field::MODEL_INPUT, Value::Bytes(tags)) => {
                    let tags = decode_input_tags(tags).map_err(|_| {
                        Error::InvalidState("a stored input record is damaged; run `mlrs-db verify`".into())
                    })?;
                    RunModel::input(id, run_id, &tags)
                }
                (Field::MODEL_OUTPUT, Value::Integer(step)) => RunModel::output(id, *step),
                _ => continue,
            };
            if !registers.contains_key(&(Field::VERBATIM, model.override_key()))
                && let Some(path) =
                    model.file().to_str().and_then(|file| self.path_of("model", directory, file))
            {
                self.write("model", &path, &model.bytes()?)?;
            }
        }
        Ok(())
    }

    pub(super) fn artifacts(&mut self, from: &Path, to: &Path) -> Result<()> {
        let mut pending = vec![(from.to_path_buf(), to.to_path_buf())];
        while let Some((from, to)) = pending.pop() {
            let entries = match fs::read_dir(&from) {
                Ok(entries) => entries,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(Error::io("list", &from, e)),
            };
            self.directory("artifact", &to)?;
            for entry in entries {
                let entry = entry.map_err(|e| Error::io("list", &from, e))?;
                let target = to.join(entry.file_name());
                if entry.path().is_dir() {
                    pending.push((entry.path(), target));
                } else {
                    self.copy("artifact", &entry.path(), &target)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn metric(
        &mut self,
        run: Uid,
        registers: &Registers,
        directory: &Path,
        key: &str,
    ) -> Result<()> {
        let Some(path) = self.path_of("metric", directory, key) else { return Ok(()) };
        let Some(mut file) = self.create("metric", &path)? else { return Ok(()) };
        let record = registers.get(&(Field::METRIC_FILE, key.to_owned()));
        let record = record.map_or(Ok(None), |(_, value)| MetricRecord::from_value(value))?;
        let Some(record) = record else {
            return self.points(run, key, Which::All, &[], false, &mut file, &path).map(drop);
        };
        let (mut first, mut cut) = (0, false);
        if let Some(original) = &record.original {
            match original {
                Content::Blob(blob) => self.append_blob(&mut file, &path, *blob)?,
                Content::Inline(bytes) => self.append(&mut file, &path, bytes)?,
                _ => {
                    return Err(Error::InvalidState(format!(
                        "the record of metric '{key}' is damaged; run `mlrs-db verify`"
                    )));
                }
            }
            self.report.points += record.parsed.points;
            first = record.parsed.points;
            cut = record.parsed.unterminated;
        }
        let imported = Which::From(record.origin, first);
        let mut irregular = record.parsed.irregular.as_slice();
        if record.parsed.unterminated && self.has_grown(run, key, &record)? {
            // An import of the grown file was interrupted: what was half a line then is a point already.
            let half = irregular.last().is_some_and(|line| line.line + 1 == record.parsed.lines);
            irregular = irregular.get(..irregular.len() - usize::from(half)).unwrap_or_default();
        }
        cut = self.points(run, key, imported, irregular, cut, &mut file, &path)?;
        self.points(run, key, Which::Except(record.origin), &[], cut, &mut file, &path)?;
        Ok(())
    }

    /// Whether more points were imported than the record of the file says.
    fn has_grown(&self, run: Uid, key: &str, record: &MetricRecord) -> Result<bool> {
        let mut grown = false;
        self.source.read_points(
            run,
            key,
            Which::From(record.origin, record.parsed.points),
            &mut |block| {
                grown |= !block.values.is_empty();
                Ok(())
            },
        )?;
        Ok(grown)
    }

    /// Appends points to a metric file. With `cut`, the file ends inside a line, which is ended before the first
    /// point. Returns whether it does so now.
    #[allow(clippy::too_many_arguments)]
    fn points(
        &mut self,
        run: Uid,
        key: &str,
        which: Which,
        irregular: &[super::metric_file::Irregular],
        cut: bool,
        file: &mut fs::File,
        path: &Path,
    ) -> Result<bool> {
        let mut out = Vec::with_capacity(WRITE_BYTES + 256 * 1024);
        let mut writer = MetricWriter::new(irregular);
        let mut cut = cut;
        let source = self.source;
        source.read_points(run, key, which, &mut |block| {
            if cut && !block.values.is_empty() {
                out.push(b'\n');
                cut = false;
            }
            writer.points(block, &mut out);
            self.report.points += block.values.len() as u64;
            if out.len() >= WRITE_BYTES {
                self.append(file, path, &out)?;
                out.clear();
                self.tell();
            }
            Ok(())
        })?;
        writer.finish(&mut out);
        self.append(file, path, &out)?;
        // An empty buffer here means nothing was written, or whole blocks of lines.
        Ok(out.last().map_or(cut, |&last| last != b'\n'))
    }
}
