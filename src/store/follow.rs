//! Following a run: its points as they are logged, by whomever.
//!
//! Contract: a builder over `query::follow`. Reads, and nothing else: no lock, no file, no thread; a followed writer
//! notices nothing. Each point comes once and in the order of its origin, also when a saved [`FollowCursor`] goes on in
//! another process. Nothing is read before the first question.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::codec::bytes::{Reader, put_slice, put_varint};
use crate::error::{Error, Result};
use crate::id::{Origin, Uid};
use crate::limits::KEY_BYTES_MAX;
use crate::query::follow::{FollowedPoint, Follower, Positions, Start};
use crate::store::Store;

/// Points that one call hands out at most.
const BATCH_POINTS: usize = 16 * 1024;
/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(50);
/// How long an ended run whose writer lives must be quiet until nothing more is expected.
const QUIET: Duration = Duration::from_secs(5);
/// How often it is asked whether a run is over.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
const CURSOR_VERSION: u8 = 1;

/// New points of a run, as they are logged.
///
/// ```
/// # fn main() -> mlrs_db::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let store = mlrs_db::Store::open(directory.path().join("my-store"))?;
/// # let run = store.experiment("mnist")?.start_run(mlrs_db::RunOptions::new())?;
/// # let id = run.id().to_owned();
/// use std::time::Duration;
///
/// let mut follow = store.follow(&id)?.keys(["loss"]).from_now();
/// assert!(follow.next_batch(Duration::ZERO)?.is_empty());
/// run.log_metric("loss", 7, 0.5)?; // usually in another process
/// let points = follow.next_batch(Duration::from_secs(10))?;
/// assert_eq!((&*points[0].key, points[0].ordinal, points[0].point.step), ("loss", 0, 7));
/// let saved = follow.cursor()?.to_string(); // goes on here later, maybe elsewhere
/// # let _ = store.follow(&id)?.from_cursor(&saved.parse()?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Follow {
    store: Store,
    follower: Follower,
    interval: Duration,
    /// Read for the iterator and not given out yet.
    ready: VecDeque<FollowedPoint>,
    last_look: Option<Instant>,
    last_point: Instant,
    asked: Option<Instant>,
}

impl Store {
    /// Follows a run from its first point on. What it is to follow and from where is said before the first question.
    ///
    /// What an idle look costs: listing `live/` and `log/`, a `stat` or two per segment that is not sealed, and per
    /// live file a `stat` and 32 bytes read per 64 KiB of it (16 such reads in most). Decoded is what is new, once.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such run (yet).
    pub fn follow(&self, run_id: &str) -> Result<Follow> {
        let run = self.inner().run_uid(run_id)?;
        let follower = Follower::new(run, run_id.to_owned(), self.inner().options.skip_damage);
        Ok(Follow {
            store: self.clone(),
            follower,
            interval: INTERVAL,
            ready: VecDeque::new(),
            last_look: None,
            last_point: Instant::now(),
            asked: None,
        })
    }
}

