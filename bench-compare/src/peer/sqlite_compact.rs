//! SQLite with the most compact schema for points: integer ids, WITHOUT ROWID. It has no runs, so only W1, W2 and R1.

use std::ops::Range;
use std::path::Path;

use rusqlite::Connection;

use crate::Outcome;
use crate::data::{KEYS, LongRun, STEPS, SmallRun};
use crate::peer::sqlite::{checkpoint, open, transaction};
use crate::peer::{Columns, Peer, RunRow};

const SCHEMA: &str = "create table if not exists metrics(run integer, key integer, step integer, seq integer,
    ts integer, value real, primary key(run, key, step, seq)) without rowid;";
const INSERT: &str = "insert into metrics(run, key, step, seq, ts, value) values(0, ?1, ?2, 0, ?3, ?4)";
const HISTORY: &str = "select step, ts, value from metrics where run = 0 and key = ?1 order by step, seq";
const NO_RUNS: &str = "the compact schema has no runs";

pub struct SqliteCompact {
    connection: Connection,
}

impl Peer for SqliteCompact {
    type Run = RunRow;

    fn open(directory: &Path, is_synced: bool) -> Outcome<Self> {
        Ok(Self { connection: open(directory, is_synced, SCHEMA)? })
    }

    fn log_steps(&mut self, data: &LongRun, steps: Range<usize>) -> Outcome {
        transaction(&self.connection, || {
            for step in steps {
                for key in 0..KEYS {
                    let row = (key as i64, step as i64, data.timestamps_ms[step], data.values[key][step]);
                    self.connection.prepare_cached(INSERT)?.execute(row)?;
                }
            }
            Ok(())
        })
    }

    fn log_point(&mut self, key: usize, step: i64, timestamp_ms: i64, value: f64) -> Outcome {
        self.connection.prepare_cached(INSERT)?.execute((key as i64, step, timestamp_ms, value))?;
        Ok(())
    }

    fn log_run(&mut self, _: &SmallRun) -> Outcome {
        Err(NO_RUNS.into())
    }

    fn sync(&mut self) -> Outcome {
        checkpoint(&self.connection)
    }

    fn close(self) -> Outcome {
        self.connection.close().map_err(|(_, error)| error.into())
    }

    fn history(&self, key: usize) -> Outcome<Columns> {
        let mut query = self.connection.prepare_cached(HISTORY)?;
        let mut rows = query.query([key as i64])?;
        let mut columns = Columns::with_capacity(STEPS);
        while let Some(row) = rows.next()? {
            columns.push(row.get(0)?, row.get(1)?, row.get(2)?);
        }
        Ok(columns)
    }

    fn runs(&self) -> Outcome<Vec<RunRow>> {
        Err(NO_RUNS.into())
    }

    fn top(&self) -> Outcome<Vec<RunRow>> {
        Err(NO_RUNS.into())
    }

    fn run(&self, _: usize) -> Outcome<RunRow> {
        Err(NO_RUNS.into())
    }
}
