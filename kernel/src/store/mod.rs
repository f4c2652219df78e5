//! What outlives the process: agents, sessions and memory in one SQLite file.
//!
//! One connection on a thread of its own does everything, in the order it was asked; a bounded
//! queue leads to it. Write-ahead logging, migrations by hand in [`schema`].

mod agents;
mod memory;
mod schema;
mod sessions;

use std::fmt;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

pub(crate) use agents::StoredAgent;
pub(crate) use memory::Stored;

use crate::tasks::ignore_gone;
use crate::{OpenError, StoreError};

/// How many requests may wait: more callers than this wait for a place.
const QUEUE: usize = 256;

/// The name of the file in the data folder.
const FILE: &str = "openfang.db";

/// What a query gives back.
type Result<T> = std::result::Result<T, StoreError>;

type Query = Box<dyn FnOnce(&mut Connection) + Send>;

enum Job {
    Query(Query),
    Close,
}

/// The way to the database; cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    jobs: mpsc::Sender<Job>,
}

/// Owns the thread.
#[derive(Debug)]
pub(crate) struct Thread {
    handle: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the file and brings it up to date; blocks for as long as that takes.
    pub(crate) fn open(data_dir: &Path) -> std::result::Result<(Self, Thread), OpenError> {
        let folder = |source| OpenError::Folder {
            path: data_dir.to_owned(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data_dir)
            .map_err(folder)?;
        let path = data_dir.join(FILE);
        let mut connection = connect(&path)?;
        schema::migrate(&mut connection, &path)?;
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let handle = std::thread::Builder::new()
            .name("openfang-store".to_owned())
            .spawn(move || {
                while let Some(Job::Query(query)) = queue.blocking_recv() {
                    query(&mut connection);
                }
            })
            .map_err(|why| OpenError::Setup {
                what: "the database thread",
                reason: why.to_string(),
            })?;
        let thread = Thread {
            handle: Some(handle),
        };
        Ok((Self { jobs }, thread))
    }

    /// Runs a query on the thread of the database and waits for its result.
    ///
    /// Cancel safety: a query that has its place in the queue runs, whoever waits for it.
    async fn run<T: Send + 'static>(
        &self,
        query: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, result) = oneshot::channel();
        let query: Query = Box::new(move |connection| {
            // Whoever asked may have gone away: then nobody needs the result.
            ignore_gone(answer.send(query(connection)));
        });
        let job = Job::Query(query);
        self.jobs
            .send(job)
            .await
            .map_err(|_closed| StoreError::Closed)?;
        result.await.map_err(|_lost| StoreError::Closed)?
    }

    /// Waits until the thread takes no more queries: it was closed, or a query panicked.
    pub(crate) async fn closed(&self) {
        self.jobs.closed().await;
    }

    /// Ends the thread after everything that was asked before; what is asked later fails.
    pub(crate) async fn close(&self) {
        if self.jobs.send(Job::Close).await.is_err() {
            tracing::debug!("the database was closed already");
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

impl Thread {
    /// Waits until everything that was asked is done, after [`Store::close`] or once all [`Store`]s
    /// are gone. Blocks.
    pub(crate) fn join(mut self) {
        if let Some(handle) = self.handle.take()
            && handle.join().is_err()
        {
            tracing::error!("the thread of the database panicked");
        }
    }
}

fn connect(path: &Path) -> std::result::Result<Connection, OpenError> {
    let set_up = || -> rusqlite::Result<Connection> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        Ok(connection)
    };
    set_up().map_err(|why| database(path, &why))
}

fn database(path: &Path, why: &rusqlite::Error) -> OpenError {
    OpenError::Database {
        path: PathBuf::from(path),
        reason: why.to_string(),
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(why: rusqlite::Error) -> Self {
        Self::Sqlite(why.to_string())
    }
}

/// Milliseconds fit the signed integers of SQLite until far beyond any calendar.
fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::{Message, ToolCall};

    #[tokio::test]
    async fn a_query_that_panics_ends_the_database_and_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, thread) = Store::open(folder.path()).expect("opened");
        let answer = store.run::<()>(|_connection| panic!("on purpose")).await;
        assert!(matches!(answer, Err(StoreError::Closed)), "{answer:?}");
        store.closed().await;
        thread.join();
    }

    use openfang_id::AgentId;

    fn agent(seed: u8, name: &str) -> StoredAgent {
        StoredAgent {
            id: AgentId::from_random([seed; 16]),
            name: name.parse().expect("a name"),
            manifest: format!("name = \"{name}\""),
            file: None,
            created_ms: 5,
            active_ms: 5,
        }
    }

    fn talk() -> Vec<Message> {
        vec![
            Message::User { text: "hi".into() },
            Message::Assistant {
                text: String::new(),
                calls: vec![ToolCall {
                    id: "1".into(),
                    tool: "t".into(),
                    arguments: "{}".into(),
                }],
            },
            Message::Tool {
                call_id: "1".into(),
                text: "no".into(),
                is_error: true,
            },
            Message::Assistant {
                text: "é".into(),
                calls: Vec::new(),
            },
        ]
    }

    #[tokio::test]
    async fn what_is_stored_is_there_after_reopening_and_gone_with_its_agent() {
        let dir = tempfile::tempdir().expect("a folder");
        let (store, thread) = Store::open(dir.path()).expect("opens");
        let (one, two) = (agent(1, "one"), agent(2, "two"));
        store.insert_agent(one.clone()).await.expect("stored");
        store.insert_agent(two.clone()).await.expect("stored");
        store
            .append(one.id, "main", talk(), 6)
            .await
            .expect("stored");
        store
            .append(one.id, "side", talk(), 7)
            .await
            .expect("stored");
        store.memory_set(one.id, "k", "v", 8).await.expect("stored");
        drop(store);
        thread.join();

        let (store, thread) = Store::open(dir.path()).expect("opens again");
        let agents = store.agents().await.expect("read");
        assert_eq!(agents.len(), 2);
        assert_eq!(agents[0].active_ms, 7);
        assert_eq!(store.history(one.id, "main", 100).await, Ok(talk()));
        assert_eq!(
            store.history(one.id, "main", 1).await,
            Ok(talk()[3..].to_vec())
        );
        assert_eq!(
            store.memory_get(one.id, "k").await,
            Ok(Some("v".to_owned()))
        );
        assert_eq!(store.memory_get(two.id, "k").await, Ok(None));
        store.delete_agent(one.id).await.expect("deleted");
        assert_eq!(store.history(one.id, "main", 100).await, Ok(vec![]));
        assert_eq!(store.memory_get(one.id, "k").await, Ok(None));
        assert_eq!(store.agents().await.expect("read"), [two]);
        drop(store);
        thread.join();
    }

    #[tokio::test]
    async fn a_killed_agent_of_a_file_stays_killed_until_it_is_spawned_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        let (store, thread) = Store::open(dir.path()).expect("opens");
        let one = StoredAgent {
            file: Some("one/agent.toml".into()),
            ..agent(1, "one")
        };
        store.insert_agent(one.clone()).await.expect("stored");
        store.delete_agent(one.id).await.expect("deleted");
        assert!(
            store
                .dismissed()
                .await
                .expect("read")
                .contains("one/agent.toml")
        );
        store.insert_agent(one).await.expect("stored");
        assert!(store.dismissed().await.expect("read").is_empty());
        drop(store);
        thread.join();
    }

    #[tokio::test]
    async fn what_an_agent_keeps_is_bounded() {
        let dir = tempfile::tempdir().expect("a folder");
        let (store, thread) = Store::open(dir.path()).expect("opens");
        let one = agent(1, "one");
        store.insert_agent(one.clone()).await.expect("stored");
        for key in 0..memory::KEYS_MAX {
            let stored = store.memory_set(one.id, &key.to_string(), "v", 8).await;
            assert_eq!(stored, Ok(Stored::Yes));
        }
        assert_eq!(
            store.memory_set(one.id, "more", "v", 8).await,
            Ok(Stored::Full)
        );
        assert_eq!(store.memory_set(one.id, "5", "w", 8).await, Ok(Stored::Yes));
        for number in 0..1010 {
            let message = Message::User {
                text: number.to_string(),
            };
            store
                .append(one.id, "main", vec![message], 9)
                .await
                .expect("stored");
            let message = Message::User {
                text: String::new(),
            };
            store
                .append(one.id, &format!("session {number}"), vec![message], 9)
                .await
                .expect("stored");
        }
        let history = store.history(one.id, "main", 5000).await.expect("read");
        assert_eq!(history.len(), 1000);
        assert_eq!(history[0], Message::User { text: "10".into() });
        let kept = store
            .history(one.id, "session 1009", 1)
            .await
            .expect("read");
        assert_eq!(kept.len(), 1);
        let forgotten = store.history(one.id, "session 0", 1).await.expect("read");
        assert_eq!(forgotten, []);
        store.close().await;
        assert_eq!(store.memory_keys(one.id).await, Err(StoreError::Closed));
        thread.join();
    }

    #[test]
    fn a_database_of_newer_software_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let connection = connect(&dir.path().join(FILE)).expect("opens");
        connection
            .pragma_update(None, "user_version", 99)
            .expect("set");
        drop(connection);
        let refused = Store::open(dir.path());
        assert!(
            matches!(refused, Err(OpenError::NewerDatabase { found: 99, .. })),
            "{refused:?}"
        );
    }
}
