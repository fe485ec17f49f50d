//! What both SQLite peers share: WAL, 64 MiB of cache, NORMAL or, if every transaction is to be durable, FULL.

use std::path::Path;

use rusqlite::Connection;

use crate::Outcome;

pub fn open(directory: &Path, is_synced: bool, schema: &str) -> Outcome<Connection> {
    std::fs::create_dir_all(directory)?;
    let connection = Connection::open(directory.join("store.db"))?;
    let synchronous = if is_synced { "full" } else { "normal" };
    connection.execute_batch(&format!(
        "pragma journal_mode=wal; pragma synchronous={synchronous}; pragma cache_size=-65536;"
    ))?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch(schema)?;
    Ok(connection)
}

/// The write-ahead log goes into the database, which is synced.
pub fn checkpoint(connection: &Connection) -> Outcome {
    Ok(connection.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()))?)
}

/// Runs statements as one transaction.
pub fn transaction(connection: &Connection, fill: impl FnOnce() -> Outcome) -> Outcome {
    connection.execute_batch("begin immediate")?;
    fill()?;
    Ok(connection.execute_batch("commit")?)
}
