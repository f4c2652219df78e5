//! Agents, and which of those that come from files were killed.

use std::collections::BTreeSet;

use openfang_id::{AgentId, AgentName};
use rusqlite::{Row, params};

use super::{Result, Store, from_sql, to_sql};
use crate::StoreError;

/// An agent as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredAgent {
    pub(crate) id: AgentId,
    pub(crate) name: AgentName,
    /// The text of its manifest.
    pub(crate) manifest: String,
    /// The file in the agents folder it was spawned from, relative to that folder.
    pub(crate) file: Option<String>,
    pub(crate) created_ms: u64,
    pub(crate) active_ms: u64,
}

impl Store {
    /// Returns all agents, by name.
    pub(crate) async fn agents(&self) -> Result<Vec<StoredAgent>> {
        self.run(|connection| {
            let mut query = connection.prepare(
                "SELECT id, name, manifest, file, created_ms, active_ms FROM agents ORDER BY name",
            )?;
            let rows = query.query_map([], |row| Ok(read(row)))?;
            let mut agents = Vec::new();
            for row in rows {
                agents.push(row??);
            }
            Ok(agents)
        })
        .await
    }

    pub(crate) async fn insert_agent(&self, agent: StoredAgent) -> Result<()> {
        self.run(move |connection| {
            let transaction = connection.transaction()?;
            transaction.execute(
                "INSERT INTO agents (id, name, manifest, file, created_ms, active_ms) VALUES (?, ?, ?, ?, ?, ?)",
                params![
                    agent.id.as_bytes(),
                    agent.name.as_str(),
                    agent.manifest,
                    agent.file,
                    to_sql(agent.created_ms),
                    to_sql(agent.active_ms)
                ],
            )?;
            transaction.execute("DELETE FROM dismissed WHERE file = ?", params![agent.file])?;
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// Replaces the manifest of an agent whose file has changed.
    pub(crate) async fn update_manifest(&self, id: AgentId, manifest: String) -> Result<()> {
        self.run(move |connection| {
            connection.execute(
                "UPDATE agents SET manifest = ? WHERE id = ?",
                params![manifest, id.as_bytes()],
            )?;
            Ok(())
        })
        .await
    }

    /// Says which file of the agents folder an agent is that of.
    pub(crate) async fn update_file(&self, id: AgentId, file: String) -> Result<()> {
        self.run(move |connection| {
            connection.execute(
                "UPDATE agents SET file = ? WHERE id = ?",
                params![file, id.as_bytes()],
            )?;
            Ok(())
        })
        .await
    }

    /// Deletes an agent with its sessions and its memory, and remembers its file as dismissed.
    pub(crate) async fn delete_agent(&self, id: AgentId) -> Result<()> {
        self.run(move |connection| {
            let transaction = connection.transaction()?;
            transaction.execute(
                "INSERT OR IGNORE INTO dismissed (file) SELECT file FROM agents WHERE id = ? AND file IS NOT NULL",
                params![id.as_bytes()],
            )?;
            transaction.execute("DELETE FROM agents WHERE id = ?", params![id.as_bytes()])?;
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// Returns the files whose agents were killed.
    pub(crate) async fn dismissed(&self) -> Result<BTreeSet<String>> {
        self.run(|connection| {
            let mut query = connection.prepare("SELECT file FROM dismissed")?;
            let files = query.query_map([], |row| row.get(0))?;
            Ok(files.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }
}

fn read(row: &Row<'_>) -> Result<StoredAgent> {
    let damaged = |what| StoreError::Damaged { what };
    let id: [u8; 16] = row.get(0)?;
    let name: String = row.get(1)?;
    Ok(StoredAgent {
        id: AgentId::from_bytes(id),
        name: name
            .parse()
            .map_err(|_not_a_name| damaged("name of an agent"))?,
        manifest: row.get(2)?,
        file: row.get(3)?,
        created_ms: from_sql(row.get(4)?),
        active_ms: from_sql(row.get(5)?),
    })
}
