//! From what was written to what is meant: every value checked, the environment applied.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use openfang_audit::note::Verifier;
use openfang_id::{ApiKey, NodeId, NodeName, PeerAddr, SecretError, SharedSecret};
use openfang_kernel::{Durability, provider};
use zeroize::Zeroizing;

use super::fingerprint::Fingerprint;
use super::problem::{Place, Problem, ProblemKind};
use super::raw::{Found, RawConfig};
use super::{Api, Audit, Config, LogLevel, Lookup, Model, Network, NotText, log_path};
use crate::home::Home;
use crate::network_state::{FIRST_EPOCH, NetworkState};

/// Where the API and the mesh listen unless told otherwise: only this machine reaches it.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4200);
/// How many MiB the copy of one log may take.
const DEFAULT_MIRROR_QUOTA_MB: u64 = 1024;
/// How long an entry may wait for the disk, where it may, when nothing is written.
const DEFAULT_INTERVAL_MS: u64 = 100;
/// The longest such wait.
const INTERVAL_MS_MAX: u64 = 10_000;
/// The most that can be said: 16 TiB.
const MIRROR_QUOTA_MB_MAX: u64 = 1 << 24;
/// What a node is called when neither the configuration nor the machine says.
const FALLBACK_NAME: &str = "node";

/// What a configuration is made of.
pub(super) struct Input<'a> {
    pub(super) home: &'a Home,
    pub(super) raw: RawConfig,
    pub(super) stored: Option<NetworkState>,
    pub(super) environment: Lookup<'a>,
}

/// Checks everything, so that everything that is wrong is known at the end.
pub(super) fn check(input: Input<'_>, problems: Vec<Problem>) -> Result<Config, Vec<Problem>> {
    let Input {
        home,
        raw,
        stored,
        environment,
    } = input;
    let mut check = Check {
        environment,
        problems,
        warnings: Vec::new(),
    };
    let api = check.api(&raw);
    let log_level = check.log_level(raw.log_level.as_ref());
    let network = check.network(&raw, stored, api.listen.port());
    let audit = check.audit(home, &raw);
    let fingerprint = Fingerprint::new(&raw.hashes);
    let model = check.model(raw);
    if !check.problems.is_empty() {
        return Err(check.problems);
    }
    Ok(Config {
        home: home.clone(),
        api,
        log_level,
        network,
        audit,
        model,
        warnings: check.warnings,
        fingerprint,
    })
}

