//! Searches of runs, and the data sets of experiments.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::answer::{RunAnswer, json};
use super::experiments::{refusal, view_type};
use super::failure::Failure;
use super::request::{Call, Fields, wrong_type};
use super::routes::{Answered, Route};
use crate::error::Error;
use crate::limits::SEARCH_RESULTS_MAX;
use crate::model::RunData;
use crate::query::ViewType;
use crate::query::grammar::{Dialect, RunFields, RunText, RunTime};
use crate::query::page::check_max_results;
use crate::store::RunSearch;

pub(super) const ROUTES: &[Route] = &[
    Route::post("2.0/mlflow/runs/search", runs),
    Route::post("2.0/mlflow/experiments/search-datasets", datasets),
];

const RUNS_DEFAULT: i64 = 1_000;
/// The context of an input, as its tag.
const CONTEXT_TAG: &str = "mlflow.data.context";

/// A run with its artifact location as the door spells it, which filters and orders then see.
struct Located {
    run: Arc<RunData>,
    artifact_uri: String,
}

impl RunFields for Located {
    fn text(&self, attribute: RunText) -> Option<Cow<'_, str>> {
        match attribute {
            RunText::ArtifactUri => Some(Cow::Borrowed(&self.artifact_uri)),
            other => self.run.text(other),
        }
    }

    fn time(&self, attribute: RunTime) -> Option<i64> {
        self.run.time(attribute)
    }

    fn metric(&self, key: &str) -> Option<f64> {
        RunFields::metric(&self.run, key)
    }

    fn param(&self, key: &str) -> Option<&str> {
        self.run.param(key)
    }

    fn tag(&self, key: &str) -> Option<&str> {
        self.run.tag(key)
    }

    fn any_dataset(&self, test: &mut dyn FnMut(&str, &str, Option<&str>) -> bool) -> bool {
        self.run.any_dataset(test)
    }
}

/// The experiments that a search names. Ids that name none are passed over, as in MLflow; others are refused.
pub(super) fn experiments_named(call: &Call<'_>, ids: &[&str]) -> Result<Vec<String>, Failure> {
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        match call.store().get_experiment(id) {
            Ok(experiment) => found.push(experiment.uid.to_string()),
            Err(error @ Error::NotFound { .. }) => match refusal(error, id) {
                failure if failure.message.starts_with("Invalid") => return Err(failure),
                _ => {}
            },
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// How many results are wanted; past the limit MLflow's schema refuses, in its own words.
pub(super) fn max_results(fields: Fields<'_>, default: i64, most: usize) -> Result<usize, Failure> {
    let wanted = fields.integer("max_results")?.unwrap_or(default);
    match usize::try_from(wanted) {
        Ok(wanted @ 1..) if wanted <= most => Ok(wanted),
        Ok(1..) => match fields.value("max_results")? {
            Some(value) => Err(wrong_type("max_results", value)),
            None => Ok(most),
        },
        _ => Ok(check_max_results(wanted)?),
    }
}

/// Runs, written one after the other.
struct Found {
    runs: Vec<Located>,
    next_page_token: Option<String>,
}

impl Serialize for Found {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct List<'a>(&'a [Located]);
        impl Serialize for List<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut list = serializer.serialize_seq(Some(self.0.len()))?;
                for Located { run, artifact_uri } in self.0 {
                    list.serialize_element(&RunAnswer { run, artifact_uri, is_new: false })?;
                }
                list.end()
            }
        }
        let mut map = serializer.serialize_map(None)?;
        if !self.runs.is_empty() {
            map.serialize_entry("runs", &List(&self.runs))?;
        }
        if let Some(token) = &self.next_page_token {
            map.serialize_entry("next_page_token", token)?;
        }
        map.end()
    }
}

fn runs(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.sound_fields()?;
    let ids = fields.texts("experiment_ids")?;
    let filter = fields.text_or_empty("filter")?.to_owned();
    let max_results = max_results(fields, RUNS_DEFAULT, SEARCH_RESULTS_MAX)?;
    let order_by = fields.texts("order_by")?.into_iter().map(str::to_owned).collect();
    let view = view_type(fields, "run_view_type")?;
    let page_token = fields.text("page_token")?.map(str::to_owned);
    let experiment_ids = experiments_named(call, &ids)?;
    // In MLflow no experiment means none; in the store it means all. The filter is checked all the same.
    let is_nowhere = experiment_ids.is_empty();
    let search = RunSearch {
        experiment_ids,
        filter,
        dialect: Dialect::MlFlow,
        view,
        order_by,
        max_results,
        page_token,
    };
    if is_nowhere {
        search.check_runs()?;
        return json(&Found { runs: Vec::new(), next_page_token: None });
    }
    let page = {
        let mut locations = call.door().locations(call.store());
        call.store().search_runs_as(&search, |run| {
            let artifact_uri = locations.of(&run).map(Cow::into_owned).unwrap_or_default();
            Located { run, artifact_uri }
        })?
    };
    json(&Found { runs: page.items, next_page_token: page.next_page_token })
}

#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct DatasetSummary {
    experiment_id: String,
    name: String,
    digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<String>,
}

#[derive(Serialize)]
struct Summaries {
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    dataset_summaries: BTreeSet<DatasetSummary>,
}

/// Which data sets the runs of some experiments used, for the browser.
fn datasets(call: &Call<'_>) -> Answered {
    const EXPERIMENTS_MAX: usize = 20;
    const SUMMARIES_MAX: usize = 1_000;
    let params = call.params();
    let ids = params.fields().texts("experiment_ids")?;
    if ids.is_empty() {
        return Err(Failure::invalid("SearchDatasets request must specify at least one experiment_id."));
    }
    if ids.len() > EXPERIMENTS_MAX {
        let got = ids.len();
        return Err(Failure::invalid(format!(
            "SearchDatasets request cannot specify more than {EXPERIMENTS_MAX} experiment_ids. Received {got} \
             experiment_ids."
        )));
    }
    let experiment_ids = experiments_named(call, &ids)?;
    let mut dataset_summaries = BTreeSet::new();
    let mut search = RunSearch {
        experiment_ids,
        view: ViewType::All,
        max_results: SEARCH_RESULTS_MAX,
        ..RunSearch::default()
    };
    while !search.experiment_ids.is_empty() {
        let page = call.store().search_runs(&search)?;
        for run in &page.items {
            for input in &run.inputs {
                dataset_summaries.insert(DatasetSummary {
                    experiment_id: run.experiment_id.clone(),
                    name: input.dataset.name.clone(),
                    digest: input.dataset.digest.clone(),
                    context: input.tags.get(CONTEXT_TAG).cloned(),
                });
                if dataset_summaries.len() >= SUMMARIES_MAX {
                    return json(&Summaries { dataset_summaries });
                }
            }
        }
        search.page_token = page.next_page_token;
        if search.page_token.is_none() {
            break;
        }
    }
    json(&Summaries { dataset_summaries })
}
