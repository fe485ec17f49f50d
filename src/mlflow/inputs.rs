//! Data sets that runs used.

use std::collections::BTreeMap;

use super::answer::done;
use super::failure::{Code, Failure};
use super::request::{Call, Fields};
use super::routes::{Answered, Route};
use super::runs;
use crate::model::{Dataset, DatasetInput};

pub(super) const ROUTES: &[Route] = &[Route::post("2.0/mlflow/runs/log-inputs", log_inputs)];

fn dataset_input(fields: Fields<'_>) -> Result<DatasetInput, Failure> {
    let mut tags = BTreeMap::new();
    for (key, value) in fields.pairs("tags")? {
        tags.insert(key.to_owned(), value.to_owned());
    }
    let Some(of) = fields.object("dataset")? else {
        let message = "Dataset input must have a dataset associated with it.";
        return Err(Failure::new(Code::InvalidParameterValue, message));
    };
    let text = |name| of.text_or_empty(name).map(str::to_owned);
    let optional = |name| of.text(name).map(|text| text.map(str::to_owned));
    Ok(DatasetInput {
        dataset: Dataset {
            name: text("name")?,
            digest: text("digest")?,
            source_type: text("source_type")?,
            source: text("source")?,
            schema: optional("schema")?,
            profile: optional("profile")?,
        },
        tags,
    })
}

fn log_inputs(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    fields.run_id()?;
    let datasets = fields.objects("datasets")?;
    let inputs: Vec<DatasetInput> = datasets.into_iter().map(dataset_input).collect::<Result<_, _>>()?;
    runs::open(call, fields)?.log_inputs(&inputs)?;
    done()
}
