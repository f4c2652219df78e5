//! The agents of this node while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use openfang_id::{AgentId, AgentKey, AgentName};
use openfang_sandbox::Tier;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::{Limits, ModelConfig};
use crate::meter::Meter;
use crate::policy::Grants;
use crate::store::StoredAgent;
use crate::{AgentInfo, AgentState, Manifest, ManifestError, SpawnError, TurnError};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// What runs an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Module {
    Chat,
    Echo,
}

impl Module {
    /// Looks a module up by the text of a manifest.
    pub(crate) fn find(text: &str) -> Result<Self, SpawnError> {
        match text {
            "builtin:chat" => Ok(Self::Chat),
            "builtin:echo" => Ok(Self::Echo),
            other => match Tier::of_module(other) {
                Some(tier) => {
                    openfang_sandbox::find(tier)?;
                    Err(SpawnError::UnknownModule {
                        module: other.to_owned(),
                    })
                }
                None => Err(SpawnError::UnknownModule {
                    module: other.to_owned(),
                }),
            },
        }
    }
}

/// What an agent is made of; none for one that cannot run.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) manifest: Manifest,
    pub(crate) module: Module,
}

/// Why an agent that is stored cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// Its manifest cannot be read any more.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// What runs it is not there.
    #[error(transparent)]
    Module(#[from] SpawnError),
}

/// An agent while the node runs.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) id: AgentId,
    pub(crate) name: AgentName,
    /// Or why it cannot run.
    pub(crate) body: Result<Body, Unusable>,
    pub(crate) grants: Grants,
    /// How many messages it may have at a time, waiting ones included.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) tool_calls: Mutex<Meter>,
    pub(crate) tokens: Mutex<Meter>,
    created_ms: u64,
    active_ms: AtomicU64,
    running: AtomicUsize,
    /// One semaphore of one permit for each session that is in use.
    lanes: Mutex<BTreeMap<String, Weak<Semaphore>>>,
    stop: Mutex<Stop>,
}

/// Cuts the turns of an agent.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    pub(crate) token: CancellationToken,
    killed: Arc<Mutex<bool>>,
}

impl Stop {
    fn new() -> Self {
        Self {
            token: CancellationToken::new(),
            killed: Arc::default(),
        }
    }

    /// Returns what the callers of its turns are told.
    pub(crate) fn reason(&self) -> TurnError {
        if *lock(&self.killed) {
            TurnError::Killed
        } else {
            TurnError::Cancelled
        }
    }
}

/// Counts a turn as running for as long as it lives.
#[derive(Debug)]
pub(crate) struct Running(Arc<Agent>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Agent {
    pub(crate) fn new(stored: &StoredAgent, body: Result<Body, Unusable>, limits: &Limits) -> Self {
        let (grants, places) = match &body {
            // It keeps nothing between messages: only the node bounds how many it has.
            Ok(body) if body.module == Module::Echo => (Grants::of(&body.manifest), limits.turns),
            Ok(body) => (Grants::of(&body.manifest), limits.waiting_per_agent + 1),
            Err(_) => (Grants::none(), 1),
        };
        Self {
            id: stored.id,
            name: stored.name.clone(),
            body,
            grants,
            places: Arc::new(Semaphore::new(places)),
            tool_calls: Mutex::new(Meter::new(MINUTE)),
            tokens: Mutex::new(Meter::new(HOUR)),
            created_ms: stored.created_ms,
            active_ms: AtomicU64::new(stored.active_ms),
            running: AtomicUsize::new(0),
            lanes: Mutex::default(),
            stop: Mutex::new(Stop::new()),
        }
    }

    /// Returns the lane of a session: whoever holds its permit has the session for itself.
    pub(crate) fn lane(&self, session: &str) -> Arc<Semaphore> {
        let mut lanes = lock(&self.lanes);
        if let Some(lane) = lanes.get(session).and_then(Weak::upgrade) {
            return lane;
        }
        lanes.retain(|_, lane| lane.strong_count() > 0);
        let lane = Arc::new(Semaphore::new(1));
        lanes.insert(session.to_owned(), Arc::downgrade(&lane));
        lane
    }

    pub(crate) fn begin(self: &Arc<Self>, now_ms: u64) -> Running {
        self.active_ms.fetch_max(now_ms, Ordering::Relaxed);
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(Arc::clone(self))
    }

    pub(crate) fn stop(&self) -> Stop {
        lock(&self.stop).clone()
    }

    /// Cuts all turns that run or wait, and returns whether there were any.
    pub(crate) fn cut(&self, killed: bool) -> bool {
        let mut stop = lock(&self.stop);
        let old = std::mem::replace(&mut *stop, Stop::new());
        *lock(&old.killed) = killed;
        old.token.cancel();
        self.running.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn state(&self) -> AgentState {
        if self.body.is_ok() {
            AgentState::Running
        } else {
            AgentState::Crashed
        }
    }

    pub(crate) fn info(&self, default: &ModelConfig) -> AgentInfo {
        let mut info = AgentInfo {
            id: self.id,
            name: self.name.clone(),
            description: String::new(),
            version: String::new(),
            tags: Vec::new(),
            tools: self
                .grants
                .tools()
                .map(|tool| tool.name().to_owned())
                .collect(),
            state: self.state(),
            module: String::new(),
            model_provider: String::new(),
            model_name: String::new(),
            created_ms: self.created_ms,
            active_ms: self.active_ms.load(Ordering::Relaxed),
            busy: self.running.load(Ordering::Relaxed) > 0,
        };
        if let Ok(Body { manifest, module }) = &self.body {
            info.description.clone_from(&manifest.description);
            info.version.clone_from(&manifest.version);
            info.tags.clone_from(&manifest.tags);
            info.module.clone_from(&manifest.module);
            if *module == Module::Chat {
                let or = |text: &String, default: &String| {
                    if text.is_empty() {
                        default.clone()
                    } else {
                        text.clone()
                    }
                };
                info.model_provider = or(&manifest.model.provider, &default.provider);
                info.model_name = or(&manifest.model.model, &default.model);
            }
        }
        info
    }
}

/// All agents of the node.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    agents: BTreeMap<AgentId, Arc<Agent>>,
    names: BTreeMap<AgentName, AgentId>,
    reserved: BTreeSet<AgentName>,
}

/// A name that is kept free while its agent is being made.
#[derive(Debug)]
pub(crate) struct Reserved<'a> {
    registry: &'a Registry,
    name: AgentName,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        lock(&self.registry.0).reserved.remove(&self.name);
    }
}

