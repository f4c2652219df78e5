//! The tables, and how an older file is brought up to date.

use std::path::Path;

use rusqlite::Connection;

use super::database;
use crate::OpenError;

/// The steps from an empty file to the newest tables. Only ever appended to: `user_version` of a
/// file says how many of them it has seen.
const STEPS: [&str; 1] = ["
CREATE TABLE agents (
    id BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    manifest TEXT NOT NULL,
    file TEXT,
    created_ms INTEGER NOT NULL,
    active_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    agent BLOB NOT NULL REFERENCES agents(id) ON DELETE CASCADE,
    label TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    UNIQUE (agent, label)
) STRICT;
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL REFERENCES sessions(id) ON DELETE CASCADE,
    role TEXT NOT NULL,
    text TEXT NOT NULL,
    extra TEXT
) STRICT;
CREATE INDEX messages_of_session ON messages (session, id);
CREATE TABLE memory (
    agent BLOB NOT NULL REFERENCES agents(id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    updated_ms INTEGER NOT NULL,
    PRIMARY KEY (agent, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE dismissed (
    file TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
"];

/// Takes the steps a file has not seen, each with its version in one transaction.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |why: rusqlite::Error| database(path, &why);
    let found: u32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed)?;
    let known = u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(OpenError::NewerDatabase {
            path: path.to_owned(),
            found,
            known,
        });
    }
    for (version, step) in (1_u32..).zip(STEPS).skip(found as usize) {
        let transaction = connection.transaction().map_err(failed)?;
        transaction.execute_batch(step).map_err(failed)?;
        transaction
            .pragma_update(None, "user_version", version)
            .map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    Ok(())
}
