//! Bodies of requests, read with limits.
//!
//! Contract: no more of a body is in memory than its limit, and all large ones together stay under a limit of their
//! own. A body that is refused is read for a while and forgotten, so that the client comes to read why.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, header};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};

use super::{App, SMALL_BODY_BYTES};
use crate::mlflow::Answer;

/// How long a refused body is read.
const FORGET_FOR: Duration = Duration::from_secs(10);

/// A body in memory, and its part of what all may take.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) bytes: Vec<u8>,
    _part: Option<OwnedSemaphorePermit>,
}

fn too_long(limit: u64) -> Answer {
    let message = format!("The body of the request is longer than the {limit} bytes that are accepted");
    Answer::error(413, "INVALID_PARAMETER_VALUE", &message)
}

fn too_slow() -> Answer {
    Answer::error(408, "BAD_REQUEST", "The body of the request did not arrive in time")
}

fn broken() -> Answer {
    Answer::error(400, "BAD_REQUEST", "The body of the request is not whole")
}

/// The next piece of a body; none at its end.
async fn next(body: &mut Body) -> Option<Result<Bytes, Answer>> {
    loop {
        let frame =
            std::future::poll_fn(|context| std::pin::Pin::new(&mut *body).poll_frame(context)).await?;
        match frame {
            // Trailers say nothing here.
            Ok(frame) => match frame.into_data() {
                Ok(data) => return Some(Ok(data)),
                Err(_) => continue,
            },
            Err(_) => return Some(Err(broken())),
        }
    }
}

/// Pieces of an artifact, as they come.
#[derive(Debug)]
pub(super) struct Pieces {
    body: Body,
    idle: Duration,
    left: u64,
    limit: u64,
}

impl Pieces {
    pub(super) fn new(app: &App, body: Body) -> Self {
        let limit = app.options.artifact_bytes_max.unwrap_or(u64::MAX);
        Self { body, idle: app.options.idle_timeout, left: limit, limit }
    }

    /// What has arrived, up to about `bytes` or the end of the body; empty at its end.
    pub(super) async fn next(&mut self, bytes: usize) -> Result<Vec<u8>, Answer> {
        let mut all = Vec::new();
        while all.len() < bytes {
            let piece = timeout(self.idle, next(&mut self.body)).await.map_err(|_| too_slow())?;
            let Some(piece) = piece.transpose()? else { break };
            let left = self.left.checked_sub(piece.len() as u64);
            self.left = left.ok_or_else(|| too_long(self.limit))?;
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    pub(super) async fn forget(self, headers: &HeaderMap) {
        forget(self.body, headers).await;
    }
}

/// Reads a JSON body.
pub(super) async fn whole(app: &App, headers: &HeaderMap, mut body: Body) -> Result<Whole, Answer> {
    let limit = app.options.json_bytes_max;
    let hint = body.size_hint();
    let expected = hint.upper().unwrap_or(limit as u64);
    if hint.lower() > limit as u64 || hint.upper().is_some_and(|upper| upper > limit as u64) {
        forget(body, headers).await;
        return Err(too_long(limit as u64));
    }
    let deadline = Instant::now() + app.options.body_timeout;
    let part = match usize::try_from(expected) {
        Ok(expected) if expected <= SMALL_BODY_BYTES => None,
        expected => {
            let bytes = expected.map_or(limit, |expected| expected.min(limit));
            let asked =
                Arc::clone(&app.body_bytes).acquire_many_owned(u32::try_from(bytes).unwrap_or(u32::MAX));
            let busy = || {
                Answer::error(503, "TEMPORARILY_UNAVAILABLE", "Too many large requests at a time; try again")
            };
            Some(timeout_at(deadline, asked).await.map_err(|_| busy())?.map_err(|_| busy())?)
        }
    };
    let mut bytes = Vec::new();
    loop {
        let piece = timeout_at(deadline, next(&mut body)).await.map_err(|_| too_slow())?;
        let Some(piece) = piece.transpose()? else { break };
        if bytes.len() + piece.len() > limit {
            drop(bytes);
            forget(body, headers).await;
            return Err(too_long(limit as u64));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Whole { bytes, _part: part })
}

/// Reads what is left of a body and drops it, so that a client that is still sending does not find the connection cut
/// instead of the answer. One that asked before sending (`Expect`) is not made to send.
pub(super) async fn forget(mut body: Body, headers: &HeaderMap) {
    if body.is_end_stream() || headers.contains_key(header::EXPECT) {
        return;
    }
    let _ = timeout(FORGET_FOR, async { while let Some(Ok(_)) = next(&mut body).await {} }).await;
}
