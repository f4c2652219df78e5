//! Every key wrong, several at once, and where the messages point.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

struct Case {
    folder: tempfile::TempDir,
    environment: BTreeMap<&'static str, String>,
    not_text: Option<&'static str>,
}

impl Case {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        files::create(&folder.path().join("config.toml"), text.as_bytes()).expect("written");
        Self {
            folder,
            environment: BTreeMap::new(),
            not_text: None,
        }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.environment.insert(name, value.to_owned());
        self
    }

    fn with_no_text(mut self, name: &'static str) -> Self {
        self.not_text = Some(name);
        self
    }

    fn home(&self) -> Home {
        Home::at(self.folder.path())
    }

    fn load(&self) -> Result<Config, ConfigErrors> {
        load(&self.home(), &|name| {
            if self.not_text == Some(name) {
                let variable = name.to_owned();
                return Err(NotText { variable });
            }
            Ok(self.environment.get(name).cloned().map(Zeroizing::new))
        })
    }

    /// The messages, without the folder.
    fn errors(&self) -> String {
        let shown = self.load().expect_err("a problem").to_string();
        shown.replace(&format!("{}/", self.folder.path().display()), "")
    }

    fn config(&self) -> Config {
        self.load().expect("no problem")
    }
}

#[test]
fn an_empty_file_is_a_safe_node() {
    let config = Case::new("").config();
    assert_eq!(config.api.listen.to_string(), "127.0.0.1:4200");
    assert_eq!(config.network.listen.to_string(), "127.0.0.1:4200");
    assert!(config.api.key.is_none() && !config.api.require_auth_local);
    assert!(config.network.enabled && config.network.secret.is_none());
    assert!(config.audit.enabled);
    assert_eq!(config.audit.log_path, config.home.audit_log());
    assert_eq!(config.audit.mirror_quota_bytes, 1 << 30);
    assert!(!config.audit.require_peer_floor);
    assert_eq!(config.audit.durability, Durability::Durable);
    assert_eq!(config.audit.change_durability, Durability::Quorum);
    assert_eq!(config.log_level, LogLevel::Info);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn the_mesh_listens_on_loopback_at_the_port_of_the_api() {
    let listen = |text: &str| Case::new(text).config().network.listen.to_string();
    assert_eq!(listen("api_listen = \"127.0.0.1:4300\""), "127.0.0.1:4300");
    let wide = Case::new("api_listen = \"0.0.0.0:4300\"").with("OPENFANG_API_KEY", SECRET);
    assert_eq!(wide.config().network.listen.to_string(), "127.0.0.1:4300");
    assert_eq!(
        listen("api_listen = \"127.0.0.1:1\"\n[network]\nlisten_addr = \"0.0.0.0:2\""),
        "0.0.0.0:2"
    );
}

#[test]
fn every_key_is_read() {
    let case = Case::new(
        r#"
        api_key_env = "MY_KEY"
        api_listen = "0.0.0.0:0"
        api_require_auth_local = true
        log_level = "debug"
        [network]
        enabled = false
        listen_addr = "[::]:4300"
        shared_secret_env = "MY_SECRET"
        bootstrap_peers = ["node-b.example:4200", "/ip4/192.0.2.7/tcp/4200"]
        node_name = "laptop"
        [audit]
        enabled = false
        log_path = "~/logs/audit.jsonl"
        hash_algorithm = "sha256"
        allow_convicted = ["12D3KooWFMRJk5pQnyvkFyf7J5q8rRHAEJkqU5gTifeJCjZaEicf"]
        mirror_quota_mb = 2_048
        require_peer_floor = true
        witness_logs = ["example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"]
        [default_model]
        provider = "openai"
        model = "small"
        api_key_env = "MODEL_KEY"
        base_url = "http://127.0.0.1:8080/v1"
        "#,
    )
    .with("MY_KEY", SECRET)
    .with("MY_SECRET", SECRET)
    .with("MODEL_KEY", "k")
    .with("HOME", "/home/u");
    let config = case.config();
    assert!(
        config
            .api
            .key
            .is_some_and(|key| key.matches(SECRET.as_bytes()))
    );
    assert_eq!(config.api.listen.to_string(), "0.0.0.0:0");
    assert!(config.api.require_auth_local);
    assert_eq!(config.log_level, LogLevel::Debug);
    assert!(!config.network.enabled);
    assert_eq!(config.network.listen.to_string(), "[::]:4300");
    assert!(
        config
            .network
            .secret
            .is_some_and(|(_, s)| s.expose() == SECRET)
    );
    assert_eq!(config.network.bootstrap.len(), 3);
    assert_eq!(config.network.name.as_str(), "laptop");
    assert!(!config.audit.enabled);
    assert_eq!(config.audit.allow_convicted.len(), 1);
    assert_eq!(config.audit.mirror_quota_bytes, 2 << 30);
    assert!(config.audit.require_peer_floor);
    assert_eq!(
        config.audit.log_path,
        PathBuf::from("/home/u/logs/audit.jsonl")
    );
    assert_eq!(config.audit.witness_logs[0].name(), "example.com/foo");
    assert_eq!(config.model.provider.as_deref(), Some("openai"));
    assert_eq!(config.model.model.as_deref(), Some("small"));
    assert_eq!(config.model.api_key.as_ref().map(|k| k.as_str()), Some("k"));
    assert_eq!(
        config.model.base_url.as_deref(),
        Some("http://127.0.0.1:8080/v1")
    );
}

#[test]
fn what_entries_must_be_is_read() {
    let text =
        "[audit]\ndurability = \"interval\"\ninterval_ms = 250\nchange_durability = \"durable\"";
    let audit = Case::new(text).config().audit;
    let interval = Durability::Interval(Duration::from_millis(250));
    assert_eq!(
        (audit.durability, audit.change_durability),
        (interval, Durability::Durable)
    );
    let audit = Case::new("[audit]\ndurability = \"quorum\"").config().audit;
    assert_eq!(
        (audit.durability, audit.change_durability),
        (Durability::Quorum, Durability::Quorum)
    );
}

/// What is written, and the first line of what is said about it.
const WRONG: &[(&str, &str)] = &[
    (
        "api_key = 1",
        "config.toml:1:11: `api_key` must be a text in quotes, not an integer",
    ),
    (
        "api_key_env = true",
        "config.toml:1:15: `api_key_env` must be a text in quotes, not true or false",
    ),
    (
        "api_key_env = \"NONE\"",
        "config.toml:1:15: `api_key_env` names the environment variable NONE, which is not set",
    ),
    (
        "api_listen = 4200",
        "config.toml:1:14: `api_listen` must be a text in quotes, not an integer",
    ),
    (
        "api_listen = \"4200\"",
        "config.toml:1:14: `api_listen` must be an IP address and a port, not \"4200\"",
    ),
    (
        "api_require_auth_local = \"yes\"",
        "config.toml:1:26: `api_require_auth_local` must be true or false, not a text",
    ),
    (
        "log_level = \"loud\"",
        "config.toml:1:13: `log_level` must be one of info, error, warn, debug, trace, not \"loud\"",
    ),
    (
        "[audit]\ndurability = \"fast\"",
        "config.toml:2:14: `audit.durability` must be one of durable, interval, quorum, not \"fast\"",
    ),
    (
        "[audit]\nchange_durability = \"interval\"",
        "config.toml:2:21: `audit.change_durability` must be one of quorum, durable, not \"interval\"",
    ),
    (
        "[audit]\ninterval_ms = 0",
        "config.toml:2:15: `audit.interval_ms` must be a whole number, 1 to 10000, not 0",
    ),
    (
        "network = 1",
        "config.toml:1:11: `network` must be a table, not an integer",
    ),
    (
        "[network]\nenabled = 1",
        "config.toml:2:11: `network.enabled` must be true or false, not an integer",
    ),
    (
        "[network]\nlisten_addr = \"*:1\"",
        "config.toml:2:15: `network.listen_addr` must be an IP address and a port, not \"*:1\"",
    ),
    (
        "[network]\nshared_secret = \"your-p2p-secret\"",
        "config.toml:2:17: `network.shared_secret` is not usable: it is a placeholder, not a secret",
    ),
    (
        "[network]\nshared_secret = \"tooshort\"",
        "config.toml:2:17: `network.shared_secret` is not usable: it has 8 characters, fewer than 32",
    ),
    (
        "[network]\nshared_secret_env = \"NONE\"",
        "config.toml:2:21: `network.shared_secret_env` names the environment variable NONE, which is not set",
    ),
    (
        "[network]\nbootstrap_peers = \"a:1\"",
        "config.toml:2:19: `network.bootstrap_peers` must be a list of texts, [\"…\"], not a text",
    ),
    (
        "[network]\nbootstrap_peers = [\"a:1\", 2]",
        "config.toml:2:27: `an item of network.bootstrap_peers` must be a text in quotes, not an integer",
    ),
    (
        "[network]\nbootstrap_peers = [\"a:0\"]",
        "config.toml:2:20: \"a:0\" in `network.bootstrap_peers`: the port must be a number from 1 to 65535",
    ),
    (
        "[network]\nnode_name = \"\"",
        "config.toml:2:13: `network.node_name`: a name must not be empty",
    ),
    (
        "[audit]\nenabled = \"no\"",
        "config.toml:2:11: `audit.enabled` must be true or false, not a text",
    ),
    (
        "[audit]\nlog_path = \"\"",
        "config.toml:2:12: `audit.log_path` is empty",
    ),
    (
        "[audit]\nlog_path = \"~/a\"",
        "config.toml:2:12: `audit.log_path` starts with ~, and HOME is not set",
    ),
    (
        "[audit]\nwitness_logs = [\"example.com\"]",
        "config.toml:2:17: \"example.com\" in `audit.witness_logs`: not a verifier key: expected NAME+KEYID+BASE64",
    ),
    (
        "[audit]\nhash_algorithm = \"md5\"",
        "config.toml:2:18: `audit.hash_algorithm` must be one of sha256, not \"md5\"",
    ),
    (
        "[audit]\nallow_convicted = [\"laptop\"]",
        "config.toml:2:20: \"laptop\" in `audit.allow_convicted`: not a node id: expected base58 text such as 12D3KooW…",
    ),
    (
        "[audit]\nmirror_quota_mb = \"1024\"",
        "config.toml:2:19: `audit.mirror_quota_mb` must be a whole number, not a text",
    ),
    (
        "[audit]\nmirror_quota_mb = -1",
        "config.toml:2:19: `audit.mirror_quota_mb` must be a whole number, 0 to 16777216, not -1",
    ),
    (
        "[audit]\nmirror_quota_mb = 16_777_217",
        "config.toml:2:19: `audit.mirror_quota_mb` must be a whole number, 0 to 16777216, not 16_777_217",
    ),
    (
        "[default_model]\nprovider = \"\"",
        "config.toml:2:12: `default_model.provider` is empty",
    ),
    (
        "[default_model]\nprovider = \"opnai\"",
        "config.toml:2:12: `default_model.provider` \"opnai\" is not a known provider, and there is no base_url",
    ),
    (
        "[default_model]\nmodel = []",
        "config.toml:2:9: `default_model.model` must be a text in quotes, not a list",
    ),
    (
        "[default_model]\napi_key_env = 1.5",
        "config.toml:2:15: `default_model.api_key_env` must be a text in quotes, not a number with a fraction",
    ),
    (
        "[default_model]\nbase_url = \"here\"",
        "config.toml:2:12: `default_model.base_url` must start with http:// or https://, not \"here\"",
    ),
];

#[test]
fn each_key_refuses_what_it_cannot_be() {
    for (text, expected) in WRONG {
        let shown = Case::new(text).errors();
        let mut lines = shown.lines();
        assert_eq!(lines.next(), Some(*expected), "{text}");
        let mend = lines.next().unwrap_or_default();
        assert!(
            mend.starts_with("    mend: ") && mend.len() > 16,
            "{text}: {mend}"
        );
        assert_eq!(lines.next(), None, "{text}: {shown}");
    }
}

#[test]
fn keys_that_are_documented_and_not_enforced_are_refused_as_such() {
    for (text, name) in [
        ("api_rate_limit = 100", "api_rate_limit"),
        ("[[users]]\nname = \"Alice\"", "users"),
        ("[web.fetch]\nblock_private_ips = true", "web.fetch"),
        ("[security]\nallow_symlinks = false", "security"),
        ("[security.wasm]\nfuel_limit = 1", "security"),
        ("[webhook_trigger]\nenabled = true", "webhook_trigger"),
        ("[channels.telegram]\ndefault_agent = \"a\"", "channels"),
        ("[slack.overrides]\nrate_limit_per_user = 30", "slack"),
    ] {
        let shown = Case::new(text).errors();
        let expected = format!(
            "`{name}` is documented, not enforced by this version yet\n    mend: remove it, so that nobody believes it is active"
        );
        assert!(shown.ends_with(&expected), "{shown}");
    }
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_the_file() {
    let case = Case::new(
        "api_lisen = \"127.0.0.1:4200\"\nlog_level = \"loud\"\n\n[network]\nshared_secret = \"x\"\nlisten_addresses = []\n\n[audit]\nhash_algorithm = \"md5\"\n[zzz]\n",
    )
    .with("OPENFANG_LISTEN", "nowhere");
    insta::assert_snapshot!(case.errors());
}

#[test]
fn bad_toml_is_shown_with_its_place_and_without_its_text() {
    let shown = Case::new(&format!(
        "log_level = \"info\"\napi_key = \"{SECRET}\nx = 1\n"
    ))
    .errors();
    assert!(shown.starts_with("config.toml:2:"), "{shown}");
    assert!(!shown.contains(SECRET), "{shown}");
    let twice = Case::new("log_level = \"info\"\nlog_level = \"info\"\n").errors();
    assert!(
        twice.starts_with("config.toml:2:1: not valid TOML: duplicate key"),
        "{twice}"
    );
}

#[test]
fn no_problem_shows_a_secret() {
    let long = format!("{SECRET} {SECRET}");
    for text in [
        format!("api_key = \"{long}\""),
        format!("[network]\nshared_secret = \"{long}\""),
        format!("api_key = [\"{long}\"]"),
    ] {
        let case = Case::new(&text);
        let error = case.load().expect_err("a problem");
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
    }
    let config = Case::new(&format!(
        "api_key = \"{SECRET}\"\n[network]\nshared_secret = \"{SECRET}\""
    ))
    .with("KEY", SECRET)
    .config();
    assert!(!format!("{config:?}").contains(SECRET), "{config:?}");
}

#[test]
fn an_api_for_everyone_needs_a_key() {
    let shown = Case::new("api_listen = \"0.0.0.0:4200\"").errors();
    assert!(
        shown.starts_with("config.toml:1:14: `api_listen` 0.0.0.0:4200 can be reached"),
        "{shown}"
    );
    let shown = Case::new("").with("OPENFANG_LISTEN", "[::]:1").errors();
    assert!(
        shown.starts_with("environment OPENFANG_LISTEN: `api_listen` [::]:1 can be"),
        "{shown}"
    );
    // An empty key is no key.
    let shown = Case::new("api_key = \"\"\napi_listen = \"0.0.0.0:4200\"").errors();
    assert!(shown.contains("there is no API key"), "{shown}");
    Case::new("api_listen = \"0.0.0.0:4200\"")
        .with("OPENFANG_API_KEY", SECRET)
        .config();
    // A key that is not usable is one problem, not two.
    let error = Case::new("api_key = \"short\"\napi_listen = \"0.0.0.0:4200\"")
        .load()
        .expect_err("a problem");
    assert_eq!(error.problems().len(), 1);
}

#[test]
fn the_environment_wins_and_is_checked_the_same() {
    let other = "fedcba9876543210fedcba9876543210";
    let case = Case::new(&format!(
        "api_key = \"{SECRET}\"\napi_listen = \"127.0.0.1:1\""
    ))
    .with("OPENFANG_API_KEY", other)
    .with("OPENFANG_LISTEN", "127.0.0.1:2");
    let config = case.config();
    assert!(
        config
            .api
            .key
            .is_some_and(|key| key.matches(other.as_bytes()))
    );
    assert_eq!(config.api.listen.port(), 2);
    let shown = Case::new("").with("OPENFANG_API_KEY", "changeme").errors();
    assert!(
        shown.starts_with(
            "environment OPENFANG_API_KEY: `api_key` is not usable: it is a placeholder"
        ),
        "{shown}"
    );
}

#[test]
fn a_value_has_one_source_in_the_file() {
    let shown = Case::new(&format!("api_key = \"{SECRET}\"\napi_key_env = \"K\"")).errors();
    assert!(
        shown.starts_with("config.toml:2:15: `api_key` and `api_key_env` are both set"),
        "{shown}"
    );
}

#[test]
fn a_file_with_a_secret_is_private() {
    let case = Case::new(&format!("api_key = \"{SECRET}\""));
    let path = case.home().config();
    let set =
        |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
    set(0o644);
    let shown = case.errors();
    assert!(
        shown.contains("can be read by other users (mode 0644)\n    mend: chmod 600 "),
        "{shown}"
    );
    set(0o600);
    case.config();
    let without = Case::new("api_key = \"\"");
    std::fs::set_permissions(
        without.home().config(),
        std::fs::Permissions::from_mode(0o644),
    )
    .expect("set");
    without.config();
}

#[test]
fn a_missing_file_says_how_to_make_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let shown = load(&Home::at(folder.path()), &|_name| Ok(None))
        .expect_err("missing")
        .to_string();
    assert!(
        shown.ends_with("there is no configuration\n    mend: openfang init --quick"),
        "{shown}"
    );
}

#[test]
fn what_a_join_stored_is_merged_and_may_not_differ() {
    let case = Case::new("[network]\nbootstrap_peers = [\"192.0.2.1:1\"]");
    let joined = SharedSecret::from_random(&[1; 32]);
    let mut state = NetworkState::default();
    let peer: PeerAddr = "/ip4/192.0.2.2/tcp/1".parse().expect("an address");
    state
        .add(&[peer], Some(&(Epoch(3), joined.clone())))
        .expect("added");
    state.save(&case.home()).expect("saved");
    let config = case.config();
    assert_eq!(config.network.bootstrap.len(), 3);
    let (epoch, secret) = config.network.secret.expect("a secret");
    assert_eq!((epoch, secret.expose()), (Epoch(3), joined.expose()));
    let other = SharedSecret::from_random(&[2; 32]);
    files::replace(
        &case.home().config(),
        format!("[network]\nshared_secret = \"{}\"", other.expose()).as_bytes(),
    )
    .expect("written");
    let shown = case.errors();
    assert!(
        shown.starts_with("config.toml:2:17: the network secret of the configuration differs"),
        "{shown}"
    );
    files::replace(&case.home().network_state(), b"peers = 1").expect("written");
    let shown = case.errors();
    assert!(
        shown.starts_with("network.toml: what `openfang join` stored cannot be used"),
        "{shown}"
    );
}

#[test]
fn every_key_is_documented() {
    let guide = include_str!("../../../docs/CONFIG.md");
    for name in known_keys().chain(refused_keys()) {
        assert!(
            guide.contains(&format!("`{name}`")),
            "docs/CONFIG.md does not name `{name}`"
        );
    }
}

#[test]
fn a_variable_that_is_no_text_is_named_wherever_it_is_used() {
    let check = |text: &str, variable: &'static str, place: &str| {
        let shown = Case::new(text).with_no_text(variable).errors();
        let expected = format!(
            "{place}: the environment variable {variable} is not valid UTF-8\n    mend: export {variable}=… with a text in UTF-8, or: unset {variable}"
        );
        assert_eq!(shown, expected);
    };
    check("", "OPENFANG_LISTEN", "environment OPENFANG_LISTEN");
    check("", "OPENFANG_API_KEY", "environment OPENFANG_API_KEY");
    check("api_key_env = \"K\"", "K", "config.toml:1:15");
    check(
        "[network]\nshared_secret_env = \"S\"",
        "S",
        "config.toml:2:21",
    );
    check(
        "[default_model]\napi_key_env = \"M\"",
        "M",
        "config.toml:2:15",
    );
    check("[audit]\nlog_path = \"~/x\"", "HOME", "config.toml:2:12");
}

