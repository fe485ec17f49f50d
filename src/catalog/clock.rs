//! The hybrid clock that stamps metadata changes.
//!
//! Contract: a new stamp is greater than every stamp given out and every stamp observed, so a write is always stamped
//! above the register it overwrites, whatever the wall clock does. It never wraps, and a stamp past the year 2200 is
//! damage: it is reported and must not drag the clock along.

use crate::error::{Error, Malformed, Result};
use crate::id::{Stamp, WriterId};
use crate::limits::STAMP_MILLIS_MAX;

/// Gives out stamps for one writer.
#[derive(Clone, Debug)]
pub struct Clock {
    writer: WriterId,
    millis: u64,
    counter: u32,
}

impl Clock {
    /// A clock that has seen nothing yet.
    pub const fn new(writer: WriterId) -> Self {
        Self { writer, millis: 0, counter: 0 }
    }

    /// The writer whose stamps these are.
    pub const fn writer(&self) -> WriterId {
        self.writer
    }

    /// A stamp above all others, for a change made at `now_ms` (milliseconds since 1970).
    ///
    /// # Errors
    /// [`Error::InvalidState`] when the clock of this machine, or a stamp seen, has reached the year 2200.
    pub fn next(&mut self, now_ms: u64) -> Result<Stamp> {
        let (millis, counter) = if now_ms > self.millis {
            (now_ms, 0)
        } else {
            self.counter.checked_add(1).map_or((self.millis + 1, 0), |counter| (self.millis, counter))
        };
        if millis > STAMP_MILLIS_MAX {
            return Err(Error::InvalidState(format!(
                "the clock stands at {millis} ms since 1970, past the year 2200: set the clock of this machine"
            )));
        }
        (self.millis, self.counter) = (millis, counter);
        Ok(Stamp { millis, counter, writer: self.writer })
    }

    /// Takes note of a stamp that was read.
    ///
    /// # Errors
    /// [`Malformed`] for a stamp past the year 2200, which is not taken over; see [`check_stamp`].
    pub fn observe(&mut self, stamp: Stamp) -> Result<(), Malformed> {
        check_stamp(stamp)?;
        if (stamp.millis, stamp.counter) > (self.millis, self.counter) {
            (self.millis, self.counter) = (stamp.millis, stamp.counter);
        }
        Ok(())
    }
}

/// Whether a stamp can be true.
///
/// # Errors
/// [`Malformed`] for a stamp past the year 2200: its event must be reported and not applied, or it would win for ever.
pub fn check_stamp(stamp: Stamp) -> Result<(), Malformed> {
    if stamp.millis > STAMP_MILLIS_MAX {
        return Err(Malformed::new(0, "a stamp before the year 2200", stamp.millis));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: WriterId = WriterId::from_bytes([1; 16]);
    const OTHER: WriterId = WriterId::from_bytes([9; 16]);

    #[test]
    fn stamps_rise_while_the_wall_clock_stands_or_steps_back() {
        let mut clock = Clock::new(ME);
        let stamps: Vec<_> =
            [1000, 1000, 900, 1001, 5].into_iter().map(|now| clock.next(now).unwrap()).collect();
        assert!(stamps.is_sorted_by(|a, b| a < b), "{stamps:?}");
        assert_eq!((stamps[3].millis, stamps[3].counter), (1001, 0));
    }

    #[test]
    fn a_stamp_is_above_what_was_observed() {
        let mut clock = Clock::new(ME);
        let seen = Stamp { millis: 5000, counter: 7, writer: OTHER };
        clock.observe(seen).unwrap();
        assert!(clock.next(10).unwrap() > seen);
    }

    #[test]
    fn a_full_counter_moves_to_the_next_millisecond() {
        let mut clock = Clock::new(ME);
        let seen = Stamp { millis: 5000, counter: u32::MAX, writer: OTHER };
        clock.observe(seen).unwrap();
        assert_eq!(clock.next(10).unwrap(), Stamp { millis: 5001, counter: 0, writer: ME });
    }

    #[test]
    fn a_stamp_past_2200_is_damage_and_leaves_the_clock_alone() {
        let mut clock = Clock::new(ME);
        let bad = Stamp { millis: u64::MAX, counter: u32::MAX, writer: OTHER };
        assert_eq!(clock.observe(bad).unwrap_err().found, u64::MAX);
        assert_eq!(clock.next(10).unwrap().millis, 10);
        assert!(clock.next(u64::MAX).is_err());
        assert_eq!(clock.next(11).unwrap().millis, 11);
        let last = Stamp { millis: STAMP_MILLIS_MAX, counter: u32::MAX, writer: OTHER };
        clock.observe(last).unwrap();
        assert!(clock.next(12).is_err(), "no stamp is left, and it does not wrap");
    }
}
