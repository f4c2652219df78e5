//! What the API is given, and what it keeps for itself.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderValue;
use futures::future::BoxFuture;
use openfang_audit::collect::Witnessing;
use openfang_audit::feed::Mirroring;
use openfang_audit::inquiry::Signing;
use openfang_audit::{Event, Log, Public, Text};
use openfang_id::{NodeId, NodeName, PeerAddr, SharedSecret, VerifyingKey};
use openfang_kernel::{Announced, Auditor, Kernel};
use openfang_mesh::{Answer, Epoch, Mesh, Question};
use openfang_schema::ws;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::auth::{AuthConfig, Denial};
use crate::calls::Calls;
use crate::error::{ApiError, not_logged};
use crate::failures::{Client, Entry, Failures};
use crate::rate::{OF_WITNESS, Rate};

/// Everything the routes work with.
#[derive(Clone)]
pub struct State {
    /// The agents.
    pub kernel: Kernel,
    /// The other nodes.
    pub mesh: Mesh,
    /// The audit log; `None` when none is kept.
    pub audit: Option<Log>,
    /// Writes into it, as is demanded of entries.
    pub auditor: Auditor,
    /// How it stands with the witnesses of the audit log.
    pub witnessing: watch::Receiver<Witnessing>,
    /// Whether the audit log is signed, and what keeps it from that.
    pub signing: watch::Receiver<Signing>,
    /// How it stands with the mirrors of the audit log.
    pub mirroring: watch::Receiver<Mirroring>,
    /// Cosigns heads of logs that are not of the mesh; `None` when this node does not.
    pub witness: Option<Arc<dyn PublicWitness>>,
    /// The folder of what is known against logs and cosigners.
    pub evidence: PathBuf,
    /// Where the files of the audit log are.
    pub log_files: LogFiles,
    /// Who may make a request.
    pub auth: AuthConfig,
    /// What the node says of itself.
    pub info: NodeInfo,
    /// Ends the node.
    pub shutdown: CancellationToken,
    /// Where a join is kept.
    pub persist: Arc<dyn JoinStore>,
}

/// Where the files of the audit log are, and what they are checked with.
#[derive(Debug, Clone)]
pub struct LogFiles {
    /// The lines.
    pub log_path: PathBuf,
    /// The heads and hashes.
    pub dir: PathBuf,
    /// Under whose signature the heads are.
    pub key: VerifyingKey,
}

/// What a node says of itself.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// Version of the software.
    pub version: String,
    /// When it was built, if recorded.
    pub build_date: Option<String>,
    /// Of which commit, if recorded.
    pub git_sha: Option<String>,
    /// With which compiler, if recorded.
    pub rust_version: Option<String>,
    /// Who it is.
    pub node_id: NodeId,
    /// What it is called.
    pub node_name: NodeName,
    /// When it started, in microseconds since 1970, UTC.
    pub started_unix_micros: u64,
    /// Whether the mesh may be on at all.
    pub network_enabled: bool,
    /// The home directory.
    pub home: PathBuf,
    /// How much is logged.
    pub log_level: String,
    /// Who serves the model of an agent that names none.
    pub default_provider: Option<String>,
    /// That model.
    pub default_model: Option<String>,
}

/// What a join brought, to be found again after a restart.
#[derive(Debug, Clone)]
pub struct Membership {
    /// Where to dial.
    pub peers: Vec<PeerAddr>,
    /// The secret of the mesh, when the join brought one.
    pub secret: Option<(Epoch, SharedSecret)>,
}

/// A witness of logs that are not of the mesh.
pub trait PublicWitness: Send + Sync + 'static {
    /// Answers a question of whoever asks: `witness/add-checkpoint`, `witness/<id>/checkpoint`.
    ///
    /// Cancel safety: what was asked may be done all the same.
    fn ask(&self, question: Question) -> BoxFuture<'static, Answer>;
}

/// Keeps what a join brought.
pub trait JoinStore: Send + Sync + 'static {
    /// Tells, before anything is tried, whether it could be kept. Called where blocking is allowed.
    ///
    /// # Errors
    /// When it could not, as [`JoinStore::keep`].
    fn check(&self, membership: &Membership) -> Result<(), KeepError>;

    /// Stores it durably. Called where blocking is allowed.
    ///
    /// # Errors
    /// When it is not stored.
    fn keep(&self, membership: &Membership) -> Result<(), KeepError>;
}

/// Why a join is not stored. The node is in the mesh all the same, until it restarts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// Another mesh is stored.
    #[error("another network is stored")]
    OtherNetwork,
    /// It could not be written.
    #[error("{reason}")]
    Failed {
        /// Why; for the log.
        reason: String,
    },
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("auth", &self.auth)
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

/// How long the uses of the key by one client are one entry of the audit log.
const USE_GATHER: Duration = Duration::from_secs(60 * 60);
/// Clients whose uses are remembered; with more, the memory begins anew.
const USERS_MAX: usize = 1024;

/// The state of the routes, and what the API counts.
pub(crate) struct App {
    pub(crate) state: State,
    pub(crate) calls: Arc<Calls>,
    /// Held while the whole log is read: one verification at a time.
    pub(crate) verifying: tokio::sync::Mutex<()>,
    failures: Failures,
    /// How often those may ask the witness who need no key.
    pub(crate) strangers: Rate,
    started: Instant,
    /// End of the window in which failures are gathered, in milliseconds; 0 when none wait.
    flush_at_ms: AtomicU64,
    users: Mutex<BTreeMap<Client, Duration>>,
    sockets: Arc<Mutex<BTreeMap<Client, u32>>>,
    ids: RequestIds,
}

