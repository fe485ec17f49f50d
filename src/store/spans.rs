//! Spans of traces: logged as blobs, named by one event.
//!
//! Contract: a span's blob is in the log before the event that names it, so a process that dies leaves all spans of a
//! call or none. Of a span the catalog holds a reference; its content is read when it is asked for, one at a time.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use crate::catalog::{Catalog, SpanRef, changes, spans_of, trace_uid};
use crate::error::{Error, Result};
use crate::id::Uid;
use crate::limits::{SPAN_BYTES_MAX, SPANS_MAX};
use crate::model::{Span, TraceInfo};
use crate::store::state::Want;
use crate::store::{Inner, Store};

impl Inner {
    /// The uid of a trace that is there or is to be made.
    pub(super) fn uid_for_trace(&self, experiment: Uid, id: &str) -> Result<Uid> {
        match self.trace_uid(id) {
            Err(Error::NotFound { .. }) => Ok(trace_uid(id)
                .unwrap_or_else(|| Uid::derived("trace", &[experiment.as_bytes(), id.as_bytes()]))),
            known => known,
        }
    }

    /// What the catalog knows of the spans of a trace.
    fn span_refs(&self, uid: Uid) -> Result<Vec<SpanRef>> {
        let state = self.current(Want::Entity(uid))?;
        Ok(state.catalog.trace(uid).map(|trace| spans_of(trace)).unwrap_or_default())
    }

    fn span_content(&self, one: &SpanRef) -> Result<String> {
        let found = match self.reader.view().blob_reader(one.blob)? {
            Some(found) => Some(found),
            None => self.reader.refresh()?.blob_reader(one.blob)?,
        };
        let missing = || Error::not_found("blob", format!("{} of span {}", one.blob, one.span.id));
        let limit = one.length.min(SPAN_BYTES_MAX as u64);
        let mut bytes = Vec::new();
        let read = found.ok_or_else(missing)?.take(limit).read_to_end(&mut bytes);
        read.map_err(|source| Error::io("read a span from", &self.root, source))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Store {
    /// Logs spans of a trace, all or none of them. A span that has the id of one before replaces it. A trace that is
    /// not there is made: [`Store::start_trace`] adds to it what else is known.
    ///
    /// # Errors
    /// [`Error::NotFound`] without the experiment, [`Error::InvalidState`] if that is deleted,
    /// [`Error::InvalidArgument`] for an id that no trace can have, a trace of another experiment, a span without an id
    /// or one that is too long, or too many of them.
    pub fn log_spans(&self, experiment_id: &str, trace_id: &str, spans: &[Span]) -> Result<Arc<TraceInfo>> {
        let inner = self.inner();
        if spans.len() > SPANS_MAX {
            return Err(Error::invalid(format!("{} spans in one call; at most {SPANS_MAX}", spans.len())));
        }
        if let Some(long) = spans.iter().find(|span| span.content.len() > SPAN_BYTES_MAX) {
            let bytes = long.content.len();
            return Err(Error::invalid(format!(
                "span {} has {bytes} bytes; at most {SPAN_BYTES_MAX}",
                long.id
            )));
        }
        let experiment = inner.experiment_uid(experiment_id)?;
        let uid = inner.uid_for_trace(experiment, trace_id)?;
        let check = |catalog: &Catalog, refs: &[SpanRef]| {
            changes::log_spans(catalog, experiment, uid, trace_id, refs)
        };
        let reference = |span: &Span, blob, length| SpanRef {
            span: Span {
                id: span.id.clone(),
                parent_id: span.parent_id.clone(),
                name: span.name.clone(),
                span_type: span.span_type.clone(),
                status: span.status.clone(),
                start_ns: span.start_ns,
                end_ns: span.end_ns,
                content: String::new(),
            },
            blob,
            length,
        };
        let wants = [Want::Entity(experiment), Want::Entity(uid)];
        // What is refused leaves no blobs.
        let unwritten: Vec<_> = spans.iter().map(|span| reference(span, Default::default(), 0)).collect();
        let mut state = inner.current(Want::Entity(uid))?;
        state.ensure(Want::Entity(experiment))?;
        check(&state.catalog, &unwritten)?;
        drop(state);

        let known: HashMap<String, SpanRef> =
            inner.span_refs(uid)?.into_iter().map(|one| (one.span.id.clone(), one)).collect();
        let writer = inner.writer()?;
        let mut refs = Vec::with_capacity(spans.len());
        for span in spans {
            let mut content = span.content.as_bytes();
            let length = content.len() as u64;
            // A client that tries again sends what is there.
            let same = known.get(&span.id).filter(|known| known.length == length);
            let same = same.filter(|known| known.blob == crate::log::blob_address(content));
            let blob = match same {
                Some(known) => known.blob,
                None => writer.put_blob(&mut content)?.0,
            };
            refs.push(reference(span, blob, length));
        }
        inner.change(&wants, false, |catalog| check(catalog, &refs))?;
        self.trace(uid)
    }

    /// The spans of a trace that are in the log, in the order in which they began. Those that a client left in a file
    /// `traces.json` are not among them.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for a blob that did not arrive yet where files are copied; whatever reading says.
    pub fn spans(&self, trace_id: &str) -> Result<Vec<Span>> {
        let mut spans = Vec::new();
        self.visit_spans(trace_id, &mut |span| {
            spans.push(span);
            Ok(())
        })?;
        Ok(spans)
    }

    /// The same, one at a time.
    ///
    /// # Errors
    /// See [`Store::spans`]; and what `visit` says.
    pub fn visit_spans(&self, trace_id: &str, visit: &mut dyn FnMut(Span) -> Result<()>) -> Result<()> {
        let inner = self.inner();
        for one in inner.span_refs(inner.trace_uid(trace_id)?)? {
            let content = inner.span_content(&one)?;
            visit(Span { content, ..one.span })?;
        }
        Ok(())
    }
}
