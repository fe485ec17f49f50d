//! MLflow's REST protocol as one function: method, path with query and JSON body in, status and JSON out.
//!
//! Contract: no socket, no thread, no global state; [`Protocol::answer`] may be called from many threads at once. It
//! never panics, whatever the request says, and its memory is bounded by the size of the body and of the answer.
//! Requests, answers, limits, messages and status codes are those of MLflow 3.18, as far as no data is lost;
//! `docs/mlflow.md` lists every difference, and `tests/mlflow_server_peer.rs` compares with MLflow's own server. What
//! MLflow 3 dropped and its 1.x clients need is served as well. Endpoints that are not implemented answer 501.
//!
//! The way of a request: `routes` finds the handler, `request` reads query and body, the handler (one file for each
//! kind of entity) asks the store, `answer` spells the result, `failure` spells what went wrong. [`Door`] says what the
//! one who carries the protocol (a server, a process of its own) adds to it.

mod answer;
mod artifacts;
mod assessments;
mod batch_body;
mod door;
mod experiments;
mod failure;
mod history;
mod inputs;
mod log_batch;
mod logged_models;
mod model_source;
mod open_runs;
mod registry;
mod request;
mod routes;
mod runs;
mod search;
mod server_info;
mod traces;

use crate::error::Result;
use crate::store::Store;

pub use door::Door;

use failure::Failure;
use open_runs::OpenRuns;
use request::Call;
use routes::{Found, Routes};

/// What a request is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// JSON, in UTF-8.
    pub body: Vec<u8>,
}

/// A store that speaks MLflow's protocol.
///
/// ```
/// # fn main() -> mlrs_db::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// use mlrs_db::Store;
/// use mlrs_db::mlflow::{Door, Protocol};
///
/// let store = Store::open(directory.path().join("my-store"))?;
/// let protocol = Protocol::new(store, Door::Proxy)?;
/// let made = protocol.answer("POST", "/api/2.0/mlflow/experiments/create", br#"{"name": "mnist"}"#);
/// assert_eq!(made.status, 200);
///
/// let found = protocol.answer("GET", "/api/2.0/mlflow/experiments/get-by-name?experiment_name=mnist", b"");
/// assert!(String::from_utf8(found.body).unwrap().contains(r#""lifecycle_stage":"active""#));
///
/// let missing = protocol.answer("GET", "/api/2.0/mlflow/runs/get?run_id=none", b"");
/// assert_eq!(missing.status, 404);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Protocol {
    store: Store,
    door: Door,
    routes: Routes,
    open_runs: OpenRuns,
}

impl Protocol {
    /// The protocol of a store. A store without any experiment gets MLflow's default one, with id 0, unless it is open
    /// for reading only.
    ///
    /// # Errors
    /// Whatever reading and writing the store says.
    pub fn new(store: Store, door: Door) -> Result<Self> {
        experiments::make_default_of_empty_store(&store)?;
        Ok(Self { store, door, routes: Routes::new(), open_runs: OpenRuns::default() })
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Runs that are held open for logging, at present.
    pub fn open_runs(&self) -> usize {
        self.open_runs.len()
    }

    /// Answers one request. `path` is what stands in the request line: percent-encoded, with the query; it starts with
    /// `/api/` or `/ajax-api/`. The body of a GET may hold what its query would.
    pub fn answer(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let answered = match self.routes.find(method, path) {
            Found::Handler(handler, captured) => {
                handler(&Call { protocol: self, captured, is_get: method == "GET", query, body })
            }
            Found::OtherMethods => return Failure::method_not_allowed(method, path).answer(),
            Found::Nothing => Err(Failure::no_endpoint(path)),
        };
        match answered {
            Ok(body) => Answer { status: 200, body },
            Err(failure) => failure.answer(),
        }
    }
}
