//! The task that owns the swarm and the roster, and translates between them.
//!
//! One loop, no protocol: events of the swarm, messages of peers, commands of handles and the roster's
//! timer go in; what the roster wants is carried out. Asleep, it only waits for the command that wakes
//! it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openfang_audit::SignedHead;
use openfang_id::{NodeId, PeerAddr, SharedSecret};
use openfang_ofp::gate::Epoch;
use openfang_ofp::roster::{AgentAd, Ed25519, In, Known, LogKey, Start, State, View};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::awake::Awake;
use crate::clock::{Clock, unix_ms};
use crate::disk::Disk;
use crate::joins::{Before, JoinReply};
use crate::mesh::Status;
use crate::pool::Peers;
use crate::{Config, Host, JoinError, Joining, StartError, entropy, swarm};

/// How long the sockets of a mesh that fell asleep may take to be closed.
const RELEASE: Duration = Duration::from_secs(2);
/// How many pieces of evidence are kept to be shown again; at most 4 MiB.
const EVIDENCE_MAX: usize = 1_024;

/// What handles ask of the driver.
#[derive(Debug)]
pub(crate) enum Command {
    /// Connect to a mesh.
    Join {
        addrs: Vec<PeerAddr>,
        secret: Option<(Epoch, SharedSecret)>,
        joining: Joining,
        reply: JoinReply,
    },
    /// Connect to a node of the roster, for a call.
    Connect { node: NodeId },
    /// Convict by evidence that was found.
    Evidence { file: Vec<u8> },
    /// Leave the mesh and end.
    Shutdown {
        grace: Duration,
        reply: oneshot::Sender<()>,
    },
}

/// What the driver listens to besides the network.
pub(crate) struct Inputs {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) agents: watch::Receiver<Option<Vec<AgentAd>>>,
    pub(crate) head: watch::Receiver<Option<SignedHead>>,
    /// Ends everything at once.
    pub(crate) closing: CancellationToken,
}

/// What handles read.
pub(crate) struct Outputs {
    pub(crate) view: watch::Receiver<Arc<View>>,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) secret: watch::Receiver<Option<(Epoch, SharedSecret)>>,
}

/// Where the driver tells what is.
pub(crate) struct Tell {
    pub(crate) view: watch::Sender<Arc<View>>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) secret: watch::Sender<Option<(Epoch, SharedSecret)>>,
}

/// What stays the same whether the mesh sleeps or not.
pub(crate) struct Base {
    pub(crate) config: Config,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) clock: Clock,
    pub(crate) disk: Disk,
    pub(crate) peers: Arc<Peers>,
    pub(crate) tell: Tell,
}

struct Driver {
    base: Arc<Base>,
    inputs: Inputs,
    awake: Option<Box<Awake>>,
    /// What convicts others, for each time the mesh wakes.
    evidence: Vec<Vec<u8>>,
    /// When the mesh fell asleep. Its sockets are closed soon after, not at once.
    slept: Option<Instant>,
}

/// Makes the driver, awake when the configuration has a secret. Its future must be run by a task.
pub(crate) async fn start(
    config: Config,
    host: Arc<dyn Host>,
    inputs: Inputs,
    peers: Arc<Peers>,
) -> Result<(impl Future<Output = ()> + Send + use<>, Outputs), StartError> {
    let disk = Disk::open(&config.state_dir)?;
    let clock = Clock::new();
    let asleep = Arc::new(lone_view(&config, clock));
    let (view, view_seen) = watch::channel(asleep);
    let (status, status_seen) = watch::channel(Status::Asleep);
    let (secret, secret_seen) = watch::channel(None);
    let outputs = Outputs {
        view: view_seen,
        status: status_seen,
        secret: secret_seen,
    };
    let wake_with = config.secret.clone();
    let evidence = config.evidence.iter().take(EVIDENCE_MAX).cloned().collect();
    let base = Arc::new(Base {
        config,
        host,
        clock,
        disk,
        peers,
        tell: Tell {
            view,
            status,
            secret,
        },
    });
    let mut driver = Driver {
        base,
        inputs,
        awake: None,
        evidence,
        slept: None,
    };
    if let Some(secret) = wake_with {
        driver.wake(secret).await?;
    }
    Ok((driver.run(), outputs))
}

/// Returns what a node sees that knows nobody.
fn lone_view(config: &Config, clock: Clock) -> View {
    let start = Start {
        incarnation: 0,
        known: Known::default(),
        seed: [0; 32],
        unix_ms: unix_ms(),
    };
    let crypto = Box::new(Ed25519(config.keys.identity.clone()));
    let mut state = State::new(roster_config(config), crypto, start, clock.now());
    // With the first timer it signs its own record; what else it wants is not done.
    drop(state.handle(In::Timer, clock.now()));
    state.view()
}

/// Returns the part of the configuration that is the roster's.
pub(crate) fn roster_config(config: &Config) -> openfang_ofp::roster::Config {
    let log = config.log_epoch.map(|epoch| LogKey {
        key: config.keys.log.verifying_key().to_bytes(),
        epoch,
    });
    openfang_ofp::roster::Config {
        me: config.keys.node_id(),
        name: config.name.clone(),
        software: config.version.clone(),
        log,
        cosigners: config.cosigners,
        nodes_max: openfang_ofp::roster::NODES_MAX,
    }
}

