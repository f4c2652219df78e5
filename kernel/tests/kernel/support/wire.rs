//! Neighbours in memory.

use std::sync::{Arc, Mutex, OnceLock};

use futures::future::BoxFuture;
use openfang_id::{NodeId, NodeKey, NodeName, NodeSeed};
use openfang_kernel::ports::{Neighbours, NodeLookup, RemoteAgent};
use openfang_kernel::{AgentInfo, Delivery, Kernel, SendError, TurnStream};

/// Joins kernels in memory.
#[derive(Clone, Default)]
pub(crate) struct Wire(Arc<Mutex<Vec<Arc<Port>>>>);

/// One end of the wire.
pub(crate) struct Port {
    wire: Wire,
    id: NodeId,
    name: NodeName,
    kernel: OnceLock<Kernel>,
    reachable: Mutex<bool>,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn node(&self, name: &str) -> Arc<Port> {
        let mut ports = self.0.lock().expect("no panic");
        let seed = u8::try_from(ports.len()).expect("few nodes") + 1;
        let port = Arc::new(Port {
            wire: self.clone(),
            id: NodeSeed::from_bytes([seed; 32]).keys().node_id(),
            name: name.parse().expect("a name"),
            kernel: OnceLock::new(),
            reachable: Mutex::new(true),
        });
        ports.push(Arc::clone(&port));
        port
    }

    fn others(&self, me: NodeId) -> Vec<Arc<Port>> {
        let ports = self.0.lock().expect("no panic");
        ports.iter().filter(|port| port.id != me).cloned().collect()
    }
}

impl Port {
    pub(crate) fn connect(&self, kernel: &Kernel) {
        assert!(self.kernel.set(kernel.clone()).is_ok(), "connected twice");
    }

    pub(crate) fn unplug(&self) {
        *self.reachable.lock().expect("no panic") = false;
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    fn is_reachable(&self) -> bool {
        *self.reachable.lock().expect("no panic")
    }
}

impl Neighbours for Port {
    fn directory(&self) -> Vec<RemoteAgent> {
        let remote = |port: Arc<Port>| {
            let agents = port.kernel.get().map(Kernel::list).unwrap_or_default();
            agents.into_iter().map(move |agent| RemoteAgent {
                node: port.id,
                node_name: port.name.clone(),
                reachable: port.is_reachable(),
                id: agent.id,
                name: agent.name,
                description: agent.description,
                tags: agent.tags,
                tools: agent.tools,
                state: agent.state,
                module: agent.module,
            })
        };
        self.wire
            .others(self.id)
            .into_iter()
            .flat_map(remote)
            .collect()
    }

    fn me(&self) -> (NodeId, NodeName) {
        (self.id, self.name.clone())
    }

    fn node(&self, key: &NodeKey) -> NodeLookup {
        let others = self.wire.others(self.id);
        let others = others.iter();
        let others = others.map(|port| (port.id, port.name.clone(), port.is_reachable()));
        NodeLookup::among(key, (self.id, &self.name), others)
    }

    fn call(
        &self,
        node: NodeId,
        mut call: Delivery,
    ) -> BoxFuture<'static, Result<TurnStream, SendError>> {
        let found = self
            .wire
            .others(self.id)
            .into_iter()
            .find(|port| port.id == node);
        call.from = Some(self.id);
        Box::pin(async move {
            let unreachable = SendError::Unreachable {
                node,
                node_name: None,
            };
            match found
                .filter(|port| port.is_reachable())
                .and_then(|port| port.kernel.get().cloned())
            {
                Some(kernel) => kernel.deliver(call).await,
                None => Err(unreachable),
            }
        })
    }

    fn publish(&self, _agents: Vec<AgentInfo>) {}
}
