//! SQLite with the tables, keys and indexes of MLflow 3.18 (without its foreign keys and checks): what MLflow's store
//! would cost without Python.

use std::ops::Range;
use std::path::Path;

use rusqlite::Connection;

use crate::Outcome;
use crate::data::{
    LongRun, M3_BELOW, METRICS, RUN_STEPS, START_MS, STEPS, SmallRun, TOP, long_key, metric_key, param_key,
    tag_key,
};
use crate::peer::sqlite::{checkpoint, open, transaction};
use crate::peer::{Columns, Peer, RunRow};

const SCHEMA: &str = "
    create table if not exists metrics(key text not null, value double not null, timestamp bigint not null,
        run_uuid text not null, step bigint not null default 0, is_nan boolean not null default 0,
        constraint metric_pk primary key(key, timestamp, step, run_uuid, value, is_nan));
    create index if not exists index_metrics_run_uuid on metrics(run_uuid);
    create index if not exists index_metrics_run_uuid_key_step on metrics(run_uuid, key, step);
    create table if not exists latest_metrics(key text not null, value double not null, timestamp bigint,
        step bigint not null, is_nan boolean not null, run_uuid text not null, primary key(key, run_uuid));
    create index if not exists index_latest_metrics_run_uuid on latest_metrics(run_uuid);
    create table if not exists params(key text not null, value text not null, run_uuid text not null,
        primary key(key, run_uuid));
    create index if not exists index_params_run_uuid on params(run_uuid);
    create table if not exists tags(key text not null, value text, run_uuid text not null, primary key(key, run_uuid));
    create index if not exists index_tags_run_uuid on tags(run_uuid);
    create table if not exists runs(run_uuid text not null primary key, name text, start_time bigint, end_time bigint,
        status text);";
const INSERT: &str =
    "insert into metrics(key, value, timestamp, run_uuid, step, is_nan) values(?1, ?2, ?3, ?4, ?5, 0)";
const INSERT_RUN: &str = "insert into runs values(?1, ?2, ?3, ?4, 'FINISHED')";
const INSERT_PARAM: &str = "insert into params values(?1, ?2, ?3)";
const INSERT_TAG: &str = "insert into tags values(?1, ?2, ?3)";
const INSERT_LATEST: &str = "insert or replace into latest_metrics values(?1, ?2, ?3, ?4, 0, ?5)";
const HISTORY: &str = "select step, timestamp, value from metrics where run_uuid = ?1 and key = ?2
    order by step, timestamp, value";
const TOP_RUNS: &str = "select r.run_uuid from runs r
    join latest_metrics m on m.run_uuid = r.run_uuid and m.key = 'm3' and m.value < ?1
    join params p on p.run_uuid = r.run_uuid and p.key = 'p1' and p.value = 'y'
    order by m.value desc limit ?2";

pub struct SqliteMlflow {
    connection: Connection,
    /// Of the long run, once it is begun.
    keys: Vec<String>,
    uuid: String,
}

