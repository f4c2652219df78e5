//! The kernel, as the rest of the node sees it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use openfang_audit::Outcome;
use openfang_id::{AgentId, AgentKey, AgentRef, NodeId, NodeKey, NodeName};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::away::{Away, Leaving};
use crate::delivery::check_size;
use crate::model::Client;
use crate::ports::{Neighbours, NodeLookup};
use crate::registry::{Module, Registry};
use crate::resolve::{Target, resolve};
use crate::run::{Job, run};
use crate::store::{Store, Thread};
use crate::tasks::{Tasks, drain};
use crate::{
    AgentInfo, Auditor, Config, Delivery, Listed, Looked, OpenError, Outgoing, SendError,
    TurnError, TurnEvent, TurnStream, clock, entropy, life,
};

/// How soon a caller that found no place is told to come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How much longer than its deadline a call to another node may take: that node keeps the deadline,
/// and its answer must travel.
const TRAVEL: Duration = Duration::from_secs(2);

/// How long turns that were cut have to tell their callers so.
const CUT_GRACE: Duration = Duration::from_secs(2);

/// A handle to the kernel; cheap to clone.
#[derive(Clone)]
pub struct Kernel(Arc<Inner>);

pub(crate) struct Inner {
    config: Config,
    store: Store,
    audit: Auditor,
    neighbours: Arc<dyn Neighbours>,
    client: Client,
    registry: Registry,
    tasks: Tasks,
    /// What is being changed: it outlives its callers.
    changes: Tasks,
    turns: Arc<tokio::sync::Semaphore>,
    opened: Instant,
    /// Takes no more messages.
    closing: CancellationToken,
    /// Cuts all turns.
    cut: CancellationToken,
}

/// Owns the turns and the database of the kernel; dropping it cuts them.
#[must_use = "dropping the owner stops the kernel"]
pub struct Owner {
    kernel: Kernel,
    thread: Option<Thread>,
}

impl Kernel {
    /// Opens the database, brings its agents back, and spawns those of the agents folder that are
    /// not there yet. An agent that cannot be brought back is listed as crashed, and logged.
    ///
    /// # Errors
    /// When the database or the model client cannot be used.
    pub async fn open(
        config: Config,
        audit: Auditor,
        neighbours: Arc<dyn Neighbours>,
    ) -> Result<(Self, Owner), OpenError> {
        let (store, thread) = Store::open(&config.data_dir)?;
        let client = Client::new(config.limits.model.clone())?;
        let kernel = Self(Arc::new(Inner {
            turns: Arc::new(tokio::sync::Semaphore::new(config.limits.turns)),
            config,
            store,
            audit,
            neighbours,
            client,
            registry: Registry::default(),
            tasks: Tasks::new(),
            changes: Tasks::new(),
            opened: Instant::now(),
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
        }));
        let owner = Owner {
            kernel: kernel.clone(),
            thread: Some(thread),
        };
        life::bring_back(&kernel).await?;
        life::spawn_from_folder(&kernel).await?;
        kernel.publish();
        Ok((kernel, owner))
    }

    /// Returns the agents of this node, by name.
    #[must_use]
    pub fn list(&self) -> Vec<AgentInfo> {
        let default = &self.0.config.default_model;
        self.0
            .registry
            .all()
            .iter()
            .map(|agent| agent.info(default))
            .collect()
    }

    /// Looks an agent of this node up.
    #[must_use]
    pub fn find(&self, key: &AgentKey) -> Option<AgentInfo> {
        let agent = self.0.registry.find(key)?;
        Some(agent.info(&self.0.config.default_model))
    }

    /// Returns what an agent of this node is told before every conversation; `None` for one without
    /// a model, and for one that is not here.
    #[must_use]
    pub fn system_prompt(&self, id: AgentId) -> Option<String> {
        let agent = self.0.registry.find(&AgentKey::Id(id))?;
        let body = agent.body.as_ref().ok()?;
        let thinks = body.module == Module::Chat;
        thinks.then(|| body.manifest.model.system_prompt.clone())
    }

    /// Returns the agents of the mesh: those of this node first, by name, then all others by node
    /// and name.
    #[must_use]
    pub fn directory(&self) -> Vec<Listed> {
        let me = self.me();
        let mut remote = self.0.neighbours.directory();
        remote.sort_by(|a, b| (a.node, &a.name, a.id).cmp(&(b.node, &b.name, b.id)));
        let here = self.list().into_iter().map(|agent| listed_here(agent, &me));
        here.chain(remote.into_iter().map(listed_there)).collect()
    }

