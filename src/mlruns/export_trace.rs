//! Export of traces: their files as they were imported, but for what was changed since, and files for new ones.
//!
//! Contract: see `trace`. A file is written as it is while the store says what it says; a tag, a piece of metadata or
//! an assessment that is gone leaves its directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Registers;
use super::derive::{TraceFiles, trace_files};
use super::export::is_purged;
use super::export_experiment::ExperimentPlace;
use super::export_files::Exporter;
use super::meta::{integer_of, text_of};
use super::trace::{ASSESSMENTS, TRACE_INFO, TRACE_VALUES, TRACES, assessment_document, trace_document};
use super::yaml_emit::emit;
use crate::catalog::decode_assessment;
use crate::error::Result;
use crate::format::event::{EntityKind, Field, Value};
use crate::id::Uid;
use crate::model::TraceInfo;

/// What `trace_info.yaml` shows.
const INFO: [Field; 6] = [
    Field::STATUS,
    Field::START_MS,
    Field::EXECUTION_MS,
    Field::CLIENT_REQUEST_ID,
    Field::REQUEST_PREVIEW,
    Field::RESPONSE_PREVIEW,
];

/// Says where the files of a trace are.
const LOCATION_TAG: &str = "mlflow.artifactLocation";

/// The value of a register that is there.
fn of<'r>(registers: &'r Registers, field: Field, key: &str) -> Option<&'r Value> {
    let (_, value) = registers.get(&(field, key.to_owned()))?;
    (*value != Value::Absent).then_some(value)
}

fn info_of(registers: &Registers, id: &str, experiment_id: &str) -> TraceInfo {
    let text = |field| text_of(registers, field, "");
    TraceInfo {
        uid: Uid::default(),
        id: id.to_owned(),
        experiment_uid: Uid::default(),
        experiment_id: experiment_id.to_owned(),
        client_request_id: text(Field::CLIENT_REQUEST_ID),
        request_ms: integer_of(registers, Field::START_MS).unwrap_or(0),
        execution_ms: integer_of(registers, Field::EXECUTION_MS),
        state: text(Field::STATUS).and_then(|state| state.parse().ok()).unwrap_or_default(),
        request_preview: text(Field::REQUEST_PREVIEW),
        response_preview: text(Field::RESPONSE_PREVIEW),
        tags: BTreeMap::new(),
        metadata: BTreeMap::new(),
        assessments: Vec::new(),
    }
}

