//! What merging could not give to both: lost names, ids and params, and runs without an experiment.
//!
//! Contract: nothing here is an error and nothing was dropped; each is listed until somebody renames, deletes or
//! accepts it.

use std::fmt;

use super::Catalog;
use crate::format::event::{EntityKind, Field};
use crate::id::{Stamp, Uid};

/// One thing that two parties claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Conflict {
    /// Two experiments have one name; the older answers to it.
    ExperimentName {
        /// The name.
        name: String,
        /// Who holds it.
        holder: Uid,
        /// Who does not.
        loser: Uid,
    },
    /// Two experiments have one numeric id; the younger answers to an id of its own.
    ExperimentId {
        /// The id.
        id: String,
        /// Who holds it.
        holder: Uid,
        /// Who does not.
        loser: Uid,
        /// The id the loser answers to.
        answers_to: String,
    },
    /// Two imported trees have one name.
    TreeName {
        /// The name.
        name: String,
        /// Who holds it.
        holder: Uid,
        /// Who does not.
        loser: Uid,
    },
    /// Two runs have one run id.
    RunId {
        /// The id.
        id: String,
        /// Who holds it.
        holder: Uid,
        /// Who does not.
        loser: Uid,
    },
    /// A param was logged with different values by writers that did not know of each other; the first stands.
    Param {
        /// The run.
        run: Uid,
        /// The param's key.
        key: String,
        /// The value that stands.
        kept: String,
        /// The value that lost.
        lost: String,
        /// When the losing value was written.
        lost_stamp: Stamp,
    },
    /// Two registered models have one name; the older answers to it.
    RegisteredModelName {
        /// The name.
        name: String,
        /// Who holds it.
        holder: Uid,
        /// Who does not.
        loser: Uid,
    },
    /// Two versions of a registered model have one number; the younger answers to a number of its own.
    ModelVersion {
        /// The model's name.
        model: String,
        /// The number.
        version: u64,
        /// Who holds it.
        holder: Uid,
        /// Who does not.
        loser: Uid,
        /// The number the loser answers to.
        answers_to: u64,
    },
    /// A version whose registered model was deleted, or is not there (yet).
    OrphanVersion {
        /// The version.
        version: Uid,
        /// Its model.
        model: Option<Uid>,
    },
    /// Two logged models, or traces, have one id; the older answers to it.
    Id {
        /// "logged model" or "trace".
        what: &'static str,
        /// The id.
        id: String,
        /// Who holds it.
        holder: Uid,
        /// Who does not.
        loser: Uid,
    },
    /// A param of a logged model was logged with different values by writers that did not know of each other.
    ModelParam {
        /// The logged model.
        model: Uid,
        /// The param's key.
        key: String,
        /// The value that stands.
        kept: String,
        /// The value that lost.
        lost: String,
        /// When the losing value was written.
        lost_stamp: Stamp,
    },
    /// A logged model, or trace, whose experiment was purged, or is not there (yet).
    Stray {
        /// "logged model" or "trace".
        what: &'static str,
        /// Which.
        uid: Uid,
        /// Its experiment.
        experiment: Option<Uid>,
    },
    /// A run whose experiment was purged, or is not there (yet).
    Orphan {
        /// The run.
        run: Uid,
        /// Its experiment.
        experiment: Option<Uid>,
    },
    /// An entity is past 4 GiB; so many of its registers are not held.
    TooLarge {
        /// The entity.
        uid: Uid,
        /// How many registers were left out.
        refused: u32,
    },
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExperimentName { name, holder, loser } => {
                write!(f, "experiments {holder} and {loser} are both named '{name}': the first answers to it")
            }
            Self::ExperimentId { id, holder, loser, answers_to } => {
                write!(
                    f,
                    "experiments {holder} and {loser} both have id {id}: the second answers to {answers_to}"
                )
            }
            Self::TreeName { name, holder, loser } => {
                write!(
                    f,
                    "imported trees {holder} and {loser} are both named '{name}': the first answers to it"
                )
            }
            Self::RunId { id, holder, loser } => {
                write!(f, "runs {holder} and {loser} both have run id '{id}': the first answers to it")
            }
            Self::Param { run, key, kept, lost, .. } => {
                write!(f, "run {run}: param '{key}' was logged as '{kept}' and as '{lost}': the first stands")
            }
            Self::RegisteredModelName { name, holder, loser } => {
                write!(
                    f,
                    "registered models {holder} and {loser} are both named '{name}': the first answers to it"
                )
            }
            Self::ModelVersion { model, version, holder, loser, answers_to } => {
                write!(
                    f,
                    "versions {holder} and {loser} of registered model '{model}' are both number {version}: the second \
                     answers to {answers_to}"
                )
            }
            Self::OrphanVersion { version, model: Some(model) } => {
                write!(f, "model version {version} belongs to registered model {model}, which does not exist")
            }
            Self::OrphanVersion { version, model: None } => {
                write!(f, "model version {version} belongs to no registered model")
            }
            Self::Id { what, id, holder, loser } => {
                write!(f, "{what}s {holder} and {loser} both have id '{id}': the first answers to it")
            }
            Self::ModelParam { model, key, kept, lost, .. } => {
                write!(
                    f,
                    "logged model {model}: param '{key}' was logged as '{kept}' and as '{lost}': the first stands"
                )
            }
            Self::Stray { what, uid, experiment: Some(experiment) } => {
                write!(f, "{what} {uid} belongs to experiment {experiment}, which does not exist")
            }
            Self::Stray { what, uid, experiment: None } => write!(f, "{what} {uid} belongs to no experiment"),
            Self::Orphan { run, experiment: Some(experiment) } => {
                write!(f, "run {run} belongs to experiment {experiment}, which does not exist")
            }
            Self::Orphan { run, experiment: None } => write!(f, "run {run} belongs to no experiment"),
            Self::TooLarge { uid, refused } => {
                write!(f, "{uid} holds more than 4 GiB of metadata: {refused} properties are not shown")
            }
        }
    }
}

