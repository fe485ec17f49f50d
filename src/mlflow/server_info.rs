//! What clients ask before anything else: what can be done here.

use serde::Serialize;

use super::Door;
use super::answer::json;
use super::request::Call;
use super::routes::{Answered, Route};

pub(super) const ROUTES: &[Route] = &[Route::get("3.0/mlflow/server-info", get)];

#[derive(Serialize)]
struct Features {
    gateway: bool,
    scheduled_issue_detection: bool,
}

#[derive(Serialize)]
struct Info {
    /// One of MLflow's own stores; clients take null for another one.
    store_type: Option<&'static str>,
    workspaces_enabled: bool,
    trace_archival_enabled: bool,
    multipart_uploads_enabled: bool,
    multipart_downloads_enabled: bool,
    artifact_serving_enabled: bool,
    presigned_upload_run_id_supported: bool,
    presigned_upload_model_id_supported: bool,
    model_artifact_presigned_downloads_supported: bool,
    features_enabled: Features,
    tracking_auth: &'static str,
    artifacts_presigned_only: bool,
}

fn get(call: &Call<'_>) -> Answered {
    json(&Info {
        store_type: None,
        workspaces_enabled: false,
        trace_archival_enabled: false,
        multipart_uploads_enabled: false,
        multipart_downloads_enabled: false,
        artifact_serving_enabled: call.door() == Door::Proxy,
        presigned_upload_run_id_supported: false,
        presigned_upload_model_id_supported: false,
        model_artifact_presigned_downloads_supported: false,
        features_enabled: Features { gateway: false, scheduled_issue_detection: false },
        tracking_auth: "",
        artifacts_presigned_only: false,
    })
}