#[test]
fn a_provider_is_offered_only_when_it_is_alike() {
    let near = Case::new("[default_model]\nprovider = \"opnai\"").errors();
    assert!(near.contains("mend: provider = \"openai\", or"), "{near}");
    let far = Case::new("[default_model]\nprovider = \"foo\"").errors();
    assert!(far.contains("mend: one of openai, groq, "), "{far}");
    let key = Case::new("[web]\nsearch = 1").errors();
    assert!(!key.contains("did you mean"), "{key}");
}

#[test]
fn a_file_that_is_no_text_says_so() {
    let case = Case::new("");
    std::fs::write(case.home().config(), b"node = \"\xff\"").expect("written");
    let shown = case.errors();
    assert!(shown.contains("must hold text in UTF-8"), "{shown}");
}

#[test]
fn every_provider_and_every_tool_is_documented() {
    let config = include_str!("../../../docs/CONFIG.md");
    let agents = include_str!("../../../docs/AGENTS.md");
    for provider in openfang_kernel::provider::PROVIDERS {
        let name = format!("`{}`", provider.name);
        assert!(config.contains(&name), "docs/CONFIG.md: {name}");
        assert!(agents.contains(&name), "docs/AGENTS.md: {name}");
        if let Some(variable) = provider.key_variable {
            let row = format!("| {name} | `{variable}` |");
            assert!(agents.contains(&row), "docs/AGENTS.md: {row}");
        }
    }
    for tool in openfang_kernel::Tool::ALL {
        let row = format!("| `{}` |", tool.name());
        assert!(agents.contains(&row), "docs/AGENTS.md: {row}");
    }
}