/// Finds the API key, whatever else is wrong: a variable that holds no text, and a text that is no key,
/// must not pass for a key that is not there. A variable that is not set here may be set for the node.
pub(super) fn client_key(
    raw: &RawConfig,
    environment: Lookup<'_>,
) -> Result<Option<ApiKey>, Vec<Problem>> {
    let mut check = Check {
        environment,
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    let key = check.api_key(raw);
    let mut problems = check.problems;
    problems.retain(|problem| {
        matches!(
            problem.kind,
            ProblemKind::NotText { .. } | ProblemKind::Secret { .. }
        )
    });
    if problems.is_empty() {
        Ok(key)
    } else {
        Err(problems)
    }
}

/// What is wrong is among the problems already.
struct Noted;

struct Check<'a> {
    environment: Lookup<'a>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Check<'_> {
    /// Looks a variable up; what is no text is a problem of the place that names it.
    fn look_up(
        &mut self,
        variable: &str,
        place: Place,
    ) -> Result<Option<Zeroizing<String>>, Noted> {
        (self.environment)(variable).map_err(|NotText { variable }| {
            self.problem(place, ProblemKind::NotText { variable });
            Noted
        })
    }

    fn api(&mut self, raw: &RawConfig) -> Api {
        const VARIABLE: &str = "OPENFANG_LISTEN";
        let place = Place::Environment(VARIABLE);
        let from_environment = self.look_up(VARIABLE, place).ok().flatten();
        let from_environment = from_environment.map(|text| Found {
            value: text.to_string(),
            place,
        });
        let written = from_environment.as_ref().or(raw.api_listen.as_ref());
        let listen = self.listen("api_listen", written, DEFAULT_LISTEN);
        let problems_before = self.problems.len();
        let key = self.api_key(raw);
        let key_is_bad = self.problems.len() > problems_before;
        if !listen.ip().is_loopback() && key.is_none() && !key_is_bad {
            let place = written.map_or(Place::Whole, |found| found.place);
            self.problem(place, ProblemKind::OpenToAll { listen });
        }
        Api {
            listen,
            key,
            require_auth_local: raw
                .api_require_auth_local
                .as_ref()
                .is_some_and(|flag| flag.value),
        }
    }

    /// The environment wins over the file; in the file an empty text means no key, as the guides
    /// have it.
    fn api_key(&mut self, raw: &RawConfig) -> Option<ApiKey> {
        const VARIABLE: &str = "OPENFANG_API_KEY";
        let place = Place::Environment(VARIABLE);
        let direct = self.look_up(VARIABLE, place).ok()?;
        let written = match direct.filter(|text| !text.is_empty()) {
            Some(value) => Some(Found { value, place }),
            None => self.one_of(
                ("api_key", raw.api_key.as_ref()),
                ("api_key_env", raw.api_key_env.as_ref()),
            ),
        }?;
        match ApiKey::parse(&written.value) {
            Ok(key) => Some(key),
            Err(why) => {
                self.secret_problem(written.place, "api_key", why);
                None
            }
        }
    }

    /// Takes a secret from its own key or from the variable another key names.
    fn one_of(
        &mut self,
        (name, direct): (&'static str, Option<&Found<Zeroizing<String>>>),
        (env_name, variable): (&'static str, Option<&Found<String>>),
    ) -> Option<Found<Zeroizing<String>>> {
        let direct = direct.filter(|found| !found.value.is_empty());
        if let (Some(_), Some(variable)) = (direct, variable) {
            let kind = ProblemKind::Both {
                one: name,
                other: env_name,
            };
            self.problem(variable.place, kind);
            return None;
        }
        match variable {
            Some(variable) => self.variable(env_name, variable),
            None => direct.cloned(),
        }
    }

    fn variable(
        &mut self,
        name: &'static str,
        variable: &Found<String>,
    ) -> Option<Found<Zeroizing<String>>> {
        let value = self
            .look_up(&variable.value, variable.place)
            .ok()?
            .filter(|text| !text.is_empty());
        if value.is_none() {
            let kind = ProblemKind::Unset {
                name,
                variable: variable.value.clone(),
            };
            self.problem(variable.place, kind);
        }
        value.map(|value| Found {
            value,
            place: variable.place,
        })
    }

    fn log_level(&mut self, written: Option<&Found<String>>) -> LogLevel {
        let Some(written) = written else {
            return LogLevel::Info;
        };
        LogLevel::parse(&written.value).unwrap_or_else(|| {
            let kind = ProblemKind::Choice {
                name: "log_level",
                allowed: LogLevel::WORDS,
                found: written.value.clone(),
            };
            self.problem(written.place, kind);
            LogLevel::Info
        })
    }

    fn network(&mut self, raw: &RawConfig, stored: Option<NetworkState>, api_port: u16) -> Network {
        // One port to open and to remember: that of the API, here over QUIC.
        let default = SocketAddr::new(DEFAULT_LISTEN.ip(), api_port);
        let written = raw.network_listen_addr.as_ref();
        let listen = self.listen("network.listen_addr", written, default);
        let written = self.one_of(
            ("network.shared_secret", raw.shared_secret.as_ref()),
            ("network.shared_secret_env", raw.shared_secret_env.as_ref()),
        );
        let mut secret = None;
        if let Some(written) = written {
            match SharedSecret::parse(&written.value) {
                Ok(parsed) => secret = Some((parsed, written.place)),
                Err(why) => self.secret_problem(written.place, "network.shared_secret", why),
            }
        }
        let (stored_secret, stored_peers) = match stored {
            Some(stored) => (stored.secret, stored.peers),
            None => (None, Vec::new()),
        };
        if let (Some((ours, place)), Some((_, theirs))) = (&secret, &stored_secret)
            && ours.as_bytes() != theirs.as_bytes()
        {
            self.problem(*place, ProblemKind::OtherMesh);
        }
        let mut bootstrap = self.peers(raw);
        for peer in stored_peers {
            if !bootstrap.contains(&peer) {
                bootstrap.push(peer);
            }
        }
        let enabled = raw.network_enabled.as_ref().is_none_or(|flag| flag.value);
        // The same secret twice: what was stored knows its number.
        let secret = stored_secret.or(secret.map(|(secret, _place)| (FIRST_EPOCH, secret)));
        if enabled && secret.is_none() && !bootstrap.is_empty() {
            self.warnings.push(
                "network.bootstrap_peers is set, and there is no network.shared_secret: the mesh sleeps"
                    .to_owned(),
            );
        }
        Network {
            enabled,
            listen,
            secret,
            bootstrap,
            name: self.node_name(raw.node_name.as_ref()),
        }
    }

    fn peers(&mut self, raw: &RawConfig) -> Vec<PeerAddr> {
        let mut peers = Vec::new();
        for written in raw.bootstrap_peers.iter().flat_map(|list| &list.value) {
            match PeerAddr::parse_all(&written.value) {
                Ok(addrs) => peers.extend(addrs),
                Err(why) => {
                    let found = written.value.clone();
                    self.problem(written.place, ProblemKind::Peer { found, why });
                }
            }
        }
        peers
    }

    fn node_name(&mut self, written: Option<&Found<String>>) -> NodeName {
        if let Some(written) = written {
            match written.value.parse() {
                Ok(name) => return name,
                Err(why) => self.problem(written.place, ProblemKind::NodeName(why)),
            }
        }
        machine_name()
    }

    fn audit(&mut self, home: &Home, raw: &RawConfig) -> Audit {
        if let Some(written) = &raw.audit_hash_algorithm
            && written.value != "sha256"
        {
            let kind = ProblemKind::Choice {
                name: "audit.hash_algorithm",
                allowed: "sha256",
                found: written.value.clone(),
            };
            self.problem(written.place, kind);
        }
        let enabled = raw.audit_enabled.as_ref().is_none_or(|flag| flag.value);
        if !enabled {
            self.warnings
                .push("audit.enabled is false: what agents do is not logged".to_owned());
        }
        let (log_path, log_path_at) = self.log_path(home, raw);
        let quota = (DEFAULT_MIRROR_QUOTA_MB, 0..=MIRROR_QUOTA_MB_MAX);
        let mirror_quota_mb = self.number(
            "audit.mirror_quota_mb",
            raw.audit_mirror_quota_mb.as_ref(),
            quota,
        );
        let (durability, change_durability) = self.durability(raw);
        Audit {
            enabled,
            log_path,
            log_path_at,
            durability,
            change_durability,
            allow_convicted: self.allowed(raw),
            mirror_quota_bytes: mirror_quota_mb << 20,
            witness_logs: self.witness_logs(raw),
            require_peer_floor: raw
                .audit_require_peer_floor
                .as_ref()
                .is_some_and(|flag| flag.value),
        }
    }

    fn log_path(&mut self, home: &Home, raw: &RawConfig) -> (PathBuf, Place) {
        let Some(written) = &raw.audit_log_path else {
            return (home.audit_log(), Place::Whole);
        };
        let before = self.problems.len();
        let path = self.path(home, "audit.log_path", written);
        if self.problems.len() == before
            && let Some(kind) = log_path::problem(home, &path)
        {
            self.problem(written.place, kind);
        }
        (path, written.place)
    }

    fn allowed(&mut self, raw: &RawConfig) -> BTreeSet<NodeId> {
        let mut allowed = BTreeSet::new();
        for written in raw
            .audit_allow_convicted
            .iter()
            .flat_map(|list| &list.value)
        {
            match written.value.parse::<NodeId>() {
                Ok(node) => drop(allowed.insert(node)),
                Err(why) => {
                    let found = written.value.clone();
                    self.problem(written.place, ProblemKind::Node { found, why });
                }
            }
        }
        allowed
    }

    /// What most entries must be, and those that change the node.
    fn durability(&mut self, raw: &RawConfig) -> (Durability, Durability) {
        let bounds = (DEFAULT_INTERVAL_MS, 1..=INTERVAL_MS_MAX);
        let interval = self.number("audit.interval_ms", raw.audit_interval_ms.as_ref(), bounds);
        let interval = Durability::Interval(Duration::from_millis(interval));
        let (durable, quorum) = (
            ("durable", Durability::Durable),
            ("quorum", Durability::Quorum),
        );
        let ordinary = self.choice(
            ("audit.durability", raw.audit_durability.as_ref()),
            (
                "durable, interval, quorum",
                durable,
                &[("interval", interval), quorum],
            ),
        );
        let changes = self.choice(
            (
                "audit.change_durability",
                raw.audit_change_durability.as_ref(),
            ),
            ("quorum, durable", quorum, &[durable]),
        );
        (ordinary, changes)
    }

    /// One of some words; a first one where nothing is written.
    fn choice<T: Copy>(
        &mut self,
        (name, written): (&'static str, Option<&Found<String>>),
        (allowed, first, others): (&'static str, (&str, T), &[(&str, T)]),
    ) -> T {
        let Some(written) = written else {
            return first.1;
        };
        let mut choices = std::iter::once(&first).chain(others);
        if let Some((_word, choice)) = choices.find(|(word, _)| *word == written.value) {
            return *choice;
        }
        let kind = ProblemKind::Choice {
            name,
            allowed,
            found: written.value.clone(),
        };
        self.problem(written.place, kind);
        first.1
    }

    fn number(
        &mut self,
        name: &'static str,
        written: Option<&Found<String>>,
        (default, range): (u64, RangeInclusive<u64>),
    ) -> u64 {
        let Some(written) = written else {
            return default;
        };
        let number = written.value.replace('_', "").parse::<u64>().ok();
        if let Some(number) = number.filter(|number| range.contains(number)) {
            return number;
        }
        let kind = ProblemKind::Number {
            name,
            min: *range.start(),
            max: *range.end(),
            found: written.value.clone(),
            default,
        };
        self.problem(written.place, kind);
        default
    }

    fn witness_logs(&mut self, raw: &RawConfig) -> Vec<Verifier> {
        let mut logs = Vec::new();
        for written in raw.audit_witness_logs.iter().flat_map(|list| &list.value) {
            match written.value.parse() {
                Ok(log) => logs.push(log),
                Err(why) => {
                    let found = written.value.clone();
                    self.problem(written.place, ProblemKind::WitnessLog { found, why });
                }
            }
        }
        logs
    }

    /// `~/` is the home folder of the user; what is relative is so to the home of the node.
    fn path(&mut self, home: &Home, name: &'static str, written: &Found<String>) -> PathBuf {
        if written.value.is_empty() {
            self.problem(written.place, ProblemKind::Empty { name });
        }
        let Some(rest) = written.value.strip_prefix("~/") else {
            return home.path().join(&written.value);
        };
        match self.look_up("HOME", written.place) {
            Ok(Some(user)) => Path::new(user.as_str()).join(rest),
            Ok(None) => {
                self.problem(written.place, ProblemKind::NoHome { name });
                PathBuf::from(rest)
            }
            Err(Noted) => PathBuf::from(rest),
        }
    }

    fn model(&mut self, raw: RawConfig) -> Model {
        if let Some(url) = &raw.model_base_url
            && !(url.value.starts_with("http://") || url.value.starts_with("https://"))
        {
            let found = url.value.clone();
            self.problem(url.place, ProblemKind::Url { found });
        }
        let mut text = |name, written: Option<Found<String>>| {
            let written = written?;
            if written.value.is_empty() {
                self.problem(written.place, ProblemKind::Empty { name });
            }
            Some(written.value)
        };
        let provider_place = raw.model_provider.as_ref().map(|found| found.place);
        let provider = text("default_model.provider", raw.model_provider);
        let model = text("default_model.model", raw.model_name);
        let variable_place = raw.model_api_key_env.as_ref().map(|found| found.place);
        let variable = text("default_model.api_key_env", raw.model_api_key_env);
        if let (Some(provider), Some(place), None) =
            (&provider, provider_place, &raw.model_base_url)
            && !provider.is_empty()
            && provider::find(provider).is_none_or(|known| known.base_url.is_none())
        {
            let found = provider.clone();
            self.problem(place, ProblemKind::Provider { found });
        }
        let mut api_key = None;
        if let (Some(variable), Some(place)) = (variable, variable_place) {
            let found = self.look_up(&variable, place).ok().flatten();
            api_key = found.filter(|key| !key.is_empty());
            if api_key.is_none() {
                self.warnings.push(format!(
                    "default_model.api_key_env names {variable}, which is not set: the model is asked without a key"
                ));
            }
        }
        Model {
            provider,
            model,
            api_key,
            base_url: raw.model_base_url.map(|url| url.value),
        }
    }

    fn listen(
        &mut self,
        name: &'static str,
        written: Option<&Found<String>>,
        default: SocketAddr,
    ) -> SocketAddr {
        let Some(written) = written else {
            return default;
        };
        let text = match written.value.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => written.value.clone(),
        };
        text.parse().unwrap_or_else(|_not_an_address| {
            let found = written.value.clone();
            self.problem(written.place, ProblemKind::Listen { name, found });
            default
        })
    }

    fn secret_problem(&mut self, place: Place, name: &'static str, why: SecretError) {
        self.problem(place, ProblemKind::Secret { name, why });
    }

    fn problem(&mut self, place: Place, kind: ProblemKind) {
        self.problems.push(Problem { place, kind });
    }
}

/// Makes a name of what the machine is called.
fn machine_name() -> NodeName {
    let machine = rustix::system::uname();
    let text = machine.nodename().to_string_lossy();
    let first = text.split('.').next().unwrap_or_default();
    let cleaned: String = first
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(63)
        .collect();
    let cleaned = cleaned.trim_matches('-');
    cleaned
        .parse()
        .or_else(|_unusable| FALLBACK_NAME.parse())
        .expect("the fallback is a valid name")
}
