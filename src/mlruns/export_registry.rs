//! Export of registered models and their versions.
//!
//! Contract: as for experiments: what was imported and not changed has its bytes, what was changed shows the change. A
//! model's directory is its name, a version's its number, unless the tree had it otherwise.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Registers;
use super::export::{is_purged, layout_of};
use super::export_files::Exporter;
use super::path::safe_path;
use super::plan::LAYOUT;
use super::registry::{ALIASES, MODELS, version_directory};
use super::registry_meta::{ModelVersionMeta, RegisteredModelMeta};
use crate::error::Result;
use crate::format::event::{EntityKind, Field, Value};
use crate::id::{Stamp, Uid};

/// The smallest stamp of an entity's registers: of two that claim one name the older has it.
fn oldest(registers: &Registers) -> Stamp {
    registers.values().map(|(stamp, _)| *stamp).min().unwrap_or_default()
}

/// What is known of a version before it is written.
struct Version {
    registers: Registers,
    number: i64,
}

impl Exporter<'_> {
    /// Writes the registered models of these trees, or all.
    pub(super) fn registry(&mut self, trees: &[Uid], all: bool) -> Result<()> {
        let mut models = Vec::new();
        if all {
            models = self.source.entities(EntityKind::REGISTERED_MODEL)?;
        } else {
            for tree in trees {
                models.extend(self.source.owned(EntityKind::REGISTERED_MODEL, Field::TREE, *tree)?);
            }
        }
        let mut known = Vec::with_capacity(models.len());
        for uid in models {
            let registers = self.source.registers(uid)?;
            if !is_purged(&registers) {
                known.push((oldest(&registers), uid, registers));
            }
        }
        known.sort_by_key(|(stamp, uid, _)| (*stamp, *uid));
        for (_, uid, registers) in known {
            self.forget_directories();
            self.registered_model(uid, &registers)?;
        }
        Ok(())
    }

    fn registered_model(&mut self, uid: Uid, registers: &Registers) -> Result<()> {
        let mut versions = BTreeMap::new();
        for version in self.source.owned(EntityKind::MODEL_VERSION, Field::MODEL, uid)? {
            let registers = self.source.registers(version)?;
            if let Some((_, Value::Integer(number))) = registers.get(&(Field::VERSION, String::new()))
                && !is_purged(&registers)
            {
                let number = *number;
                versions.insert(version, Version { registers, number });
            }
        }
        let aliases: BTreeMap<String, i64> = registers
            .iter()
            .filter_map(|((field, alias), (_, value))| match value {
                Value::Uid(version) if *field == Field::ALIAS => {
                    Some((alias.clone(), versions.get(version)?.number))
                }
                _ => None,
            })
            .collect();
        let meta = RegisteredModelMeta::from_registers(registers, aliases);
        let placed = layout_of(registers)?.map(|layout| layout.directory).filter(|place| !place.is_empty());
        let place = placed.unwrap_or_else(|| format!("{MODELS}/{}", meta.name));
        let Some(directory) = self.free(&place, &meta.name) else {
            let name = format!("{}, with {} versions", meta.name, versions.len());
            let reason = "another registered model has its name, or that is no name for a directory";
            self.report.refuse("registered model", name, reason);
            return Ok(());
        };
        self.directory("registered model", &directory)?;
        self.describe(registers, &directory, &meta)?;
        self.values(registers, &directory, Field::TAG)?;
        for (field, alias) in registers.keys() {
            if *field == Field::ALIAS {
                self.alias(&directory.join(ALIASES), alias, meta.aliases.get(alias))?;
            }
        }
        self.files(EntityKind::REGISTERED_MODEL, registers, &directory)?;
        let mut sorted: Vec<_> = versions.values().collect();
        sorted.sort_by_key(|version| (version.number, oldest(&version.registers)));
        for version in sorted {
            self.model_version(version, &directory, &meta)?;
        }
        Ok(())
    }

    /// A path that nothing has yet and that MLflow can read: it takes no `%` and no backslash for a model's name.
    fn free(&self, place: &str, name: &str) -> Option<PathBuf> {
        let is_named = !place.starts_with(MODELS) || !name.contains(['%', '\\']);
        safe_path(place).filter(|path| is_named && !self.is_taken(path))
    }

    /// Writes an alias. One that was taken away leaves its directory, as MLflow does.
    fn alias(&mut self, directory: &Path, alias: &str, number: Option<&i64>) -> Result<()> {
        match number {
            Some(number) => {
                let Some(path) = self.path_of("alias", directory, alias) else { return Ok(()) };
                self.write("alias", &path, number.to_string().as_bytes())
            }
            None => self.directory("alias", directory).map(drop),
        }
    }

    fn model_version(&mut self, version: &Version, base: &Path, model: &RegisteredModelMeta) -> Result<()> {
        let Version { registers, number } = version;
        let names_it = |(_, named): &(&String, &i64)| *named == number;
        let aliases = model.aliases.iter().filter(names_it).map(|(alias, _)| alias.clone()).collect();
        let mut meta = ModelVersionMeta::from_registers(registers, model.name.clone(), aliases);
        if !registers.contains_key(&(Field::SHAPE, LAYOUT.to_owned())) {
            // MLflow reads files of versions from here alone.
            meta.storage_location = meta.storage_location.or_else(|| meta.source.clone());
        }
        let placed = layout_of(registers)?.map(|layout| layout.directory).filter(|place| !place.is_empty());
        let place = placed.unwrap_or_else(|| version_directory(*number));
        let directory = safe_path(&place).map(|place| base.join(place));
        let Some(directory) = directory.filter(|directory| !self.is_taken(directory)) else {
            let name = format!("{number} of {}", model.name);
            self.report.refuse("model version", name, "another version has its number");
            return Ok(());
        };
        self.describe(registers, &directory, &meta)?;
        self.values(registers, &directory, Field::TAG)?;
        self.files(EntityKind::MODEL_VERSION, registers, &directory)
    }
}