impl Catalog {
    /// Everything that was lost to an older claim, and every run without an experiment, in a stable order.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let claims = &self.claims;
        let mut all: Vec<Conflict> = Vec::new();
        all.extend(
            claims.names.lost(EntityKind::EXPERIMENT).map(|(name, holder, loser)| Conflict::ExperimentName {
                name: name.to_owned(),
                holder,
                loser,
            }),
        );
        all.extend(claims.ids.lost(EntityKind::EXPERIMENT).map(|(id, holder, loser)| {
            Conflict::ExperimentId { id: id.to_owned(), holder, loser, answers_to: self.experiment_id(loser) }
        }));
        all.extend(claims.names.lost(EntityKind::TREE).map(|(name, holder, loser)| Conflict::TreeName {
            name: name.to_owned(),
            holder,
            loser,
        }));
        all.extend(claims.ids.lost(EntityKind::RUN).map(|(id, holder, loser)| Conflict::RunId {
            id: id.to_owned(),
            holder,
            loser,
        }));
        all.extend(self.registry_conflicts());
        for (kind, what) in [(EntityKind::LOGGED_MODEL, "logged model"), (EntityKind::TRACE, "trace")] {
            let clash =
                |(id, holder, loser): (&str, _, _)| Conflict::Id { what, id: id.to_owned(), holder, loser };
            all.extend(claims.ids.lost(kind).map(clash));
            for entity in self.of_kind(kind) {
                let experiment = entity.reference(Field::EXPERIMENT);
                if experiment.and_then(|uid| self.experiment(uid)).is_none() {
                    all.push(Conflict::Stray { what, uid: entity.uid(), experiment });
                }
                all.extend(entity.conflicts().filter(|l| l.field == Field::PARAM).map(|l| {
                    Conflict::ModelParam {
                        model: entity.uid(),
                        key: l.key.to_owned(),
                        kept: l.kept.lossy_text().unwrap_or_default().into_owned(),
                        lost: l.lost.lossy_text().unwrap_or_default().into_owned(),
                        lost_stamp: l.lost_stamp,
                    }
                }));
            }
        }
        for entity in self.entries().filter(|e| !e.is_purged()) {
            if entity.kind() == EntityKind::RUN {
                let experiment = entity.reference(Field::EXPERIMENT);
                if experiment.and_then(|uid| self.experiment(uid)).is_none() {
                    all.push(Conflict::Orphan { run: entity.uid(), experiment });
                }
                all.extend(entity.conflicts().filter(|l| l.field == Field::PARAM).map(|l| Conflict::Param {
                    run: entity.uid(),
                    key: l.key.to_owned(),
                    kept: l.kept.lossy_text().unwrap_or_default().into_owned(),
                    lost: l.lost.lossy_text().unwrap_or_default().into_owned(),
                    lost_stamp: l.lost_stamp,
                }));
            }
            if entity.refused() > 0 {
                all.push(Conflict::TooLarge { uid: entity.uid(), refused: entity.refused() });
            }
        }
        all
    }
}
