//! The body of a response that is a file.
//!
//! Contract: read piece by piece as the client takes it, on threads that may block; two pieces are in memory at most. A
//! file that ends too early or cannot be read breaks the connection, so no half file passes for a whole one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::task::JoinHandle;

/// What is read at once, in bytes.
const PIECE_BYTES: u64 = 256 * 1024;

/// Something that is read at offsets.
pub(super) trait Readable: Send + Sync + 'static {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

pub(super) struct FileBody {
    file: Arc<dyn Readable>,
    at: u64,
    end: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    /// The bytes from `at` to `end`.
    pub(super) fn new(file: Arc<dyn Readable>, at: u64, end: u64) -> Self {
        Self { file, at, end, reading: None }
    }
}

fn piece(file: &dyn Readable, at: u64, len: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; len];
    match file.read_at(&mut buffer, at)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => {
            buffer.truncate(read);
            Ok(Bytes::from(buffer))
        }
    }
}

impl HttpBody for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.reading.is_none() {
            let (at, left) = (self.at, self.end.saturating_sub(self.at));
            if left == 0 {
                return Poll::Ready(None);
            }
            let file = Arc::clone(&self.file);
            let len = usize::try_from(left.min(PIECE_BYTES)).unwrap_or(usize::MAX);
            self.reading = Some(tokio::task::spawn_blocking(move || piece(file.as_ref(), at, len)));
        }
        let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
        let read = ready!(Pin::new(reading).poll(context)).map_err(io::Error::other).flatten();
        self.reading = None;
        match read {
            Ok(bytes) => {
                self.at = self.at.saturating_add(bytes.len() as u64);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Err(error) => {
                self.at = self.end;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.reading.is_none() && self.at >= self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end.saturating_sub(self.at))
    }
}
