//! What the tests share: a kernel with a home, a scripted model server, neighbours in memory and an
//! audit log that can fail.

mod fake;
mod log;
mod wire;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use openfang_kernel::ports::Neighbours;
use openfang_kernel::{
    AgentInfo, Auditor, Config, Kernel, Limits, Manifest, ModelConfig, ModelKeys, ModelLimits,
    Outgoing, Owner, Principal, SendError, TurnEvent, TurnStream,
};
use tempfile::TempDir;

pub(crate) use fake::{Fake, Reply, calls, last_message, says};
pub(crate) use log::Recorder;
pub(crate) use wire::{Port, Wire};

/// The key the node gives to its model server.
pub(crate) const KEY: &str = "sk-canary-0123456789";

/// A node: a kernel and where it lives.
pub(crate) struct Node {
    pub(crate) home: TempDir,
    pub(crate) kernel: Kernel,
    pub(crate) owner: Owner,
    pub(crate) log: Recorder,
}

/// How a node is made.
pub(crate) struct Plan {
    pub(crate) base_url: String,
    pub(crate) limits: Limits,
    pub(crate) neighbours: Arc<dyn Neighbours>,
}

impl Plan {
    pub(crate) fn with(base_url: &str) -> Self {
        Self {
            base_url: base_url.to_owned(),
            limits: quick_limits(),
            neighbours: Wire::new().node("alpha"),
        }
    }

    pub(crate) async fn start(self) -> Node {
        let home = tempfile::tempdir().expect("a folder");
        self.start_in(home, Recorder::new()).await
    }

    pub(crate) async fn start_in(self, home: TempDir, log: Recorder) -> Node {
        let config = config(home.path(), &self.base_url, self.limits);
        let opened = Kernel::open(config, Auditor::new(log.clone()), self.neighbours).await;
        let (kernel, owner) = opened.expect("the kernel opens");
        Node {
            home,
            kernel,
            owner,
            log,
        }
    }
}

/// A node whose agents think with this server.
pub(crate) async fn node(model: &Fake) -> Node {
    Plan::with(&model.base_url()).start().await
}

pub(crate) fn quick_limits() -> Limits {
    Limits {
        model: ModelLimits {
            attempts: 3,
            backoff_base: Duration::from_millis(1),
            backoff_max: Duration::from_millis(2),
            ..ModelLimits::default()
        },
        ..Limits::default()
    }
}

pub(crate) fn config(home: &Path, base_url: &str, limits: Limits) -> Config {
    Config {
        data_dir: home.join("data"),
        agents_dir: home.join("agents"),
        default_model: ModelConfig {
            provider: "custom".to_owned(),
            model: "test-model".to_owned(),
            api_key: Some(KEY.to_owned().into()),
            base_url: Some(base_url.to_owned()),
        },
        model_keys: ModelKeys::default(),
        limits,
    }
}

impl Node {
    pub(crate) async fn spawn(&self, toml: &str) -> AgentInfo {
        let spawned = self
            .kernel
            .spawn(manifest(toml), &Principal::api_key())
            .await;
        spawned.expect("the agent is spawned")
    }

    pub(crate) async fn send(&self, to: &str, message: &str) -> Result<TurnStream, SendError> {
        self.kernel
            .send(to.parse().expect("a reference"), from_api(message))
            .await
    }

    /// Sends a message and returns all that came back.
    pub(crate) async fn ask(&self, to: &str, message: &str) -> Vec<TurnEvent> {
        let stream = self.send(to, message).await.expect("the message is taken");
        stream.collect().await
    }

    /// Closes the node and gives its home back.
    pub(crate) async fn stop(self) -> (TempDir, Recorder) {
        self.owner.shutdown(Duration::from_secs(30)).await;
        (self.home, self.log)
    }
}

pub(crate) fn manifest(toml: &str) -> Manifest {
    Manifest::parse(toml, "agent.toml")
        .expect("a valid manifest")
        .0
}

/// The manifest of a thinking agent with these tools.
pub(crate) fn chat(name: &str, tools: &str) -> String {
    format!("name = \"{name}\"\n[capabilities]\ntools = [{tools}]\n")
}

pub(crate) fn echo(name: &str) -> String {
    format!("name = \"{name}\"\nmodule = \"builtin:echo\"\n")
}

pub(crate) fn from_api(message: &str) -> Outgoing {
    Outgoing::new(message, Principal::api_key())
}

/// The pieces of an answer.
pub(crate) fn chunks(events: &[TurnEvent]) -> Vec<&str> {
    fn text(event: &TurnEvent) -> Option<&str> {
        match event {
            TurnEvent::Chunk { text } => Some(text),
            TurnEvent::ToolStart { .. }
            | TurnEvent::ToolEnd { .. }
            | TurnEvent::Done(_)
            | TurnEvent::Failed(_) => None,
        }
    }
    events.iter().filter_map(text).collect()
}

/// The answer of a turn that went well.
pub(crate) fn answer(events: &[TurnEvent]) -> &str {
    match events.last() {
        Some(TurnEvent::Done(done)) => &done.response,
        other => panic!("the turn should have ended well: {other:?}"),
    }
}

/// The stable word for the failure of a turn.
pub(crate) fn failure(events: &[TurnEvent]) -> String {
    match events.last() {
        Some(TurnEvent::Failed(error)) => error.code().to_owned(),
        other => panic!("the turn should have failed: {other:?}"),
    }
}
