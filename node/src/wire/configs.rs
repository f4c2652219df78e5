//! What each part is told, out of what the node was told.

use std::net::SocketAddr;
use std::sync::Arc;

use openfang_api::{AuthConfig, LogFiles, NodeInfo, State};
use openfang_audit::Log;
use openfang_audit::collect::Witnessing;
use openfang_audit::feed::Mirroring;
use openfang_audit::inquiry::Signing;
use openfang_id::{Keys, Transport};
use openfang_kernel::{Auditor, Kernel, Limits, ModelConfig, ModelKeys};
use openfang_mesh::{Cosigners, Listen, Mesh};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::joined::HomeStore;
use crate::VERSION;
use crate::clock::MachineClock;
use crate::config::{Config, Network};
use crate::run::Prepared;
use crate::witness::PublicWindow;

/// What runs, for those who answer for it.
pub(crate) struct Handles {
    pub(crate) kernel: Kernel,
    pub(crate) mesh: Mesh,
    pub(crate) log: Option<Log>,
    /// Writes into it.
    pub(crate) auditor: Auditor,
    /// Where the API really listens.
    pub(crate) listen_addr: SocketAddr,
    /// How it stands with the witnesses of the log.
    pub(crate) witnessing: watch::Receiver<Witnessing>,
    /// Whether the log is signed.
    pub(crate) signing: watch::Receiver<Signing>,
    /// How it stands with its mirrors.
    pub(crate) mirroring: watch::Receiver<Mirroring>,
    /// Where heads of logs elsewhere are cosigned, if any are.
    pub(crate) witness: Option<Arc<PublicWindow>>,
    pub(crate) shutdown: CancellationToken,
}

pub(crate) fn kernel_config(config: &Config, model_keys: &ModelKeys) -> openfang_kernel::Config {
    let model = config.model.clone();
    openfang_kernel::Config {
        data_dir: config.home.data(),
        agents_dir: config.home.agents(),
        default_model: ModelConfig {
            provider: model.provider.unwrap_or_default(),
            model: model.model.unwrap_or_default(),
            api_key: model.api_key,
            base_url: model.base_url,
        },
        model_keys: model_keys.clone(),
        limits: Limits::default(),
    }
}

pub(crate) fn mesh_config(
    config: &Config,
    keys: &Keys,
    log_epoch: Option<u32>,
    cosigners: Cosigners,
    evidence: Vec<Vec<u8>>,
) -> openfang_mesh::Config {
    let network = &config.network;
    let secret = network.secret.clone().filter(|_secret| network.enabled);
    openfang_mesh::Config {
        keys: keys.clone(),
        name: network.name.clone(),
        version: VERSION.to_owned(),
        listen: listens(network, config.api.listen),
        bootstrap: network.bootstrap.clone(),
        secret,
        state_dir: config.home.mesh(),
        log_epoch,
        cosigners,
        evidence,
        limits: openfang_mesh::Limits::default(),
    }
}

/// QUIC and TCP, but for a TCP port that the API takes.
fn listens(network: &Network, api: SocketAddr) -> Vec<Listen> {
    let at = |transport| Listen {
        transport,
        addr: network.listen,
    };
    let same_ip = network.listen.ip() == api.ip()
        || network.listen.ip().is_unspecified()
        || api.ip().is_unspecified();
    let taken = api.port() != 0 && network.listen.port() == api.port() && same_ip;
    let mut listens = vec![at(Transport::Quic)];
    if !taken {
        listens.push(at(Transport::Tcp));
    }
    listens
}

pub(crate) fn api_state(prepared: &Prepared, handles: Handles) -> State {
    let config = prepared.config();
    State {
        kernel: handles.kernel,
        mesh: handles.mesh,
        audit: handles.log,
        auditor: handles.auditor,
        witnessing: handles.witnessing,
        signing: handles.signing,
        mirroring: handles.mirroring,
        witness: handles
            .witness
            .map(|window| window as Arc<dyn openfang_api::PublicWitness>),
        evidence: config.home.audit_dir().join("evidence"),
        log_files: LogFiles {
            log_path: config.audit.log_path.clone(),
            dir: config.home.audit_dir(),
            key: prepared.keys().log.verifying_key(),
        },
        auth: AuthConfig {
            key: config.api.key.clone(),
            require_local: config.api.require_auth_local,
            listen: handles.listen_addr,
        },
        info: NodeInfo {
            version: VERSION.to_owned(),
            build_date: None,
            git_sha: None,
            rust_version: None,
            node_id: prepared.node_id(),
            node_name: config.network.name.clone(),
            started_unix_micros: MachineClock.now_micros(),
            network_enabled: config.network.enabled,
            home: config.home.path().to_owned(),
            log_level: config.log_level.as_str().to_owned(),
            default_provider: config.model.provider.clone(),
            default_model: config.model.model.clone(),
        },
        shutdown: handles.shutdown,
        persist: Arc::new(HomeStore::new(
            config.home.clone(),
            config.network.secret.clone().map(|(_, secret)| secret),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mesh_leaves_the_tcp_port_of_the_api_alone() {
        let check = |network: &str, api: &str, expected: usize| {
            let network = Network {
                enabled: true,
                listen: network.parse().expect("an address"),
                secret: None,
                bootstrap: Vec::new(),
                name: "a".parse().expect("a name"),
            };
            let listens = listens(&network, api.parse().expect("an address"));
            assert_eq!(listens.len(), expected, "{network:?} {api}");
            assert_eq!(listens[0].transport, Transport::Quic);
        };
        check("127.0.0.1:4200", "127.0.0.1:4200", 1);
        check("0.0.0.0:4200", "127.0.0.1:4200", 1);
        check("127.0.0.1:4200", "[::]:4200", 1);
        check("127.0.0.1:4201", "127.0.0.1:4200", 2);
        check("192.0.2.7:4200", "127.0.0.1:4200", 2);
        check("127.0.0.1:0", "127.0.0.1:0", 2);
    }
}
