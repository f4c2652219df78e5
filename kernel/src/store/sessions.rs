//! The conversations of agents.

use openfang_id::AgentId;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::{Result, Store, to_sql};
use crate::StoreError;
use crate::turn::{Message, ToolCall};

/// The most messages of a session that are kept; older ones are forgotten.
const KEPT_MAX: i64 = 1000;
/// The most sessions of an agent; the one that was used least lately is forgotten.
const SESSIONS_MAX: i64 = 1000;

/// What a message has beside its text.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Extra {
    Calls(Vec<StoredCall>),
    Answers { call_id: String, is_error: bool },
}

#[derive(Serialize, Deserialize)]
struct StoredCall {
    id: String,
    tool: String,
    arguments: String,
}

impl Store {
    /// Returns the last `max` messages of a session, oldest first.
    pub(crate) async fn history(
        &self,
        agent: AgentId,
        label: &str,
        max: u32,
    ) -> Result<Vec<Message>> {
        let label = label.to_owned();
        self.run(move |connection| {
            let mut query = connection.prepare(
                "SELECT role, text, extra FROM messages WHERE session = \
                 (SELECT id FROM sessions WHERE agent = ? AND label = ?) ORDER BY id DESC LIMIT ?",
            )?;
            let rows =
                query.query_map(params![agent.as_bytes(), label, max], |row| Ok(read(row)))?;
            let mut messages = Vec::new();
            for row in rows {
                messages.push(row??);
            }
            messages.reverse();
            Ok(messages)
        })
        .await
    }

    /// Adds what a turn has said to a session, all of it or nothing.
    pub(crate) async fn append(
        &self,
        agent: AgentId,
        label: &str,
        messages: Vec<Message>,
        now_ms: u64,
    ) -> Result<()> {
        let label = label.to_owned();
        self.run(move |connection| {
            let transaction = connection.transaction()?;
            let session = session(&transaction, agent, &label, now_ms)?;
            for message in messages {
                insert(&transaction, session, message)?;
            }
            transaction.execute(
                "DELETE FROM messages WHERE session = ?1 AND id <= \
                 (SELECT id FROM messages WHERE session = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                params![session, KEPT_MAX],
            )?;
            transaction.execute(
                "UPDATE agents SET active_ms = ? WHERE id = ?",
                params![to_sql(now_ms), agent.as_bytes()],
            )?;
            transaction.commit()?;
            Ok(())
        })
        .await
    }
}

fn session(transaction: &Transaction<'_>, agent: AgentId, label: &str, now_ms: u64) -> Result<i64> {
    let found = transaction
        .query_row(
            "SELECT id FROM sessions WHERE agent = ? AND label = ?",
            params![agent.as_bytes(), label],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    transaction.execute(
        "DELETE FROM sessions WHERE agent = ?1 AND id IN (SELECT s.id FROM sessions s \
         LEFT JOIN messages m ON m.session = s.id WHERE s.agent = ?1 GROUP BY s.id \
         ORDER BY max(m.id) DESC LIMIT -1 OFFSET ?2)",
        params![agent.as_bytes(), SESSIONS_MAX - 1],
    )?;
    transaction.execute(
        "INSERT INTO sessions (agent, label, created_ms) VALUES (?, ?, ?)",
        params![agent.as_bytes(), label, to_sql(now_ms)],
    )?;
    Ok(transaction.last_insert_rowid())
}

fn insert(transaction: &Transaction<'_>, session: i64, message: Message) -> Result<()> {
    let (role, text, extra) = match message {
        Message::User { text } => ("user", text, None),
        Message::Assistant { text, calls } if calls.is_empty() => ("assistant", text, None),
        Message::Assistant { text, calls } => {
            let stored = |call: ToolCall| StoredCall {
                id: call.id,
                tool: call.tool,
                arguments: call.arguments,
            };
            (
                "assistant",
                text,
                Some(Extra::Calls(calls.into_iter().map(stored).collect())),
            )
        }
        Message::Tool {
            call_id,
            text,
            is_error,
        } => ("tool", text, Some(Extra::Answers { call_id, is_error })),
    };
    let extra = extra
        .map(|extra| serde_json::to_string(&extra))
        .transpose()
        .map_err(|_unwritable| StoreError::Damaged { what: "message" })?;
    transaction
        .prepare("INSERT INTO messages (session, role, text, extra) VALUES (?, ?, ?, ?)")?
        .execute(params![session, role, text, extra])?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<Message> {
    let damaged = || StoreError::Damaged { what: "message" };
    let role: String = row.get(0)?;
    let text: String = row.get(1)?;
    let extra: Option<String> = row.get(2)?;
    let extra = extra
        .map(|extra| serde_json::from_str(&extra))
        .transpose()
        .map_err(|_not_ours| damaged())?;
    match (role.as_str(), extra) {
        ("user", None) => Ok(Message::User { text }),
        ("assistant", None) => Ok(Message::Assistant {
            text,
            calls: Vec::new(),
        }),
        ("assistant", Some(Extra::Calls(calls))) => {
            let call = |call: StoredCall| ToolCall {
                id: call.id,
                tool: call.tool,
                arguments: call.arguments,
            };
            let calls = calls.into_iter().map(call).collect();
            Ok(Message::Assistant { text, calls })
        }
        ("tool", Some(Extra::Answers { call_id, is_error })) => Ok(Message::Tool {
            call_id,
            text,
            is_error,
        }),
        _other => Err(damaged()),
    }
}
