//! Export of a logged model: its `meta.yaml`, params, tags, metric files and artifacts.
//!
//! Contract: as for runs. A model that was not imported gets the directories that MLflow makes.

use super::export::{is_purged, layout_of};
use super::export_experiment::ExperimentPlace;
use super::export_files::Exporter;
use super::logged_model::LoggedModelMeta;
use super::meta::text_of;
use super::path::safe_path;
use crate::error::Result;
use crate::format::event::{EntityKind, Field};
use crate::id::Uid;

impl Exporter<'_> {
    /// Writes a logged model.
    pub(super) fn logged_model(&mut self, uid: Uid, place: &ExperimentPlace) -> Result<()> {
        self.forget_directories();
        let registers = self.source.registers(uid)?;
        if is_purged(&registers) {
            return Ok(());
        }
        let id = text_of(&registers, Field::RUN_ID_TEXT, "").unwrap_or_else(|| format!("m-{uid}"));
        let layout = layout_of(&registers)?;
        let key = layout.as_ref().map_or_else(|| format!("models/{id}"), |layout| layout.directory.clone());
        let directory = safe_path(&key).map(|key| place.directory.join(key));
        let Some(directory) = directory.filter(|directory| !self.is_taken(directory)) else {
            self.report.refuse(
                "logged model",
                format!("{id} of experiment {}", place.id),
                "something else has its directory, or its id is no name for one",
            );
            return Ok(());
        };
        let mut meta = LoggedModelMeta::from_registers(&registers, id.clone(), Some(place.id.clone()));
        if layout.is_none() {
            meta.artifact_location.get_or_insert_with(|| format!("{}/models/{id}/artifacts", place.location));
            for name in ["metrics", "params"] {
                self.directory("directory", &directory.join(name))?;
            }
        }
        self.describe(&registers, &directory, &meta)?;
        self.values(&registers, &directory, Field::PARAM)?;
        self.values(&registers, &directory, Field::TAG)?;
        self.files(EntityKind::LOGGED_MODEL, &registers, &directory)?;
        if !self.options.skip_artifacts {
            let from = self.source.artifact_directory(uid)?;
            self.artifacts(&from, &directory.join("artifacts"))?;
        }
        for key in self.metric_keys(uid, &registers)? {
            self.metric(uid, &registers, &directory.join("metrics"), &key)?;
        }
        Ok(())
    }
}