impl Exporter<'_> {
    /// Writes the traces of an experiment, whose registers hold the files of those that were imported.
    pub(super) fn traces(
        &mut self,
        experiment: Uid,
        kept: &Registers,
        place: &ExperimentPlace,
    ) -> Result<()> {
        let source = self.source;
        let read_blob = |blob| {
            let mut bytes = Vec::new();
            source.read_blob(blob).ok()?.read_to_end(&mut bytes).ok()?;
            Some(bytes)
        };
        let mut filed = trace_files(experiment, kept, &read_blob)?;
        for uid in self.source.owned(EntityKind::TRACE, Field::EXPERIMENT, experiment)? {
            self.forget_directories();
            let registers = self.source.registers(uid)?;
            if is_purged(&registers) {
                continue;
            }
            let id = text_of(&registers, Field::RUN_ID_TEXT, "").unwrap_or_else(|| format!("tr-{uid}"));
            // By either identity: which one it got depends on what else was in the store.
            let files = filed.iter().position(|files| files.id == id).map(|at| filed.swap_remove(at));
            self.trace(uid, &id, &registers, files, place)?;
        }
        // Of a source that does not derive entities, the files are all there is; what was deleted stays away.
        for files in filed {
            let mut is_gone = false;
            for uid in &files.uids {
                is_gone |= is_purged(&self.source.registers(*uid)?);
            }
            if !is_gone {
                self.forget_directories();
                let (id, says) = (files.id.clone(), files.says.clone());
                self.trace(Uid::default(), &id, &says, Some(files), place)?;
            }
        }
        Ok(())
    }

    fn trace(
        &mut self,
        uid: Uid,
        id: &str,
        registers: &Registers,
        files: Option<TraceFiles>,
        place: &ExperimentPlace,
    ) -> Result<()> {
        let is_new = files.is_none();
        let files = files.unwrap_or_else(|| TraceFiles::new(id, Path::new(TRACES).join(id)));
        let Some(directory) = self.path_of("trace", &place.directory, &super::path::key_of(&files.directory))
        else {
            return Ok(());
        };
        let same = |field: Field, key: &str| of(&files.says, field, key) == of(registers, field, key);
        let mut written: Vec<(Field, String)> = Vec::new();
        for (name, content) in &files.files {
            let path = directory.join(name);
            let parts = name.iter().next().and_then(|first| first.to_str());
            let rest = || name.strip_prefix(parts.unwrap_or_default()).ok().and_then(Path::to_str);
            let value = TRACE_VALUES.iter().find(|(of, _)| parts == Some(of)).and_then(|(_, field)| {
                let key = rest()?;
                files.says.contains_key(&(*field, key.to_owned())).then(|| (*field, key.to_owned()))
            });
            let stands = if name == Path::new(TRACE_INFO) {
                INFO.iter().all(|field| same(*field, ""))
            } else if let Some((field, key)) = value {
                let stands = same(field, &key);
                if stands {
                    written.push((field, key));
                } else {
                    self.directory("directory", path.parent().unwrap_or(&directory))?;
                }
                stands
            } else if let Some(key) =
                rest().filter(|_| parts == Some(ASSESSMENTS)).and_then(|r| r.strip_suffix(".yaml"))
                && files.says.contains_key(&(Field::ASSESSMENT, key.to_owned()))
            {
                let stands = same(Field::ASSESSMENT, key);
                if stands {
                    written.push((Field::ASSESSMENT, key.to_owned()));
                } else {
                    self.directory("directory", path.parent().unwrap_or(&directory))?;
                }
                stands
            } else {
                true
            };
            if stands {
                self.content("file", &path, content)?;
            }
        }
        for empty in &files.empty {
            self.directory("directory", &directory.join(empty))?;
        }
        if is_new || !INFO.iter().all(|field| same(*field, "")) {
            let info = trace_document(&info_of(registers, id, &place.id));
            self.write("file", &directory.join(TRACE_INFO), &emit(&info)?)?;
        }
        self.trace_values(id, registers, &directory, &written)?;
        if is_new {
            if of(registers, Field::TAG, LOCATION_TAG).is_none() {
                let location = format!("{}/{TRACES}/{id}/artifacts", place.location);
                self.write("tag", &directory.join("tags").join(LOCATION_TAG), location.as_bytes())?;
            }
            if !self.options.skip_artifacts {
                let from = self.source.artifact_directory(uid)?;
                self.artifacts(&from, &directory.join("artifacts"))?;
            }
        }
        Ok(())
    }

    /// Writes tags, metadata and assessments that no file says.
    fn trace_values(
        &mut self,
        id: &str,
        registers: &Registers,
        directory: &Path,
        written: &[(Field, String)],
    ) -> Result<()> {
        for ((field, key), (_, value)) in registers {
            if written.iter().any(|(of, name)| of == field && name == key) {
                continue;
            }
            let bytes = match (value, *field) {
                (Value::Bytes(bytes), Field::ASSESSMENT) => match decode_assessment(key, bytes) {
                    Some(assessment) => emit(&assessment_document(id, &assessment))?,
                    None => continue,
                },
                (Value::Text(text), Field::TAG | Field::METADATA) => text.clone().into_bytes(),
                (Value::Bytes(bytes), Field::TAG | Field::METADATA) => bytes.clone(),
                _ => continue,
            };
            let path: Option<PathBuf> = match *field {
                Field::ASSESSMENT => {
                    self.path_of("assessment", &directory.join(ASSESSMENTS), &format!("{key}.yaml"))
                }
                of => {
                    let name =
                        TRACE_VALUES.iter().find(|(_, field)| *field == of).map_or("", |(name, _)| name);
                    self.path_of("tag", &directory.join(name), key)
                }
            };
            if let Some(path) = path {
                self.write("tag", &path, &bytes)?;
            }
        }
        Ok(())
    }
}
