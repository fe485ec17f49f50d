//! What a browser sees: MLflow's own pages if they are installed, else one that says what runs here.
//!
//! Contract: files come from one folder, and nothing outside of it is served. The pages are MLflow's, under its
//! licence, and none of them is part of this program.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::Response;

use super::file_body::{FileBody, Readable};
use super::{App, api, media_type};
use crate::mlflow::Answer;

/// Where MLflow's package has its pages.
const BUILD: &str = "mlflow/server/js/build";
const INDEX: &str = "index.html";
/// Names of these files change with what is in them.
const FOR_EVER: &str = "public, max-age=2419200";

/// What `/` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ui {
    /// A page that says what runs here.
    #[default]
    Page,
    /// The pages of an MLflow whose `mlflow/server/js/build` is this.
    Files(PathBuf),
}

impl Ui {
    /// The pages of an installed MLflow: of the active environment (`VIRTUAL_ENV`, `CONDA_PREFIX`), of the Python that
    /// `mlflow`, `python3` or `python` on the path belongs to, or of the user. A page of our own if there is none.
    pub fn find() -> Self {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        let mut prefixes: Vec<PathBuf> =
            ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable).collect();
        let path = std::env::var_os("PATH").unwrap_or_default();
        for folder in std::env::split_paths(&path) {
            let has = ["mlflow", "python3", "python"].iter().any(|name| folder.join(name).is_file());
            prefixes.extend(folder.parent().filter(|_| has).map(Path::to_owned));
        }
        prefixes.extend(variable("HOME").map(|home| home.join(".local")));
        prefixes.iter().find_map(|prefix| below(prefix)).map_or(Self::Page, Self::Files)
    }

    /// The pages in a folder: that of the pages itself, or one with MLflow's package in it.
    pub fn in_folder(folder: &Path) -> Option<Self> {
        let build = folder.join(BUILD);
        [folder.to_owned(), build].into_iter().find(|folder| folder.join(INDEX).is_file()).map(Self::Files)
    }
}

/// The pages of an MLflow installed under a prefix.
fn below(prefix: &Path) -> Option<PathBuf> {
    let mut pythons: Vec<PathBuf> = std::fs::read_dir(prefix.join("lib"))
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3")))
        .collect();
    pythons.sort();
    let packages =
        |python: &PathBuf| ["site-packages", "dist-packages"].map(|name| python.join(name).join(BUILD));
    pythons.iter().flat_map(packages).find(|build| build.join(INDEX).is_file())
}

struct Opened(File);

impl Readable for Opened {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
}

/// Opens a file of the folder; links may not lead out of it.
fn open(folder: &Path, path: &str) -> io::Result<(File, u64)> {
    let asked = Path::new(path);
    if path.contains('\0') || asked.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let (root, found) = (folder.canonicalize()?, folder.join(asked).canonicalize()?);
    if !found.starts_with(&root) || !found.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let file = File::open(found)?;
    let len = file.metadata()?.len();
    Ok((file, len))
}

async fn serve(app: &Arc<App>, path: String, cached: bool) -> Response {
    let Ui::Files(folder) = app.options.ui.clone() else { return missing() };
    let name = path.clone();
    match api::blocking(app, move |_| open(&folder, &path)).await {
        Ok(Ok((file, len))) => {
            let mut response = Response::new(Body::new(FileBody::new(Arc::new(Opened(file)), 0, len)));
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type::of_page(&name)));
            let cache = if cached { FOR_EVER } else { "no-cache" };
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
            response
        }
        Ok(Err(_)) => missing(),
        Err(failed) => api::response(failed),
    }
}

fn missing() -> Response {
    api::response(Answer::error(404, "ENDPOINT_NOT_FOUND", "There is no such file"))
}

/// `/`.
pub(super) async fn index(State(app): State<Arc<App>>) -> Response {
    if matches!(app.options.ui, Ui::Files(_)) {
        return serve(&app, INDEX.to_owned(), false).await;
    }
    let mut response = Response::new(Body::from(PAGE.replace("VERSION", env!("CARGO_PKG_VERSION"))));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

/// `/static-files/...`.
pub(super) async fn file(State(app): State<Arc<App>>, uri: Uri) -> Response {
    // Names of these files need no decoding; one that does is none of them.
    let path = uri.path().trim_start_matches("/static-files/").to_owned();
    serve(&app, path, true).await
}

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>mlrs-db server</title>
<style>body { font: 16px/1.5 sans-serif; max-width: 42em; margin: 3em auto; padding: 0 1em }
pre { background: #eee; padding: .7em; overflow-x: auto }</style></head>
<body>
<h1>mlrs-db server VERSION</h1>
<p>This is a tracking server that speaks MLflow's REST protocol. In Python:</p>
<pre>import mlflow
mlflow.set_tracking_uri("<span id="here">http://127.0.0.1:5000</span>")</pre>
<p>There are no pages here, because no MLflow was found on this machine. With one installed
(<code>pip install mlflow</code>; not <code>mlflow-skinny</code>, which has none), its pages are served at this
address: start the server again, or name the folder with <code>--ui DIR</code>.</p>
<p><a href="health">health</a>, <a href="version">version of the protocol</a>, <a href="metrics">metrics</a></p>
<script>document.getElementById("here").textContent = location.origin</script>
</body>
</html>
"#;
