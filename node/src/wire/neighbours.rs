//! The mesh, as the kernel wants its neighbours.

use std::fmt;
use std::sync::{Arc, OnceLock};

use futures::StreamExt as _;
use futures::future::BoxFuture;
use openfang_id::{AgentRef, NodeId, NodeKey, NodeName};
use openfang_kernel::ports::{Neighbours, NodeLookup, RemoteAgent};
use openfang_kernel::{AgentInfo, Delivery, SendError, TurnError, TurnEvent, TurnStream};
use openfang_mesh::{CallError, Mesh, Reply};
use openfang_ofp::call::{Failure, Frame};
use openfang_ofp::roster::Liveness;

use super::convert::{self, About, Remote};
use super::events::Recorder;

/// The neighbours of this node: nobody until the mesh is attached.
pub(crate) struct MeshNeighbours {
    me: NodeId,
    name: NodeName,
    mesh: OnceLock<Mesh>,
    recorder: Arc<Recorder>,
}

impl MeshNeighbours {
    /// A node that knows nobody yet.
    pub(crate) fn new(me: NodeId, name: NodeName, recorder: Arc<Recorder>) -> Self {
        Self {
            me,
            name,
            mesh: OnceLock::new(),
            recorder,
        }
    }

    /// Connects the mesh, once, and announces the agents that were there before it.
    pub(crate) fn attach(&self, mesh: Mesh, agents: Vec<AgentInfo>) {
        let mesh = self.mesh.get_or_init(|| mesh);
        mesh.set_agents(agents.into_iter().map(convert::ad).collect());
    }

    fn remote(&self, id: NodeId) -> Remote {
        let name = self.mesh.get().and_then(|mesh| {
            let view = mesh.view();
            let node = view.node(&id)?;
            Some(node.record.record().name.clone())
        });
        Remote { id, name }
    }
}

impl fmt::Debug for MeshNeighbours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshNeighbours({})", self.name)
    }
}

impl Neighbours for MeshNeighbours {
    fn directory(&self) -> Vec<RemoteAgent> {
        let Some(mesh) = self.mesh.get() else {
            return Vec::new();
        };
        let view = mesh.view();
        let others = view
            .nodes
            .iter()
            .filter(|node| node.liveness != Liveness::Me);
        let welcome = others.filter(|node| self.recorder.quarantine().barred(&node.id).is_none());
        welcome.flat_map(convert::remote_agents).collect()
    }

    fn me(&self) -> (NodeId, NodeName) {
        (self.me, self.name.clone())
    }

    fn node(&self, key: &NodeKey) -> NodeLookup {
        let me = (self.me, &self.name);
        let Some(mesh) = self.mesh.get() else {
            return NodeLookup::among(key, me, []);
        };
        let view = mesh.view();
        let all = view.nodes.iter().map(|node| {
            let name = node.record.record().name.clone();
            (node.id, name, node.liveness.is_reachable())
        });
        NodeLookup::among(key, me, all)
    }

    fn call(
        &self,
        node: NodeId,
        call: Delivery,
    ) -> BoxFuture<'static, Result<TurnStream, SendError>> {
        let about = About {
            node: self.remote(node),
            agent: AgentRef {
                agent: call.agent.clone(),
                node: Some(NodeKey::Id(node)),
            },
            message_bytes: call.message.len(),
            depth: call.path.len(),
            deadline: call.deadline,
        };
        if let Some(barred) = self.recorder.quarantine().barred(&node) {
            self.recorder.kept_away(&barred, "it was not called");
            let refused = convert::kept_away(&barred, &about);
            return Box::pin(std::future::ready(Err(refused)));
        }
        let mesh = self.mesh.get().cloned();
        let recorder = Arc::clone(&self.recorder);
        Box::pin(async move {
            let Some(mesh) = mesh else {
                return Err(convert::call_error(CallError::Asleep, &about));
            };
            match mesh
                .call(node, convert::request(call, recorder.hlc()))
                .await
            {
                Ok(reply) => Ok(events(reply, about, recorder)),
                Err(CallError::Failed(
                    failure
                    @ (Failure::AgentFailed { .. } | Failure::Cancelled | Failure::TimedOut),
                )) => {
                    let failed = TurnEvent::Failed(convert::turn_error(failure, &about));
                    Ok(TurnStream::from_stream(futures::stream::iter([failed])))
                }
                // It had left, and may have run.
                Err(CallError::Lost { .. }) => {
                    let cut = TurnEvent::Failed(TurnError::Cut);
                    Ok(TurnStream::from_stream(futures::stream::iter([cut])))
                }
                Err(why) => Err(convert::call_error(why, &about)),
            }
        })
    }

    fn publish(&self, agents: Vec<AgentInfo>) {
        if let Some(mesh) = self.mesh.get() {
            mesh.set_agents(agents.into_iter().map(convert::ad).collect());
        }
    }
}