impl Driver {
    async fn run(mut self) {
        loop {
            let go_on = match &mut self.awake {
                Some(awake) => {
                    tokio::select! {
                        () = self.inputs.closing.cancelled() => false,
                        command = self.inputs.commands.recv() => self.on_command(command).await,
                        changed = self.inputs.agents.changed() => {
                            let agents = self.inputs.agents.borrow_and_update().clone();
                            if let Some(agents) = agents {
                                awake.set_agents(agents);
                            }
                            changed.is_ok()
                        }
                        changed = self.inputs.head.changed() => {
                            let head = self.inputs.head.borrow_and_update().clone();
                            awake.set_head(head);
                            changed.is_ok()
                        }
                        () = awake.turn() => true,
                    }
                }
                None => {
                    tokio::select! {
                        () = self.inputs.closing.cancelled() => false,
                        command = self.inputs.commands.recv() => self.on_command(command).await,
                    }
                }
            };
            if !go_on {
                break;
            }
            self.after_turn();
        }
    }

    /// Ends joins that are over, and shows what has changed.
    fn after_turn(&mut self) {
        let Some(awake) = &mut self.awake else {
            return;
        };
        let (failed, sleep_again) = awake.failed_joins();
        awake.publish();
        if sleep_again {
            self.fall_asleep();
        }
        for join in failed {
            join.fail();
        }
    }

    async fn on_command(&mut self, command: Option<Command>) -> bool {
        match command {
            None => false,
            Some(Command::Join {
                addrs,
                secret,
                joining,
                reply,
            }) => {
                self.join(addrs, secret, (reply, joining)).await;
                true
            }
            Some(Command::Connect { node }) => {
                if let Some(awake) = &mut self.awake {
                    awake.connect(node);
                }
                true
            }
            Some(Command::Evidence { file }) => {
                self.add_evidence(file);
                true
            }
            Some(Command::Shutdown { grace, reply }) => {
                if let Some(awake) = self.awake.take() {
                    awake.leave(grace).await;
                }
                self.base.tell.status.send_replace(Status::Asleep);
                crate::ignore_gone(reply.send(()));
                false
            }
        }
    }

    /// Takes evidence, for now and for when a mesh that sleeps wakes.
    fn add_evidence(&mut self, file: Vec<u8>) {
        if let Some(awake) = &mut self.awake {
            awake.tell_roster(In::AddEvidence(vec![file.clone()]));
        }
        if self.evidence.len() < EVIDENCE_MAX {
            self.evidence.push(file);
        }
    }

    async fn join(
        &mut self,
        addrs: Vec<PeerAddr>,
        secret: Option<(Epoch, SharedSecret)>,
        (reply, joining): (JoinReply, Joining),
    ) {
        let before = match (&mut self.awake, secret) {
            (None, None) => {
                return crate::ignore_gone(reply.send(Err(JoinError::NoSecret)));
            }
            (None, Some(secret)) => match self.wake(secret).await {
                Ok(()) => Before::Asleep,
                Err(why) => {
                    return crate::ignore_gone(reply.send(Err(JoinError::Start(why))));
                }
            },
            (Some(_), None) => Before::Awake(None),
            (Some(awake), Some(secret)) => match awake.change_secret(secret) {
                Ok(before) => Before::Awake(before),
                Err(other) => return crate::ignore_gone(reply.send(Err(other))),
            },
        };
        if let Some(awake) = &mut self.awake {
            awake.join(addrs, (reply, joining), before);
        }
    }

    async fn wake(&mut self, secret: (Epoch, SharedSecret)) -> Result<(), StartError> {
        if let Some(slept) = self.slept {
            swarm::released(&self.base.config.listen, slept + RELEASE).await;
        }
        let incarnation = self.base.disk.next_incarnation()?;
        let crypto = Ed25519(self.base.config.keys.identity.clone());
        let start = Start {
            incarnation,
            known: self.base.disk.load_known(&crypto),
            seed: entropy::bytes().map_err(|why| StartError::Transport {
                reason: why.to_string(),
            })?,
            unix_ms: unix_ms(),
        };
        let mut awake = Awake::start(Arc::clone(&self.base), start, secret).await?;
        awake.tell_roster(In::AddEvidence(self.evidence.clone()));
        if let Some(agents) = self.inputs.agents.borrow_and_update().clone() {
            awake.set_agents(agents);
        }
        awake.set_head(self.inputs.head.borrow_and_update().clone());
        awake.publish();
        self.awake = Some(Box::new(awake));
        Ok(())
    }

    fn fall_asleep(&mut self) {
        self.awake = None;
        self.slept = Some(Instant::now());
        let tell = &self.base.tell;
        tell.status.send_replace(Status::Asleep);
        tell.secret.send_replace(None);
        let view = lone_view(&self.base.config, self.base.clock);
        tell.view.send_replace(Arc::new(view));
    }
}