fn uuid(number: usize) -> String {
    format!("{:016x}{number:016x}", (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

impl SqliteMlflow {
    fn insert(&self, key: &str, step: i64, timestamp_ms: i64, value: f64, uuid: &str) -> Outcome {
        self.connection.prepare_cached(INSERT)?.execute((key, value, timestamp_ms, uuid, step))?;
        Ok(())
    }

    fn by_uuid(&self, uuid: &str) -> Outcome<RunRow> {
        let prepare = |sql| self.connection.prepare_cached(sql);
        let (name, start_ms): (String, i64) =
            prepare("select name, start_time from runs where run_uuid = ?1")?
                .query_row([uuid], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let pairs = |sql| -> Outcome<Vec<(String, String)>> {
            let mut query = prepare(sql)?;
            let rows = query.query_map([uuid], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        let mut query =
            prepare("select key, step, timestamp, value from latest_metrics where run_uuid = ?1")?;
        let metric = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        let metrics = query.query_map([uuid], metric)?.collect::<Result<_, _>>()?;
        Ok(RunRow {
            number: name.parse()?,
            start_ms,
            params: pairs("select key, value from params where run_uuid = ?1")?,
            tags: pairs("select key, value from tags where run_uuid = ?1")?,
            metrics,
        })
    }

    fn by_uuids(&self, sql: &str, arguments: impl rusqlite::Params) -> Outcome<Vec<RunRow>> {
        let mut query = self.connection.prepare_cached(sql)?;
        let uuids: Vec<String> = query.query_map(arguments, |row| row.get(0))?.collect::<Result<_, _>>()?;
        uuids.iter().map(|uuid| self.by_uuid(uuid)).collect()
    }
}

impl Peer for SqliteMlflow {
    type Run = RunRow;

    fn open(directory: &Path, is_synced: bool) -> Outcome<Self> {
        Ok(Self { connection: open(directory, is_synced, SCHEMA)?, keys: Vec::new(), uuid: uuid(0) })
    }

    fn begin_long(&mut self, keys: usize) -> Outcome {
        self.keys = (0..keys).map(long_key).collect();
        Ok(())
    }

    fn log_steps(&mut self, data: &LongRun, steps: Range<usize>) -> Outcome {
        transaction(&self.connection, || {
            for step in steps {
                for (key, name) in self.keys.iter().enumerate() {
                    let (timestamp_ms, value) = (data.timestamps_ms[step], data.values[key][step]);
                    self.insert(name, step as i64, timestamp_ms, value, &self.uuid)?;
                }
            }
            Ok(())
        })
    }

    fn log_point(&mut self, key: usize, step: i64, timestamp_ms: i64, value: f64) -> Outcome {
        self.insert(&self.keys[key], step, timestamp_ms, value, &self.uuid)
    }

    fn log_run(&mut self, run: &SmallRun) -> Outcome {
        let uuid = &uuid(run.number);
        let prepare = |sql| self.connection.prepare_cached(sql);
        transaction(&self.connection, || {
            prepare(INSERT_RUN)?.execute((uuid, run.number.to_string(), START_MS, START_MS + 1))?;
            for (at, value) in run.params.iter().enumerate() {
                prepare(INSERT_PARAM)?.execute((param_key(at), value, uuid))?;
            }
            for (at, value) in run.tags.iter().enumerate() {
                prepare(INSERT_TAG)?.execute((tag_key(at), value, uuid))?;
            }
            for metric in 0..METRICS {
                let key = metric_key(metric);
                for (step, value) in run.metrics[metric].iter().enumerate() {
                    self.insert(&key, step as i64, SmallRun::timestamp_ms(run.number, step), *value, uuid)?;
                }
                let last = RUN_STEPS - 1;
                let timestamp_ms = SmallRun::timestamp_ms(run.number, last);
                prepare(INSERT_LATEST)?.execute((key, run.last(metric), timestamp_ms, last as i64, uuid))?;
            }
            Ok(())
        })
    }

    fn sync(&mut self) -> Outcome {
        checkpoint(&self.connection)
    }

    fn close(self) -> Outcome {
        self.connection.close().map_err(|(_, error)| error.into())
    }

    fn history(&self, key: usize) -> Outcome<Columns> {
        let mut query = self.connection.prepare_cached(HISTORY)?;
        let mut rows = query.query((&self.uuid, long_key(key)))?;
        let mut columns = Columns::with_capacity(STEPS);
        while let Some(row) = rows.next()? {
            columns.push(row.get(0)?, row.get(1)?, row.get(2)?);
        }
        Ok(columns)
    }

    fn runs(&self) -> Outcome<Vec<RunRow>> {
        self.by_uuids("select run_uuid from runs", [])
    }

    fn top(&self) -> Outcome<Vec<RunRow>> {
        self.by_uuids(TOP_RUNS, (M3_BELOW, TOP as i64))
    }

    fn run(&self, number: usize) -> Outcome<RunRow> {
        self.by_uuid(&uuid(number))
    }
}
