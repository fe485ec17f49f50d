//! LMDB by heed: a map of 64 GiB, NO_SYNC unless every transaction is to be durable.

use std::ops::Bound;
use std::path::Path;

use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions};

use crate::Outcome;
use crate::peer::key_value::{KeyValue, Put};

/// More than any workload needs; address space alone.
const MAP_BYTES: usize = 64 << 30;

pub struct Lmdb {
    environment: Env,
    database: Database<Bytes, Bytes>,
}

impl KeyValue for Lmdb {
    fn open(directory: &Path, is_synced: bool) -> Outcome<Self> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES).max_dbs(2);
        if !is_synced {
            // SAFETY: the flag risks the store in a power cut, which is what this setting is measured with.
            unsafe { options.flags(EnvFlags::NO_SYNC) };
        }
        // SAFETY: nobody else has these files while this process runs.
        let environment = unsafe { options.open(directory) }?;
        let mut transaction = environment.write_txn()?;
        let database = environment.create_database(&mut transaction, Some("kv"))?;
        transaction.commit()?;
        Ok(Self { environment, database })
    }

    fn write(&mut self, fill: &mut dyn FnMut(&mut Put<'_>) -> Outcome) -> Outcome {
        let mut transaction = self.environment.write_txn()?;
        fill(&mut |key, value| Ok(self.database.put(&mut transaction, key, value)?))?;
        Ok(transaction.commit()?)
    }

    fn get(&self, key: &[u8]) -> Outcome<Option<Vec<u8>>> {
        let transaction = self.environment.read_txn()?;
        Ok(self.database.get(&transaction, key)?.map(<[u8]>::to_vec))
    }

    fn scan(&self, low: &[u8], high: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Outcome) -> Outcome {
        let transaction = self.environment.read_txn()?;
        let range = (Bound::Included(low), Bound::Excluded(high));
        for entry in self.database.range(&transaction, &range)? {
            let (key, value) = entry?;
            visit(key, value)?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Outcome {
        Ok(self.environment.force_sync()?)
    }
}