impl Follow {
    /// Only these metrics; they need not be there yet.
    pub fn keys<K: Into<String>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.follower.set_keys(keys.into_iter().map(Into::into).collect::<BTreeSet<_>>());
        self
    }

    /// Everything from the first point on; this is the default.
    pub fn from_start(mut self) -> Self {
        self.follower.set_start(Start::First, Positions::new());
        self
    }

    /// Only what is logged after the first look, which the first question takes.
    pub fn from_now(self) -> Self {
        self.from_last(0)
    }

    /// The last `points` points of each key and origin as of the first look, and what comes after.
    pub fn from_last(mut self, points: u64) -> Self {
        self.follower.set_start(Start::BeforeEnd(points), Positions::new());
        self
    }

    /// Goes on where a cursor stands. Keys and origins that it does not know begin at their first point: they appeared
    /// later, or were not followed.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a cursor of another run.
    pub fn from_cursor(mut self, cursor: &FollowCursor) -> Result<Self> {
        if cursor.run != self.follower.run() {
            let (of, run) = (cursor.run, self.follower.run());
            return Err(Error::invalid(format!("the cursor is of run {of}, not of run {run}")));
        }
        self.follower.set_start(Start::First, cursor.positions.clone());
        Ok(self)
    }

    /// How long to wait between two looks; 50 ms unless told. A point is seen about half of it after it was logged.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Goes on behind points that are missing from the log (after damage); otherwise that is [`Error::Gap`], unless
    /// [`crate::Options::skip_damage`] says so for the whole store.
    pub fn allow_gaps(mut self, gaps_allowed: bool) -> Self {
        self.follower.allow_holes(gaps_allowed);
        self
    }

    /// The next points, at least one; none if `timeout` passes without any. With a timeout of zero it looks once.
    ///
    /// Points of one key and origin come in the order of their ordinals; several keys and origins that are read at once
    /// come in the order of time, as far as they fit side by side.
    ///
    /// # Errors
    /// [`Error::Gap`] if points are missing, [`Error::Corrupt`] if they are damaged. Nothing is lost by an error: the
    /// next call tries the same again.
    pub fn next_batch(&mut self, timeout: Duration) -> Result<Vec<FollowedPoint>> {
        if !self.ready.is_empty() {
            return Ok(self.ready.drain(..).collect());
        }
        let deadline = Instant::now().checked_add(timeout);
        let mut looks = 0;
        loop {
            let now = Instant::now();
            let left = deadline.map_or(self.interval, |deadline| deadline.saturating_duration_since(now));
            let since = self.last_look.map_or(self.interval, |last| now.saturating_duration_since(last));
            let wait = self.interval.saturating_sub(since);
            if looks > 0 && left.is_zero() {
                return Ok(Vec::new());
            }
            // A caller without patience looks as often as it likes.
            if looks > 0 || !timeout.is_zero() {
                std::thread::sleep(wait.min(left));
            }
            let inner = self.store.inner();
            let points =
                self.follower.next_points(inner.vfs.as_ref(), &inner.root, &inner.reader, BATCH_POINTS)?;
            looks += 1;
            if !points.is_empty() {
                // More may be there already: no wait before the next call looks.
                self.last_look = (points.len() < BATCH_POINTS).then(Instant::now);
                self.last_point = Instant::now();
                return Ok(points);
            }
            self.last_look = Some(Instant::now());
        }
    }

    /// Where it stands: behind the points that were handed out. Takes the first look if that was not done yet.
    ///
    /// # Errors
    /// Whatever a look can find.
    pub fn cursor(&mut self) -> Result<FollowCursor> {
        if !self.follower.has_begun() {
            let inner = self.store.inner();
            self.follower.look(inner.vfs.as_ref(), &inner.root, &inner.reader)?;
        }
        let mut positions = self.follower.positions().clone();
        for point in self.ready.iter().rev() {
            positions.insert((Arc::clone(&point.key), point.origin), point.ordinal);
        }
        Ok(FollowCursor { run: self.follower.run(), positions })
    }

    /// Whether no more points are expected: the run has ended or is gone, all its points were handed out, and those who
    /// logged it are gone, too, or have logged nothing to it for 5 seconds. (A point may come all the same: MLflow
    /// allows logging to a run that has ended.)
    ///
    /// # Errors
    /// Whatever a look can find.
    pub fn is_over(&mut self) -> Result<bool> {
        if !self.ready.is_empty() {
            return Ok(false);
        }
        if !self.store.run_is_over(self.follower.run(), self.last_point.elapsed() >= QUIET)? {
            return Ok(false);
        }
        // What was logged before it was over is there by now.
        let inner = self.store.inner();
        let rest = self.follower.next_points(inner.vfs.as_ref(), &inner.root, &inner.reader, BATCH_POINTS)?;
        self.ready.extend(rest);
        Ok(self.ready.is_empty())
    }

    /// The id of the run, as it was given.
    pub fn run_id(&self) -> &str {
        self.follower.run_id()
    }
}

