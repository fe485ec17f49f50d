//! Registered models and their versions: who answers to which name and number, and how they are shown.
//!
//! Contract: the number of a version is a claim within its model. An alias names a version by its identity, so it stays
//! with that version whatever number that answers to; it shows only as long as the version does. A deleted version
//! keeps its number and what it said, and shows nowhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::claims::{VERSIONS_IN_TURN_MAX, claimed_version, fallback_version, version_claim};
use super::conflicts::Conflict;
use super::render::owned;
use super::{Catalog, Entity};
use crate::format::event::{EntityKind, Field, ValueRef};
use crate::id::Uid;
use crate::model::{ModelStage, ModelVersion, RegisteredModel};

/// The stage of a deleted version, which MLflow shows nobody.
pub const DELETED_STAGE: &str = "Deleted_Internal";

const READY: &str = "READY";

impl Catalog {
    /// A registered model by uid.
    pub fn registered_model(&self, uid: Uid) -> Option<&Arc<Entity>> {
        self.get(EntityKind::REGISTERED_MODEL, uid)
    }

    /// The registered model that holds a name, or whose uid it is.
    pub fn registered_model_by_name(&self, name: &str) -> Option<&Arc<Entity>> {
        let holder = self.claims.names.holder(EntityKind::REGISTERED_MODEL, name);
        let by_name = holder.and_then(|(_, uid)| self.registered_model(uid));
        by_name.or_else(|| self.registered_model(name.parse().ok()?))
    }

    /// All versions of a registered model, deleted ones included, by uid.
    pub fn versions_of(&self, model: Uid) -> impl Iterator<Item = &Arc<Entity>> {
        self.claims
            .children(EntityKind::MODEL_VERSION, model)
            .filter_map(|uid| self.get(EntityKind::MODEL_VERSION, uid))
    }

    /// The number that a version answers to: the one it claims, or its own where an older one holds that.
    pub fn version_number(&self, version: &Entity) -> u64 {
        let uid = version.uid();
        let claimed = version.reference(Field::MODEL).zip(claimed_version(version));
        match claimed {
            Some((model, number))
                if self.holds_id(EntityKind::MODEL_VERSION, &version_claim(model, number), uid) =>
            {
                number
            }
            _ => fallback_version(uid),
        }
    }

    /// The version of a model that answers to a number, also a deleted one.
    pub fn version(&self, model: Uid, number: u64) -> Option<&Arc<Entity>> {
        let (kind, claim) = (EntityKind::MODEL_VERSION, version_claim(model, number));
        let holder = self.claims.ids.holder(kind, &claim);
        self.get(kind, holder.or_else(|| self.claims.fallback_ids.holder(kind, &claim))?.1)
    }

    /// The number that the next version of a model gets: above all that were ever given out in turn.
    pub fn next_version(&self, model: Uid) -> u64 {
        let given = self.versions_of(model).filter_map(|version| claimed_version(version));
        given.filter(|number| *number < VERSIONS_IN_TURN_MAX).max().unwrap_or(0) + 1
    }

    /// The version that an alias of a model names, as long as it is there.
    pub fn version_by_alias(&self, model: &Entity, alias: &str) -> Option<&Arc<Entity>> {
        let Some(ValueRef::Uid(version)) = model.get(Field::ALIAS, alias) else { return None };
        let version = self.get(EntityKind::MODEL_VERSION, version)?;
        (version.reference(Field::MODEL) == Some(model.uid()) && !is_deleted_version(version))
            .then_some(version)
    }