/// Turns the pieces of an answer into events. Dropping the stream drops the reply: that cancels.
fn events(reply: Reply, about: About, recorder: Arc<Recorder>) -> TurnStream {
    let node = about.node.id;
    let seen = reply.inspect(move |piece| {
        if let Ok(Frame::End(end)) = piece {
            recorder.observe(&node, end.hlc);
        }
    });
    TurnStream::from_stream(translate(seen, about))
}

fn translate(
    frames: impl futures::Stream<Item = Result<Frame, CallError>> + Send + 'static,
    about: About,
) -> impl futures::Stream<Item = TurnEvent> + Send + 'static {
    let mut text = String::new();
    frames.map(move |piece| match piece {
        Ok(frame) => convert::event(frame, &mut text, &about),
        Err(CallError::Failed(failure)) => TurnEvent::Failed(convert::turn_error(failure, &about)),
        Err(CallError::TimedOut) => TurnEvent::Failed(TurnError::TimedOut {
            after: about.deadline,
        }),
        Err(CallError::Lost { .. }) => TurnEvent::Failed(TurnError::Cut),
        Err(why) => TurnEvent::Failed(TurnError::NotDelivered(Box::new(convert::call_error(
            why, &about,
        )))),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use openfang_audit::Hash;
    use openfang_audit::evidence::EvidenceKind;
    use openfang_id::NodeSeed;
    use openfang_kernel::Principal;
    use openfang_mesh::Conviction;

    use super::*;
    use crate::evidence::{self, Notice};

    fn id(byte: u8) -> NodeId {
        NodeSeed::from_bytes([byte; 32]).keys().node_id()
    }

    #[tokio::test]
    async fn a_node_that_evidence_convicts_is_not_called() {
        let folder = tempfile::tempdir().expect("a folder");
        let opened = evidence::open(folder.path(), id(1), [id(3)].into());
        for byte in [2, 3] {
            opened.desk.convicted(Notice {
                node: id(byte),
                conviction: Conviction {
                    kind: EvidenceKind::Fork,
                    evidence: Hash::from_bytes([0xab; 32]),
                },
                evidence: b"{}"[..].into(),
            });
        }
        let recorder = Arc::new(Recorder::new(None, opened.desk));
        let name: NodeName = "a".parse().expect("a name");
        let neighbours = MeshNeighbours::new(id(1), name, recorder);
        let call = async |to: u8| {
            let delivery = Delivery {
                call_id: [1; 16],
                from: None,
                agent: "echo".parse().expect("an agent"),
                message: "hello".to_owned(),
                principal: Principal::node(),
                path: Vec::new(),
                deadline: Duration::from_secs(1),
                cause: None,
                sender: None,
                session: None,
            };
            neighbours.call(id(to), delivery).await.err()
        };
        let refused = call(2).await.expect("refused");
        assert_eq!(refused.code(), "node_convicted");
        assert!(refused.to_string().contains(&"ab".repeat(32)), "{refused}");
        // Others are looked for: there is no mesh here.
        for byte in [3, 4] {
            assert_eq!(
                call(byte).await.expect("refused").code(),
                "node_unreachable"
            );
        }
    }
}
