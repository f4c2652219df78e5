//! The handle of the mesh, for everyone, and its owner, for one.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use openfang_audit::SignedHead;
use openfang_id::{NetAddr, NodeId, PeerAddr, SharedSecret, Transport};
use openfang_ofp::call;
use openfang_ofp::gate::Epoch;
use openfang_ofp::roster::{AgentAd, View};
use openfang_ofp::ticket::{ADDRS_PER_NODE_MAX, Ticket};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::{self, Reply};
use crate::config::Config;
use crate::driver::{self, Command};
use crate::exchange;
use crate::pool::Peers;
use crate::{Answer, AskError, CallError, Host, JoinError, Question, StartError, TicketError};

/// How many commands may wait for the driver; it does nothing that takes long.
const COMMANDS: usize = 64;

/// Whether the mesh is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It has no secret: no port is bound, nobody is dialled.
    Asleep,
    /// It is on.
    Awake {
        /// The addresses it listens on, one for each interface.
        listen: Vec<NetAddr>,
        /// Those among them that another machine can use.
        reachable: Vec<NetAddr>,
    },
}

/// A successful join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The member that was reached.
    pub node: NodeId,
    /// How.
    pub transport: Transport,
    /// Where.
    pub addr: PeerAddr,
}

/// The mesh, from inside the node: cheap to clone, safe to share.
#[derive(Clone)]
pub struct Mesh {
    shared: Arc<Shared>,
}

/// What all handles share.
pub(crate) struct Shared {
    pub(crate) me: NodeId,
    pub(crate) peers: Arc<Peers>,
    pub(crate) view: watch::Receiver<Arc<View>>,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) commands: mpsc::Sender<Command>,
    /// Fires when this node shuts down.
    pub(crate) closing: CancellationToken,
    pub(crate) takebacks: mpsc::Sender<client::Takeback>,
    /// The host may know the mesh: the driver alone keeps it.
    host: Weak<dyn Host>,
    secret: watch::Receiver<Option<(Epoch, SharedSecret)>>,
    agents: watch::Sender<Option<Vec<AgentAd>>>,
    head: watch::Sender<Option<SignedHead>>,
}

/// Owns the tasks of the mesh. Dropped without [`shutdown`](Self::shutdown), it ends them at once and
/// says no farewell: to the others that is a crash.
#[must_use = "dropping the owner ends the mesh"]
pub struct Owner {
    tasks: JoinSet<()>,
    /// Keeps the mesh when nobody else holds a handle.
    mesh: Mesh,
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh")
            .field("me", &self.shared.me)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owner").finish_non_exhaustive()
    }
}

impl Mesh {
    /// Starts the mesh. With a secret, its ports are bound and the addresses known when this returns;
    /// without one it sleeps.
    ///
    /// # Errors
    /// When an address cannot be listened on, or the state folder cannot be used. Nothing is left
    /// running then.
    pub async fn start(config: Config, host: Arc<dyn Host>) -> Result<(Self, Owner), StartError> {
        let (commands, command_queue) = mpsc::channel(COMMANDS);
        let closing = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (agents, agents_seen) = watch::channel(None);
        let (head, head_seen) = watch::channel(None);
        let inputs = driver::Inputs {
            commands: command_queue,
            agents: agents_seen,
            head: head_seen,
            closing: closing.clone(),
        };
        let me = config.keys.node_id();
        let peers = Arc::new(Peers::new(config.limits.calls_waiting_per_peer));
        let weak = Arc::downgrade(&host);
        let (driver, outputs) = driver::start(config, host, inputs, Arc::clone(&peers)).await?;
        let (takebacks, takeback_queue) = mpsc::channel(client::TAKEBACKS);
        tasks.spawn(client::take_back_all(takeback_queue, closing.clone()));
        tasks.spawn(driver);
        let shared = Shared {
            me,
            peers,
            view: outputs.view,
            status: outputs.status,
            host: weak,
            secret: outputs.secret,
            commands,
            closing,
            takebacks,
            agents,
            head,
        };
        let mesh = Self {
            shared: Arc::new(shared),
        };
        let owner = Owner {
            tasks,
            mesh: mesh.clone(),
        };
        Ok((mesh, owner))
    }

