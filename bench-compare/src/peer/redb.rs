//! redb directly: one table of bytes, Durability::None unless every transaction is to be durable.

use std::path::Path;

use redb::{Database, Durability, ReadableDatabase, TableDefinition};

use crate::Outcome;
use crate::peer::key_value::{KeyValue, Put};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("kv");

pub struct Redb {
    database: Database,
    durability: Durability,
}

impl KeyValue for Redb {
    fn open(directory: &Path, is_synced: bool) -> Outcome<Self> {
        let database = Database::create(directory.join("store.redb"))?;
        let transaction = database.begin_write()?;
        transaction.open_table(TABLE)?;
        transaction.commit()?;
        let durability = if is_synced { Durability::Immediate } else { Durability::None };
        Ok(Self { database, durability })
    }

    fn write(&mut self, fill: &mut dyn FnMut(&mut Put<'_>) -> Outcome) -> Outcome {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(self.durability)?;
        {
            let mut table = transaction.open_table(TABLE)?;
            fill(&mut |key, value| {
                table.insert(key, value)?;
                Ok(())
            })?;
        }
        Ok(transaction.commit()?)
    }

    fn get(&self, key: &[u8]) -> Outcome<Option<Vec<u8>>> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        Ok(table.get(key)?.map(|value| value.value().to_vec()))
    }

    fn scan(&self, low: &[u8], high: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Outcome) -> Outcome {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        for entry in table.range::<&[u8]>(low..high)? {
            let (key, value) = entry?;
            visit(key.value(), value.value())?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Outcome {
        Ok(self.database.begin_write()?.commit()?)
    }
}