impl App {
    pub(crate) fn new(state: State) -> Self {
        Self {
            state,
            calls: Arc::default(),
            verifying: tokio::sync::Mutex::new(()),
            failures: Failures::new(),
            strangers: Rate::new(OF_WITNESS),
            started: Instant::now(),
            flush_at_ms: AtomicU64::new(0),
            users: Mutex::default(),
            sockets: Arc::default(),
            ids: RequestIds::new(),
        }
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn next_request_id(&self) -> HeaderValue {
        self.ids.next()
    }

    /// Counts a refused request; `Err` says how long the client should wait.
    pub(crate) fn on_denied(&self, client: Client, denial: Denial) -> Result<(), Duration> {
        let entries = self.failures.note(client, denial, self.uptime());
        self.log_failures(entries);
        let end = self.failures.window_end().unwrap_or_default();
        let end_ms = u64::try_from(end.as_millis()).unwrap_or(u64::MAX);
        self.flush_at_ms.store(end_ms, Ordering::Relaxed);
        self.failures.charge(client)
    }

    /// Writes what was gathered, once its window is over. Any request may be the one that does.
    pub(crate) fn flush_failures(&self) {
        let at_ms = self.flush_at_ms.load(Ordering::Relaxed);
        if at_ms == 0 || self.uptime() < Duration::from_millis(at_ms) {
            return;
        }
        self.flush_at_ms.store(0, Ordering::Relaxed);
        let entries = self.failures.flush(self.uptime());
        self.log_failures(entries);
    }

    fn log_failures(&self, entries: Vec<Entry>) {
        for entry in entries {
            let word = entry.denial.word();
            tracing::warn!(
                reason = word,
                count = entry.count,
                "requests refused: openfang audit show --filter auth_failed --reveal tells from where"
            );
            tracing::debug!(from = entry.from, reason = word, "requests refused");
            let reason = match entry.count {
                1 => word.to_owned(),
                count => format!("{word}, {count} times"),
            };
            self.state.auditor.note(Event::auth_failed(
                "api",
                Text::place(&entry.from),
                Public::text(&reason),
            ));
        }
    }

    /// Notes that the key was used, once an hour for each client.
    pub(crate) fn on_key_used(&self, client: Client, request: impl FnOnce() -> String) {
        let now = self.uptime();
        {
            let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
            if users
                .get(&client)
                .is_some_and(|last| now < *last + USE_GATHER)
            {
                return;
            }
            if users.len() >= USERS_MAX {
                users.clear();
            }
            users.insert(client, now);
        }
        self.state.auditor.note(Event::api_key(
            Text::place(&client.to_string()),
            Public::text(&request()),
        ));
    }

    /// Logs a change that is about to be made, and waits until the entry is what it must be. What this returns
    /// is to be told that the change was made.
    pub(crate) async fn announce(&self, event: Event) -> Result<Announced, ApiError> {
        let announced = self.state.auditor.announce(event).await;
        announced.map_err(|error| not_logged(&error))
    }

    /// As [`App::announce`], for what must be possible while nothing is signed: it ends the doubt.
    pub(crate) async fn announce_in_doubt(&self, event: Event) -> Result<Announced, ApiError> {
        let announced = self.state.auditor.announce_in_doubt(event).await;
        announced.map_err(|error| not_logged(&error))
    }

    /// Makes a change, to its end, whether its caller waits for it or goes away.
    pub(crate) async fn carry_out<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        let made = self.state.kernel.carry_out(change).await;
        made.unwrap_or_else(|| Err(ApiError::shutting_down()))
    }

    /// Takes one of the connections a client may have; given back when the guard is dropped.
    pub(crate) fn take_socket(&self, client: Client) -> Option<SocketGuard> {
        let mut sockets = lock(&self.sockets);
        let count = sockets.entry(client).or_default();
        if *count >= ws::CONNECTIONS_PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(SocketGuard {
            sockets: Arc::clone(&self.sockets),
            client,
        })
    }
}

/// One open WebSocket of a client.
pub(crate) struct SocketGuard {
    sockets: Arc<Mutex<BTreeMap<Client, u32>>>,
    client: Client,
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        let mut sockets = lock(&self.sockets);
        if let Some(count) = sockets.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                sockets.remove(&self.client);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Numbers requests: a number of this run of the node, and a count. Unique, not secret.
struct RequestIds {
    run: u32,
    count: AtomicU64,
}

impl RequestIds {
    fn new() -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        let random = RandomState::new().hash_one(0_u8);
        Self {
            run: u32::try_from(random >> 32).unwrap_or_default(),
            count: AtomicU64::new(0),
        }
    }

    fn next(&self) -> HeaderValue {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let number = u128::from(self.run) << 64 | u128::from(count);
        let mut text = [0; 24];
        for (at, byte) in text.iter_mut().enumerate() {
            let nibble = (number >> (4 * (23 - at))) & 0xf;
            *byte = usize::try_from(nibble).map_or(b'0', |nibble| DIGITS[nibble]);
        }
        HeaderValue::from_bytes(&text).expect("hexadecimal digits are a header value")
    }
}