impl Iterator for Follow {
    type Item = Result<FollowedPoint>;

    /// Waits for the next point; ends when the run is over ([`Follow::is_over`]).
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(point) = self.ready.pop_front() {
                return Some(Ok(point));
            }
            match self.next_batch(self.interval.max(Duration::from_millis(1))) {
                Ok(points) => self.ready.extend(points),
                Err(error) => return Some(Err(error)),
            }
            if self.ready.is_empty() && self.asked.is_none_or(|asked| asked.elapsed() >= ASK_INTERVAL) {
                self.asked = Some(Instant::now());
                match self.is_over() {
                    Ok(false) => {}
                    Ok(true) => return None,
                    Err(error) => return Some(Err(error)),
                }
            }
        }
    }
}

/// Where somebody who follows a run stands: the next ordinal of each key and origin. As text ([`fmt::Display`],
/// [`FromStr`]) or bytes it can be kept, and gone on from in another process, on another copy of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowCursor {
    run: Uid,
    positions: Positions,
}

impl FollowCursor {
    /// As bytes: a version, the run, and per key its origins with their next ordinals; a crc at the end.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![CURSOR_VERSION];
        out.extend_from_slice(self.run.as_bytes());
        put_varint(&mut out, self.positions.len() as u64);
        for ((key, origin), next) in &self.positions {
            put_slice(&mut out, key.as_bytes());
            out.extend_from_slice(origin.as_bytes());
            put_varint(&mut out, *next);
        }
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads what [`FollowCursor::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::parse(bytes).ok_or_else(|| Error::invalid("the cursor is not one of this program"))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut cursor = Reader::new(body);
        if cursor.u8().ok()? != CURSOR_VERSION {
            return None;
        }
        let run = Uid::from_bytes(cursor.array().ok()?);
        // Each entry takes 18 bytes or more, so a count cannot ask for more than the bytes can hold.
        let count = cursor.count(body.len() / 18, "positions").ok()?;
        let mut positions = Positions::new();
        for _ in 0..count {
            let key = Arc::from(cursor.text(KEY_BYTES_MAX, "a key").ok()?);
            let origin = Origin::from_bytes(cursor.array().ok()?);
            positions.insert((key, origin), cursor.varint().ok()?);
        }
        cursor.finish().ok()?;
        (positions.len() == count).then_some(Self { run, positions })
    }

    /// The next ordinal of a key and origin; 0 if it does not know them.
    pub fn next_ordinal(&self, key: &str, origin: Origin) -> u64 {
        self.positions.get(&(Arc::from(key), origin)).copied().unwrap_or(0)
    }
}

impl fmt::Display for FollowCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for FollowCursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = text.as_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let pair = |pair: &[u8]| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(pair).collect();
        Self::from_bytes(&bytes.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_reads_back_and_nothing_else_does(
            run: [u8; 16],
            positions in prop::collection::btree_map((".{0,20}", any::<[u8; 16]>()), any::<u64>(), 0..6),
            flipped: prop::sample::Index,
            bit in 0u32..8,
            garbage in prop::collection::vec(any::<u8>(), 0..60),
            text in ".{0,60}",
        ) {
            let positions = positions.into_iter();
            let positions = positions.map(|((key, origin), next)| {
                ((Arc::from(key.as_str()), Origin::from_bytes(origin)), next)
            });
            let cursor = FollowCursor { run: Uid::from_bytes(run), positions: positions.collect() };
            let mut bytes = cursor.to_bytes();
            prop_assert_eq!(FollowCursor::from_bytes(&bytes).unwrap(), cursor.clone());
            prop_assert_eq!(cursor.to_string().parse::<FollowCursor>().unwrap(), cursor);
            let at = flipped.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(FollowCursor::from_bytes(&bytes).is_err());
            prop_assert!(FollowCursor::from_bytes(&garbage).is_err());
            prop_assert!(text.parse::<FollowCursor>().is_err());
        }
    }
}
