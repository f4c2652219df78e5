//! What agents have stored under keys, each for itself.

use openfang_id::AgentId;
use rusqlite::{OptionalExtension as _, params};

use super::{Result, Store, to_sql};

/// The most keys an agent may have.
pub(crate) const KEYS_MAX: i64 = 1000;

/// What became of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    /// It is stored.
    Yes,
    /// The agent has [`KEYS_MAX`] keys, and this would be one more.
    Full,
}

impl Store {
    pub(crate) async fn memory_set(
        &self,
        agent: AgentId,
        key: &str,
        value: &str,
        now_ms: u64,
    ) -> Result<Stored> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.run(move |connection| {
            let transaction = connection.transaction()?;
            let others: i64 = transaction.query_row(
                "SELECT count(*) FROM memory WHERE agent = ? AND key <> ?",
                params![agent.as_bytes(), key],
                |row| row.get(0),
            )?;
            if others >= KEYS_MAX {
                return Ok(Stored::Full);
            }
            transaction.execute(
                "INSERT INTO memory (agent, key, value, updated_ms) VALUES (?, ?, ?, ?) \
                 ON CONFLICT (agent, key) DO UPDATE SET value = excluded.value, updated_ms = excluded.updated_ms",
                params![agent.as_bytes(), key, value, to_sql(now_ms)],
            )?;
            transaction.commit()?;
            Ok(Stored::Yes)
        })
        .await
    }

    pub(crate) async fn memory_get(&self, agent: AgentId, key: &str) -> Result<Option<String>> {
        let key = key.to_owned();
        self.run(move |connection| {
            let value = connection
                .query_row(
                    "SELECT value FROM memory WHERE agent = ? AND key = ?",
                    params![agent.as_bytes(), key],
                    |row| row.get(0),
                )
                .optional()?;
            Ok(value)
        })
        .await
    }

    /// Returns the keys of an agent in alphabetical order.
    pub(crate) async fn memory_keys(&self, agent: AgentId) -> Result<Vec<String>> {
        self.run(move |connection| {
            let mut query =
                connection.prepare("SELECT key FROM memory WHERE agent = ? ORDER BY key")?;
            let keys = query.query_map(params![agent.as_bytes()], |row| row.get(0))?;
            Ok(keys.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }
}
