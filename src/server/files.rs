//! Artifacts: their bytes, up and down.
//!
//! Contract: what an artifact is called is the protocol's to say ([`Protocol::artifact`](crate::mlflow::Protocol)),
//! where it lies the store's. Bytes pass in pieces; a slow client holds no thread. An upload is an artifact once it was
//! answered with 200, and nothing before; answers are downloads for a browser, never pages.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;

use super::file_body::{FileBody, Readable};
use super::{App, api, bodies, media_type};
use crate::mlflow::Answer;
use crate::store::{ArtifactFile, ArtifactUpload};

/// What is written at once, in bytes.
const PIECE_BYTES: usize = 256 * 1024;

impl Readable for ArtifactFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        Self::read_at(self, buffer, offset).map_err(io::Error::other)
    }
}

/// Answers a request for the artifact at this path of the store's artifacts.
pub(super) async fn answer(app: &Arc<App>, parts: &Parts, path: String, body: Body) -> Response {
    let answered = match parts.method {
        Method::GET | Method::HEAD => download(app, parts, path).await,
        // Only the proxy's own paths name where something goes.
        Method::PUT if is_proxy(parts) => upload(app, parts, path, body).await,
        Method::DELETE if is_proxy(parts) => delete(app, path).await,
        _ => Err(Answer::error(405, "BAD_REQUEST", "The method is not allowed for an artifact")),
    };
    answered.unwrap_or_else(api::response)
}

fn is_proxy(parts: &Parts) -> bool {
    parts.uri.path().contains("/mlflow-artifacts/artifacts")
}

async fn download(app: &Arc<App>, parts: &Parts, path: String) -> Result<Response, Answer> {
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    let open = move |app: &App| app.protocol.store().open_artifact_below(&path);
    let file = api::blocking(app, open).await?.map_err(Answer::of_error)?;
    let len = file.len();
    let range = parts.headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let (status, at, end) = match range.and_then(|range| part_of(range, len)) {
        Some((at, end)) => (StatusCode::PARTIAL_CONTENT, at, end),
        None => (StatusCode::OK, 0, len),
    };
    let mut response = Response::new(Body::new(FileBody::new(Arc::new(file), at, end)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type::of_artifact(&name)));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Ok(value) = HeaderValue::from_str(&attachment(&name)) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(value) = HeaderValue::from_str(&format!("bytes {at}-{}/{len}", end.saturating_sub(1)))
    {
        headers.insert(header::CONTENT_RANGE, value);
    }
    Ok(response)
}

/// The one part of a file that is asked for, from and to; none for several, for another unit, or for none that is
/// there: then the whole file is the answer.
fn part_of(range: &str, len: u64) -> Option<(u64, u64)> {
    let (first, last) = range.trim().strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (at, end) = match first.trim() {
        "" => (len.saturating_sub(number(last)?), len),
        first if last.trim().is_empty() => (number(first)?, len),
        first => (number(first)?, number(last)?.saturating_add(1).min(len)),
    };
    (at < end).then_some((at, end))
}

/// A `Content-Disposition` that makes a browser save the file under its name (RFC 6266).
fn attachment(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "!#$&+-.^_`|~".contains(c);
    if !name.is_empty() && name.chars().all(is_plain) {
        return format!("attachment; filename={name}");
    }
    let fallback: String = name.chars().filter(|c| matches!(c, ' '..='~') && !"\"\\%".contains(*c)).collect();
    let fallback = if fallback.trim().is_empty() { "download" } else { &fallback };
    let encoded: String = name
        .bytes()
        .map(|byte| match char::from(byte) {
            c if is_plain(c) => c.to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    format!("attachment; filename=\"{fallback}\"; filename*=UTF-8''{encoded}")
}

async fn upload(app: &Arc<App>, parts: &Parts, path: String, body: Body) -> Result<Response, Answer> {
    let mut pieces = bodies::Pieces::new(app, body);
    match receive(app, path, &mut pieces).await {
        Ok(()) => Ok(api::response(Answer { status: 200, body: b"{}".to_vec() })),
        Err(refused) => {
            pieces.forget(&parts.headers).await;
            Err(refused)
        }
    }
}

async fn receive(app: &Arc<App>, path: String, pieces: &mut bodies::Pieces) -> Result<(), Answer> {
    let begin = move |app: &App| app.protocol.store().upload_artifact_below(&path);
    let mut upload = api::blocking(app, begin).await?.map_err(Answer::of_error)?;
    loop {
        let piece = pieces.next(PIECE_BYTES).await?;
        if piece.is_empty() {
            break;
        }
        let append = move |_: &App| upload.append(&piece).map(|()| upload);
        let appended: Result<ArtifactUpload, _> = api::blocking(app, append).await?;
        upload = appended.map_err(Answer::of_error)?;
    }
    api::blocking(app, move |_| upload.finish()).await?.map_err(Answer::of_error)
}

async fn delete(app: &Arc<App>, path: String) -> Result<Response, Answer> {
    let delete = move |app: &App| app.protocol.store().delete_artifacts_below(&path);
    api::blocking(app, delete).await?.map_err(Answer::of_error)?;
    Ok(api::response(Answer { status: 200, body: b"{}".to_vec() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_downloads_survive_headers() {
        assert_eq!(attachment("model.pkl"), "attachment; filename=model.pkl");
        assert_eq!(
            attachment("a \"b\".txt"),
            "attachment; filename=\"a b.txt\"; filename*=UTF-8''a%20%22b%22.txt"
        );
        assert_eq!(attachment("\u{e9}"), "attachment; filename=\"download\"; filename*=UTF-8''%C3%A9");
    }

    #[test]
    fn parts_of_files_are_inside_them() {
        for (range, part) in [
            ("bytes=0-3", Some((0, 4))),
            ("bytes=8-", Some((8, 10))),
            ("bytes=-3", Some((7, 10))),
            ("bytes=-30", Some((0, 10))),
            ("bytes=5-100", Some((5, 10))),
            ("bytes=10-", None),
            ("bytes=4-2", None),
            ("bytes=0-1,4-5", None),
            ("lines=1-2", None),
            ("bytes=18446744073709551615-18446744073709551615", None),
        ] {
            assert_eq!(part_of(range, 10), part, "{range}");
        }
        assert_eq!(part_of("bytes=0-", 0), None);
    }
}