impl Registry {
    /// Keeps a name free for an agent that is about to be made with this id.
    pub(crate) fn reserve(
        &self,
        name: &AgentName,
        id: AgentId,
        max: usize,
    ) -> Result<Reserved<'_>, SpawnError> {
        let mut entries = lock(&self.0);
        let duplicate = |holder| SpawnError::DuplicateName {
            name: name.clone(),
            holder,
        };
        if let Some(holder) = entries.names.get(name) {
            return Err(duplicate(*holder));
        }
        if entries.agents.len() + entries.reserved.len() >= max {
            return Err(SpawnError::TooMany { max });
        }
        if !entries.reserved.insert(name.clone()) {
            return Err(duplicate(id));
        }
        Ok(Reserved {
            registry: self,
            name: name.clone(),
        })
    }

    pub(crate) fn insert(&self, agent: Arc<Agent>) {
        let mut entries = lock(&self.0);
        entries.names.insert(agent.name.clone(), agent.id);
        entries.agents.insert(agent.id, agent);
    }

    pub(crate) fn remove(&self, id: AgentId) -> Option<Arc<Agent>> {
        let mut entries = lock(&self.0);
        let agent = entries.agents.remove(&id)?;
        entries.names.remove(&agent.name);
        Some(agent)
    }

    pub(crate) fn find(&self, key: &AgentKey) -> Option<Arc<Agent>> {
        let entries = lock(&self.0);
        let id = match key {
            AgentKey::Id(id) => id,
            AgentKey::Name(name) => entries.names.get(name)?,
        };
        entries.agents.get(id).cloned()
    }

    /// Returns all agents, by name.
    pub(crate) fn all(&self) -> Vec<Arc<Agent>> {
        let entries = lock(&self.0);
        let agent = |id| entries.agents.get(id).cloned();
        entries.names.values().filter_map(agent).collect()
    }
}

/// Takes a lock whose holder may have panicked: each is held for single steps only.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(seed: u8, name: &str) -> StoredAgent {
        StoredAgent {
            id: AgentId::from_random([seed; 16]),
            name: name.parse().expect("a name"),
            manifest: String::new(),
            file: None,
            created_ms: 1,
            active_ms: 1,
        }
    }

    fn agent(seed: u8, name: &str) -> Arc<Agent> {
        let manifest = Manifest::parse("name = \"t\"", "t").expect("a manifest").0;
        let body = Body {
            manifest,
            module: Module::Chat,
        };
        Arc::new(Agent::new(
            &stored(seed, name),
            Ok(body),
            &Limits::default(),
        ))
    }

    #[test]
    fn a_name_is_given_once() {
        let registry = Registry::default();
        let (one, other) = (agent(1, "one"), agent(2, "one"));
        let reserved = registry.reserve(&one.name, one.id, 2).expect("free");
        let taken = registry.reserve(&other.name, other.id, 2).map(|_| ());
        assert!(matches!(taken, Err(SpawnError::DuplicateName { .. })));
        registry.insert(Arc::clone(&one));
        drop(reserved);
        let taken = registry.reserve(&other.name, other.id, 2).map(|_| ());
        assert_eq!(
            taken,
            Err(SpawnError::DuplicateName {
                name: one.name.clone(),
                holder: one.id
            })
        );
        assert_eq!(registry.remove(one.id).map(|agent| agent.id), Some(one.id));
        assert!(registry.reserve(&other.name, other.id, 2).is_ok());
        assert_eq!(
            registry.reserve(&other.name, other.id, 0).map(|_| ()),
            Err(SpawnError::TooMany { max: 0 })
        );
    }

    #[test]
    fn modules_are_looked_up_and_never_guessed() {
        let code = |text: &str| Module::find(text).map_err(|error| error.code());
        assert_eq!(code("builtin:chat"), Ok(Module::Chat));
        assert_eq!(code("builtin:echo"), Ok(Module::Echo));
        assert_eq!(code("wasm:a.wasm"), Err("tier_missing"));
        assert_eq!(code("python:a.py"), Err("tier_missing"));
        assert_eq!(code("builtin:chta"), Err("unknown_module"));
        assert_eq!(code(""), Err("unknown_module"));
    }

    #[test]
    fn a_session_has_one_lane_for_as_long_as_it_is_used() {
        let agent = agent(1, "one");
        let lane = agent.lane("main");
        assert!(Arc::ptr_eq(&lane, &agent.lane("main")));
        assert!(!Arc::ptr_eq(&lane, &agent.lane("side")));
        drop(lane);
        agent.lane("third");
        assert!(lock(&agent.lanes).len() <= 2);
    }
}
