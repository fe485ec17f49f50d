//! What runs used, data sets and models, and what they made.

use std::collections::BTreeMap;

use super::answer::done;
use super::failure::{Code, Failure};
use super::request::{Call, Fields};
use super::routes::{Answered, Route};
use super::runs;
use crate::model::{Dataset, DatasetInput, ModelOutput};

pub(super) const ROUTES: &[Route] = &[
    Route::post("2.0/mlflow/runs/log-inputs", log_inputs),
    Route::post("2.0/mlflow/runs/outputs", log_outputs),
];

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
    let models = fields.objects("models")?;
    let models: Vec<&str> =
        models.into_iter().map(|model| model.text_or_empty("model_id")).collect::<Result<_, _>>()?;
    let run = runs::open(call, fields)?;
    if !inputs.is_empty() || models.is_empty() {
        run.log_inputs(&inputs)?;
    }
    if !models.is_empty() {
        run.log_model_inputs(&models)?;
    }
    done()
}

fn log_outputs(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    fields.run_id()?;
    fields.require("models")?;
    let output = |model: Fields<'_>| {
        let model_id = model.text_or_empty("model_id")?.to_owned();
        Ok(ModelOutput { model_id, step: model.integer("step")?.unwrap_or(0) })
    };
    let outputs: Vec<ModelOutput> =
        fields.objects("models")?.into_iter().map(output).collect::<Result<_, Failure>>()?;
    runs::open(call, fields)?.log_outputs(&outputs)?;
    done()
}