    /// The aliases of a model that name a version, by alias.
    fn aliases<'a>(&'a self, model: &'a Entity) -> impl Iterator<Item = (&'a str, &'a Arc<Entity>)> {
        model
            .entries(Field::ALIAS)
            .filter_map(|(alias, ..)| Some((alias, self.version_by_alias(model, alias)?)))
    }

    /// The version with the greatest number in each stage, in the order of stages.
    pub fn latest_versions(&self, model: Uid) -> Vec<&Arc<Entity>> {
        let mut latest: BTreeMap<ModelStage, (u64, &Arc<Entity>)> = BTreeMap::new();
        for version in self.versions_of(model).filter(|version| !is_deleted_version(version)) {
            let number = self.version_number(version);
            let of_stage = latest.entry(stage_of(version)).or_insert((number, version));
            if number >= of_stage.0 {
                *of_stage = (number, version);
            }
        }
        latest.into_values().map(|(_, version)| version).collect()
    }

    /// A registered model as the caller sees it.
    pub fn render_registered_model(&self, model: &Entity) -> RegisteredModel {
        let text = |field| model.text(field).map(str::to_owned);
        let latest = self.latest_versions(model.uid());
        RegisteredModel {
            uid: model.uid(),
            name: text(Field::NAME).unwrap_or_default(),
            description: text(Field::DESCRIPTION),
            created_ms: model.integer(Field::CREATED_MS),
            updated_ms: model.integer(Field::UPDATED_MS),
            tags: owned(model.tags()),
            aliases: self
                .aliases(model)
                .map(|(alias, version)| (alias.to_owned(), self.version_number(version)))
                .collect(),
            latest_versions: latest.into_iter().map(|version| self.render_version(model, version)).collect(),
        }
    }

    /// A version as the caller sees it.
    pub fn render_version(&self, model: &Entity, version: &Entity) -> ModelVersion {
        let text = |field| version.text(field).map(str::to_owned);
        let names_it =
            |(alias, named): (&str, &Arc<Entity>)| (named.uid() == version.uid()).then(|| alias.to_owned());
        ModelVersion {
            uid: version.uid(),
            name: model.text(Field::NAME).unwrap_or_default().to_owned(),
            version: self.version_number(version),
            stage: stage_of(version),
            description: text(Field::DESCRIPTION),
            created_ms: version.integer(Field::CREATED_MS),
            updated_ms: version.integer(Field::UPDATED_MS),
            user: text(Field::USER),
            source: text(Field::SOURCE),
            storage_location: text(Field::ARTIFACT_LOCATION),
            run_id: text(Field::RUN_ID),
            run_link: text(Field::RUN_LINK),
            model_id: text(Field::MODEL_ID),
            status: text(Field::STATUS).unwrap_or_else(|| READY.to_owned()),
            status_message: text(Field::STATUS_MESSAGE),
            tags: owned(version.tags()),
            aliases: self.aliases(model).filter_map(names_it).collect(),
        }
    }

    /// Names and numbers that were lost to an older claim, and versions without a model.
    pub(super) fn registry_conflicts(&self) -> Vec<Conflict> {
        let names = self.claims.names.lost(EntityKind::REGISTERED_MODEL);
        let mut all: Vec<Conflict> = names
            .map(|(name, holder, loser)| Conflict::RegisteredModelName {
                name: name.to_owned(),
                holder,
                loser,
            })
            .collect();
        let version = |uid| self.get(EntityKind::MODEL_VERSION, uid);
        let model = |entity: &Entity| self.registered_model(entity.reference(Field::MODEL)?);
        for (_, holder, loser) in self.claims.ids.lost(EntityKind::MODEL_VERSION) {
            if let Some(lost) = version(loser)
                && let Some(model) = model(lost)
            {
                all.push(Conflict::ModelVersion {
                    model: model.text(Field::NAME).unwrap_or_default().to_owned(),
                    version: claimed_version(lost).unwrap_or(0),
                    holder,
                    loser,
                    answers_to: self.version_number(lost),
                });
            }
        }
        let orphans = self.of_kind(EntityKind::MODEL_VERSION).filter(|version| model(version).is_none());
        all.extend(orphans.map(|version| Conflict::OrphanVersion {
            version: version.uid(),
            model: version.reference(Field::MODEL),
        }));
        all
    }
}

/// Whether a version was deleted.
pub fn is_deleted_version(version: &Entity) -> bool {
    version.text(Field::STAGE) == Some(DELETED_STAGE)
}

/// The stage of a version that is not deleted.
pub(super) fn stage_of(version: &Entity) -> ModelStage {
    version.text(Field::STAGE).and_then(|stage| stage.parse().ok()).unwrap_or_default()
}