    /// Sends a message to an agent anywhere in the mesh: the one way in for callers of the API and
    /// for agents. Without a node in the reference, an agent of this node is meant first; else, of
    /// those on reachable nodes, the one on the node with the lowest id.
    ///
    /// Cancel safety: dropping the future or the stream cancels the turn.
    ///
    /// # Errors
    /// When it was not taken; no turn has run then, except where the variant says so.
    pub async fn send(&self, to: AgentRef, message: Outgoing) -> Result<TurnStream, SendError> {
        if self.0.closing.is_cancelled() {
            return Err(SendError::ShuttingDown);
        }
        check_size(message.message.len(), message.path.len())?;
        let limit = self.0.config.limits.turn_timeout;
        let delivery = |agent| Delivery {
            call_id: message.call_id.unwrap_or_else(entropy::bytes16),
            from: None,
            agent,
            message: message.message,
            principal: message.principal,
            path: message.path,
            deadline: message.deadline.unwrap_or(limit).min(limit),
            cause: message.cause,
            sender: message.sender,
            session: message.session,
        };
        match self.resolve(&to)? {
            Target::Here { id, .. } => self.deliver(delivery(AgentKey::Id(id))).await,
            there @ Target::There { .. } => {
                let key = match &there {
                    Target::There { key, .. } => key.clone(),
                    Target::Here { id, .. } => AgentKey::Id(*id),
                };
                self.send_away(there, delivery(key)).await
            }
        }
    }

    /// Delivers a message to an agent of this node: the way in from the mesh. It is in the audit
    /// log before its turn runs.
    ///
    /// Cancel safety: dropping the future or the stream cancels the turn.
    ///
    /// # Errors
    /// When it was not taken; no turn has run then.
    pub async fn deliver(&self, delivery: Delivery) -> Result<TurnStream, SendError> {
        if self.0.closing.is_cancelled() {
            return Err(SendError::ShuttingDown);
        }
        let me = self.me();
        let after = delivery.deadline.min(self.0.config.limits.turn_timeout);
        let deadline = Instant::now() + after;
        let key = delivery.agent.clone();
        let their_cause = delivery
            .cause
            .as_deref()
            .and_then(|cause| cause.parse().ok());
        let arrived = delivery.check(me.0)?;
        let agent = self.0.registry.find(&key);
        let agent = agent.ok_or(SendError::UnknownAgent {
            looked_for: AgentRef {
                agent: key,
                node: None,
            },
            where_looked: Looked::Here(me.1),
        })?;
        if let Err(reason) = &agent.body {
            let (name, reason) = (agent.name.clone(), reason.to_string());
            return Err(SendError::NotRunning { name, reason });
        }
        let busy = |_none| SendError::Busy {
            retry_after: RETRY_AFTER,
        };
        let places = [
            Arc::clone(&self.0.turns)
                .try_acquire_owned()
                .map_err(busy)?,
            Arc::clone(&agent.places)
                .try_acquire_owned()
                .map_err(busy)?,
        ];
        // Taken before the wait for the log: a kill in between cuts this turn too.
        let stop = agent.stop();
        let running = agent.begin(clock::unix_ms());
        let entry = arrived.event(agent.id, their_cause.as_ref(), Outcome::Ok);
        let seq = self
            .0
            .audit
            .record(entry)
            .await
            .map_err(SendError::NotLogged)?;
        let (events, stream) = TurnStream::channel(self.0.config.limits.events);
        let job = Job {
            kernel: self.clone(),
            cause: self.0.audit.cause(seq),
            agent,
            arrived,
            events,
            deadline,
            after,
            stop,
            places,
            running,
        };
        if self.0.tasks.spawn(run(job)) {
            Ok(stream)
        } else {
            Err(SendError::ShuttingDown)
        }
    }