    /// Returns who this node is.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.shared.me
    }

    /// Returns whether the mesh is on, and where it listens.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status.borrow().clone()
    }

    /// Returns the latest view of the roster.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.shared.view.borrow())
    }

    /// Returns a watch on the view: it wakes on every change.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<Arc<View>> {
        self.shared.view.clone()
    }

    /// Announces the agents of this node, all of them, replacing what was announced before.
    pub fn set_agents(&self, agents: Vec<AgentAd>) {
        self.shared.agents.send_replace(Some(agents));
    }

    /// Announces the head of this node's audit log.
    pub fn set_head(&self, head: SignedHead) {
        self.shared.head.send_replace(Some(head));
    }

    /// Announces no head any more, until the next [`set_head`](Self::set_head): whoever is met from now on
    /// sees none.
    pub fn hide_head(&self) {
        self.shared.head.send_replace(None);
    }

    /// Shows the mesh evidence that this node has found: a file as `openfang-audit` writes it. Whom it
    /// convicts is told as [`openfang_ofp::roster::Event::Convicted`], and everyone is told.
    pub async fn add_evidence(&self, file: Vec<u8>) {
        let sent = self.shared.commands.send(Command::Evidence { file }).await;
        crate::ignore_gone(sent);
    }

    /// Calls an agent of another node and waits for the first piece of its answer. The call is taken
    /// back when this future or the [`Reply`] is dropped.
    ///
    /// When the connection breaks before the end, the call is taken up again over the next one with
    /// the same id, until the deadline of the request: the agent runs once, and no piece is given
    /// twice.
    ///
    /// # Errors
    /// See [`CallError`]; what the other node answered instead of a first piece is
    /// [`CallError::Failed`].
    pub async fn call(&self, node: NodeId, request: call::Request) -> Result<Reply, CallError> {
        client::call(Arc::clone(&self.shared), node, request).await
    }

    /// Asks a node about audit logs and waits for its answer until `deadline`. Connects to the node
    /// first when there is no connection. Cancel-safe.
    ///
    /// # Errors
    /// See [`AskError`]. An answer that says no is none of them: see its status.
    pub async fn ask(
        &self,
        node: NodeId,
        question: Question,
        deadline: Instant,
    ) -> Result<Answer, AskError> {
        exchange::ask(Arc::clone(&self.shared), node, question, deadline).await
    }

    /// Connects to a mesh through any of its members, and wakes a sleeping mesh, once the node is ready
    /// for it ([`Host::joining`]). Waits until one of
    /// the addresses is connected, at most ten seconds. Dropping the future does
    /// not stop the join.
    ///
    /// # Errors
    /// When no member was reached, with what happened at each address. The mesh is then as it was
    /// before: one that slept sleeps on, and the addresses are forgotten.
    pub async fn join(
        &self,
        addrs: Vec<PeerAddr>,
        secret: Option<(Epoch, SharedSecret)>,
    ) -> Result<Joined, JoinError> {
        if addrs.is_empty() {
            return Err(JoinError::NoAddress);
        }
        let host = self.shared.host.upgrade();
        let joining = host.ok_or(JoinError::ShuttingDown)?.joining();
        let joining = joining.await;
        let (reply, answer) = oneshot::channel();
        let command = Command::Join {
            addrs,
            secret,
            joining,
            reply,
        };
        let sent = self.shared.commands.send(command).await;
        sent.map_err(|_closed| JoinError::ShuttingDown)?;
        answer.await.map_err(|_closed| JoinError::ShuttingDown)?
    }

    /// Makes an invitation: this node's addresses and the secret of the mesh.
    ///
    /// # Errors
    /// While the mesh sleeps, or when this node listens nowhere.
    pub fn ticket(&self) -> Result<Ticket, TicketError> {
        let secret = self.shared.secret.borrow().clone();
        let (epoch, secret) = secret.ok_or(TicketError::Asleep)?;
        let Status::Awake { reachable, .. } = self.status() else {
            return Err(TicketError::Asleep);
        };
        let peers: Vec<PeerAddr> = reachable
            .into_iter()
            .take(ADDRS_PER_NODE_MAX)
            .map(|addr| PeerAddr {
                addr,
                node: Some(self.shared.me),
            })
            .collect();
        Ticket::new(peers, epoch, secret).map_err(|_no_address| TicketError::NoAddress)
    }
}

impl Owner {
    /// Leaves the mesh: takes no more calls, lets running ones finish within `grace`, tells the others,
    /// closes every connection and ends every task.
    pub async fn shutdown(mut self, grace: Duration) {
        let (reply, done) = oneshot::channel();
        let command = Command::Shutdown { grace, reply };
        if self.mesh.shared.commands.send(command).await.is_ok() {
            crate::ignore_gone(done.await);
        }
        self.mesh.shared.closing.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    /// Waits until the mesh ends on its own, which it does only when a part of it panicked.
    pub fn ended(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.tasks.join_next().await;
        })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.mesh.shared.closing.cancel();
    }
}
