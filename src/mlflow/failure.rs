//! What goes wrong, in MLflow's shape: a code, a message, and the status that goes with the code.
//!
//! Contract: every answer that is not 200 is `{"error_code", "message"}`, and for the codes that MLflow classifies also
//! `sqlstate` and `error_class`. Errors of the store get MLflow's words where clients look at them.

use serde::Serialize;

use super::Answer;
use crate::error::Error;

/// MLflow's error codes, as far as they are answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    BadRequest,
    DataLoss,
    EndpointNotFound,
    InternalError,
    InvalidParameterValue,
    NotImplemented,
    PermissionDenied,
    ResourceAlreadyExists,
    ResourceDoesNotExist,
    TemporarilyUnavailable,
}

/// Name, HTTP status, and what MLflow 3.18 adds (`sqlstate`, `error_class`).
type Spelling = (&'static str, u16, Option<(&'static str, &'static str)>);

impl Code {
    const fn spelling(self) -> Spelling {
        const INVALID: Option<(&str, &str)> = Some(("KAM00", "INVALID_PARAMETER_VALUE"));
        const MISSING: Option<(&str, &str)> = Some(("KAM00", "RESOURCE_NOT_FOUND"));
        const INTERNAL: Option<(&str, &str)> = Some(("XXM00", "CLIENT_INTERNAL_ERROR"));
        match self {
            Self::BadRequest => ("BAD_REQUEST", 400, INVALID),
            Self::DataLoss => ("DATA_LOSS", 500, None),
            Self::EndpointNotFound => ("ENDPOINT_NOT_FOUND", 404, MISSING),
            Self::InternalError => ("INTERNAL_ERROR", 500, INTERNAL),
            Self::InvalidParameterValue => ("INVALID_PARAMETER_VALUE", 400, INVALID),
            Self::NotImplemented => ("NOT_IMPLEMENTED", 501, None),
            Self::PermissionDenied => ("PERMISSION_DENIED", 403, Some(("KAM00", "PERMISSION_DENIED"))),
            Self::ResourceAlreadyExists => {
                ("RESOURCE_ALREADY_EXISTS", 400, Some(("KAM00", "RESOURCE_ALREADY_EXISTS")))
            }
            Self::ResourceDoesNotExist => ("RESOURCE_DOES_NOT_EXIST", 404, MISSING),
            Self::TemporarilyUnavailable => ("TEMPORARILY_UNAVAILABLE", 503, INTERNAL),
        }
    }
}

/// Why a request is not answered with what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: Code,
    pub(super) message: String,
    /// Where it differs from the code's.
    status: Option<u16>,
}

#[derive(Serialize)]
struct Body<'a> {
    error_code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sqlstate: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_class: Option<&'static str>,
}

impl Answer {
    /// An error in MLflow's shape, for what whoever carries the protocol has to refuse by itself.
    pub fn error(status: u16, error_code: &'static str, message: &str) -> Self {
        let body = Body { error_code, message, sqlstate: None, error_class: None };
        Self { status, body: serde_json::to_vec(&body).unwrap_or_else(|_| b"{}".to_vec()) }
    }

    /// What a failure of the store is answered with.
    pub fn of_error(error: Error) -> Self {
        Failure::from(error).answer()
    }
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), status: None }
    }

    /// The same, in other words.
    pub(super) fn saying(self, message: String) -> Self {
        Self { message, ..self }
    }

    /// A broken rule or limit.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidParameterValue, message)
    }

    /// Something named is not there.
    pub(super) fn missing(message: impl Into<String>) -> Self {
        Self::new(Code::ResourceDoesNotExist, message)
    }

    /// A param of the request that is missing.
    pub(super) fn missing_param(name: &str) -> Self {
        Self::invalid(format!(
            "Missing value for required parameter '{name}'. See the API docs for more information about request \
             parameters."
        ))
    }

    /// No such path.
    pub(super) fn no_endpoint(path: &str) -> Self {
        Self::new(Code::EndpointNotFound, format!("There is no endpoint {}", clip(path)))
    }

    /// A path of another method.
    pub(super) fn method_not_allowed(method: &str, path: &str) -> Self {
        let message = format!("The method {} is not allowed for {}", clip(method), clip(path));
        Self { status: Some(405), ..Self::new(Code::BadRequest, message) }
    }

    /// An endpoint of MLflow that is not served.
    pub(super) fn not_implemented(what: &str) -> Self {
        Self::new(Code::NotImplemented, format!("mlrs-db does not implement {what}"))
    }

    /// The answer that says so.
    pub(super) fn answer(&self) -> Answer {
        let (error_code, status, class) = self.code.spelling();
        let (sqlstate, error_class) = class.unzip();
        let body = Body { error_code, message: &self.message, sqlstate, error_class };
        // Text and names: nothing in it can fail to be written.
        Answer {
            status: self.status.unwrap_or(status),
            body: serde_json::to_vec(&body).unwrap_or_else(|_| b"{}".to_vec()),
        }
    }
}

/// The start of a text, for messages that name what they refuse.
pub(super) fn clip(text: &str) -> &str {
    crate::catalog::rules::truncated(text, 200)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::NotFound { .. } => Code::ResourceDoesNotExist,
            Error::AlreadyExists { .. } => Code::ResourceAlreadyExists,
            Error::InvalidArgument(_) | Error::InvalidState(_) => Code::InvalidParameterValue,
            // Clients try these again, which is what helps.
            Error::Busy { .. } | Error::DiskFull { .. } => Code::TemporarilyUnavailable,
            Error::ReadOnly { .. } => Code::PermissionDenied,
            Error::Corrupt { .. } | Error::TornTail { .. } | Error::Gap { .. } => Code::DataLoss,
            _ => Code::InternalError,
        };
        let message = match &error {
            Error::NotFound { what: "run", name } => format!("Run with id={name} not found"),
            Error::NotFound { what: "experiment" | "active experiment" | "deleted experiment", name } => {
                format!("No Experiment with id={name} exists")
            }
            Error::NotFound { what: "logged model", name } => {
                format!("Logged model with ID '{name}' not found.")
            }
            Error::NotFound { what: "trace", name } => format!("Trace with ID '{name}' not found."),
            Error::NotFound { what: "assessment", name } => match name.split_once(" of trace ") {
                Some((id, trace)) => format!("Assessment with ID '{id}' not found for trace '{trace}'"),
                None => format!("Assessment with ID '{name}' not found"),
            },
            Error::NotFound { what: "registered model", name } => {
                format!("Registered Model with name={name} not found")
            }
            Error::NotFound { what: "latest version of registered model", name } => {
                format!("Latest version not found for model {name}.")
            }
            Error::NotFound { what: "model version", name } => match name.rsplit_once('/') {
                Some((model, number)) => format!("Model Version (name={model}, version={number}) not found"),
                None => format!("Model Version {name} not found"),
            },
            Error::AlreadyExists { what: "registered model", name, .. } => {
                format!("Registered Model (name={name}) already exists.")
            }
            other => other.to_string(),
        };
        Self::new(code, message)
    }
}