    /// [`Kernel::send`], for a tool within a turn: its type must not hold that of the turn.
    pub(crate) fn send_boxed(
        &self,
        to: AgentRef,
        message: Outgoing,
    ) -> BoxFuture<'static, Result<TurnStream, SendError>> {
        let kernel = self.clone();
        Box::pin(async move { kernel.send(to, message).await })
    }

    async fn send_away(
        &self,
        target: Target,
        mut delivery: Delivery,
    ) -> Result<TurnStream, SendError> {
        let Target::There {
            node,
            node_name,
            key,
            announced,
        } = target
        else {
            return Err(SendError::ShuttingDown);
        };
        let after = delivery.deadline.saturating_add(TRAVEL);
        let deadline = Instant::now() + after;
        // Where no agent asks, the entry names the one that is asked, if its id is known.
        let asked = match (&announced, &key) {
            (Some((id, _)), _) | (None, AgentKey::Id(id)) => *id,
            (None, AgentKey::Name(_)) => AgentId::from_bytes([0; 16]),
        };
        let asking = delivery.principal.as_agent().map(|(agent, _)| agent);
        let leaving = Leaving {
            agent: asking.unwrap_or(asked),
            peer: format!("{key}@{node}"),
            user: delivery.principal.to_string(),
            principal: delivery.principal.clone(),
            session: delivery.session.clone(),
        };
        let before = delivery
            .cause
            .as_deref()
            .and_then(|cause| cause.parse().ok());
        let entry = leaving.event(before.as_ref(), Outcome::Ok);
        let seq = self
            .0
            .audit
            .record(entry)
            .await
            .map_err(SendError::NotLogged)?;
        let cause = self.0.audit.cause(seq);
        delivery.cause = cause.as_ref().map(ToString::to_string);
        delivery.from = Some(self.me().0);
        let mut away = Away {
            inner: TurnStream::ended(),
            deadline: Box::pin(tokio::time::sleep_until(deadline)),
            after,
            audit: self.0.audit.clone(),
            leaving,
            cause,
            ended: false,
        };
        tracing::debug!(node.id = %node, node.name = %node_name, "a message leaves");
        let called = timeout_at(deadline, self.0.neighbours.call(node, delivery)).await;
        match called.unwrap_or(Err(SendError::TimedOut)) {
            Ok(inner) => {
                away.inner = inner;
                Ok(TurnStream::from_stream(away))
            }
            Err(error) => {
                let failed = TurnError::NotDelivered(Box::new(error.clone()));
                away.on_end(&TurnEvent::Failed(failed));
                Err(error)
            }
        }
    }

    pub(crate) fn resolve(&self, to: &AgentRef) -> Result<Target, SendError> {
        resolve(to, &self.0.registry, self.0.neighbours.as_ref())
    }

    pub(crate) fn node(&self, key: &NodeKey) -> NodeLookup {
        self.0.neighbours.node(key)
    }

    pub(crate) fn publish(&self) {
        self.0.neighbours.publish(self.list());
    }

    pub(crate) fn me(&self) -> (NodeId, NodeName) {
        self.0.neighbours.me()
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(crate) fn audit(&self) -> &Auditor {
        &self.0.audit
    }

    pub(crate) fn client(&self) -> &Client {
        &self.0.client
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    pub(crate) fn changes(&self) -> &Tasks {
        &self.0.changes
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.0.closing.is_cancelled()
    }

    pub(crate) fn cut_token(&self) -> CancellationToken {
        self.0.cut.clone()
    }

    /// Returns the time since the kernel opened.
    pub(crate) fn uptime(&self) -> Duration {
        self.0.opened.elapsed()
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").finish_non_exhaustive()
    }
}

impl Owner {
    /// Takes no more messages and changes, lets those that run or wait end within the grace period, cuts
    /// the rest, and closes the database.
    pub async fn shutdown(mut self, grace: Duration) {
        let inner = Arc::clone(&self.kernel.0);
        inner.closing.cancel();
        let mut turns = inner.tasks.close();
        let mut changes = inner.changes.close();
        let (turns_ended, changes_ended) =
            tokio::join!(drain(&mut turns, grace), drain(&mut changes, grace));
        if !changes_ended {
            tracing::warn!(
                changes = changes.len(),
                "changes are cut, and the audit log says so: the grace period is over"
            );
            changes.shutdown().await;
        }
        if !turns_ended {
            tracing::info!(
                turns = turns.len(),
                "turns are cut: the grace period is over"
            );
            inner.cut.cancel();
            if !drain(&mut turns, CUT_GRACE).await {
                turns.shutdown().await;
            }
        }
        inner.store.close().await;
        if let Some(thread) = self.thread.take()
            && let Err(why) = tokio::task::spawn_blocking(|| thread.join()).await
        {
            tracing::error!(%why, "the database was not closed in order");
        }
    }

    /// Waits until the kernel cannot go on: its database thread panicked. A turn that panics ends
    /// alone, and its caller is told.
    pub async fn ended(&mut self) {
        self.kernel.0.store.closed().await;
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let inner = &self.kernel.0;
        inner.closing.cancel();
        inner.cut.cancel();
        drop(inner.tasks.close());
        drop(inner.changes.close());
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Owner")
    }
}

fn listed_here(agent: AgentInfo, me: &(NodeId, NodeName)) -> Listed {
    Listed {
        node: me.0,
        node_name: me.1.clone(),
        reachable: true,
        id: agent.id,
        name: agent.name.clone(),
        description: agent.description.clone(),
        tags: agent.tags.clone(),
        tools: agent.tools.clone(),
        state: agent.state,
        module: agent.module.clone(),
        local: Some(agent),
    }
}

fn listed_there(agent: crate::ports::RemoteAgent) -> Listed {
    Listed {
        node: agent.node,
        node_name: agent.node_name,
        reachable: agent.reachable,
        id: agent.id,
        name: agent.name,
        description: agent.description,
        tags: agent.tags,
        tools: agent.tools,
        state: agent.state,
        module: agent.module,
        local: None,
    }
}
