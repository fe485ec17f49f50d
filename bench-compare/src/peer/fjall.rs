//! fjall with its defaults: the journal goes to the operating system, or SyncData if every transaction is to be durable.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::Outcome;
use crate::peer::key_value::{KeyValue, Put};

pub struct Fjall {
    database: Database,
    keyspace: Keyspace,
    is_synced: bool,
}

impl KeyValue for Fjall {
    fn open(directory: &Path, is_synced: bool) -> Outcome<Self> {
        let database = Database::builder(directory.join("fjall")).open()?;
        let keyspace = database.keyspace("kv", KeyspaceCreateOptions::default)?;
        Ok(Self { database, keyspace, is_synced })
    }

    fn write(&mut self, fill: &mut dyn FnMut(&mut Put<'_>) -> Outcome) -> Outcome {
        let mut batch = self.database.batch();
        if self.is_synced {
            batch = batch.durability(Some(PersistMode::SyncData));
        }
        fill(&mut |key, value| {
            batch.insert(&self.keyspace, key, value);
            Ok(())
        })?;
        Ok(batch.commit()?)
    }

    fn get(&self, key: &[u8]) -> Outcome<Option<Vec<u8>>> {
        Ok(self.keyspace.get(key)?.map(|value| value.to_vec()))
    }

    fn scan(&self, low: &[u8], high: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Outcome) -> Outcome {
        for entry in self.keyspace.range::<&[u8], _>(low..high) {
            let (key, value) = entry.into_inner()?;
            visit(&key, &value)?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Outcome {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}
