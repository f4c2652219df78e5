//! The configuration file as it was written: every key that is known, with its place in the file.
//!
//! [`KEYS`] is the table of the format: adding a key is one row there and one field in
//! [`RawConfig`]. The file is walked rather than deserialised, because a deserialiser stops at its
//! first error and an operator wants to see all of them at once.

use std::collections::BTreeMap;
use std::ops::Range;

use sha2::{Digest as _, Sha256};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::likeness;
use super::problem::{Place, Problem, ProblemKind};

/// A value and where it was found.
#[derive(Debug, Clone)]
pub(crate) struct Found<T> {
    /// What was written.
    pub(crate) value: T,
    /// Where.
    pub(crate) place: Place,
}

/// Everything a configuration file may hold, unchecked.
#[derive(Debug, Default)]
pub(crate) struct RawConfig {
    pub(crate) api_key: Option<Found<Zeroizing<String>>>,
    pub(crate) api_key_env: Option<Found<String>>,
    pub(crate) api_listen: Option<Found<String>>,
    pub(crate) api_require_auth_local: Option<Found<bool>>,
    pub(crate) log_level: Option<Found<String>>,
    pub(crate) network_enabled: Option<Found<bool>>,
    pub(crate) network_listen_addr: Option<Found<String>>,
    pub(crate) shared_secret: Option<Found<Zeroizing<String>>>,
    pub(crate) shared_secret_env: Option<Found<String>>,
    pub(crate) bootstrap_peers: Option<Texts>,
    pub(crate) node_name: Option<Found<String>>,
    pub(crate) audit_enabled: Option<Found<bool>>,
    pub(crate) audit_log_path: Option<Found<String>>,
    pub(crate) audit_allow_convicted: Option<Texts>,
    pub(crate) audit_change_durability: Option<Found<String>>,
    pub(crate) audit_durability: Option<Found<String>>,
    pub(crate) audit_hash_algorithm: Option<Found<String>>,
    pub(crate) audit_interval_ms: Option<Found<String>>,
    pub(crate) audit_mirror_quota_mb: Option<Found<String>>,
    pub(crate) audit_require_peer_floor: Option<Found<bool>>,
    pub(crate) audit_witness_logs: Option<Texts>,
    pub(crate) model_provider: Option<Found<String>>,
    pub(crate) model_name: Option<Found<String>>,
    pub(crate) model_api_key_env: Option<Found<String>>,
    pub(crate) model_base_url: Option<Found<String>>,
    /// The hash of every value as it is written, to notice a change.
    pub(crate) hashes: BTreeMap<&'static str, [u8; 32]>,
}

type Texts = Found<Vec<Found<String>>>;

/// Where the value of a key is put, and of which type it must be.
enum Slot {
    Text(fn(&mut RawConfig) -> &mut Option<Found<String>>),
    Secret(fn(&mut RawConfig) -> &mut Option<Found<Zeroizing<String>>>),
    Flag(fn(&mut RawConfig) -> &mut Option<Found<bool>>),
    Texts(fn(&mut RawConfig) -> &mut Option<Texts>),
    /// An integer, as it was written.
    Number(fn(&mut RawConfig) -> &mut Option<Found<String>>),
}

struct Key {
    name: &'static str,
    slot: Slot,
}

const fn key(name: &'static str, slot: Slot) -> Key {
    Key { name, slot }
}

/// Every key of the format, with the table it stands in.
static KEYS: [Key; 25] = [
    key("api_key", Slot::Secret(|raw| &mut raw.api_key)),
    key("api_key_env", Slot::Text(|raw| &mut raw.api_key_env)),
    key("api_listen", Slot::Text(|raw| &mut raw.api_listen)),
    key(
        "api_require_auth_local",
        Slot::Flag(|raw| &mut raw.api_require_auth_local),
    ),
    key("log_level", Slot::Text(|raw| &mut raw.log_level)),
    key(
        "network.enabled",
        Slot::Flag(|raw| &mut raw.network_enabled),
    ),
    key(
        "network.listen_addr",
        Slot::Text(|raw| &mut raw.network_listen_addr),
    ),
    key(
        "network.shared_secret",
        Slot::Secret(|raw| &mut raw.shared_secret),
    ),
    key(
        "network.shared_secret_env",
        Slot::Text(|raw| &mut raw.shared_secret_env),
    ),
    key(
        "network.bootstrap_peers",
        Slot::Texts(|raw| &mut raw.bootstrap_peers),
    ),
    key("network.node_name", Slot::Text(|raw| &mut raw.node_name)),
    key("audit.enabled", Slot::Flag(|raw| &mut raw.audit_enabled)),
    key("audit.log_path", Slot::Text(|raw| &mut raw.audit_log_path)),
    key(
        "audit.allow_convicted",
        Slot::Texts(|raw| &mut raw.audit_allow_convicted),
    ),
    key(
        "audit.change_durability",
        Slot::Text(|raw| &mut raw.audit_change_durability),
    ),
    key(
        "audit.durability",
        Slot::Text(|raw| &mut raw.audit_durability),
    ),
    key(
        "audit.interval_ms",
        Slot::Number(|raw| &mut raw.audit_interval_ms),
    ),
    key(
        "audit.hash_algorithm",
        Slot::Text(|raw| &mut raw.audit_hash_algorithm),
    ),
    key(
        "audit.mirror_quota_mb",
        Slot::Number(|raw| &mut raw.audit_mirror_quota_mb),
    ),
    key(
        "audit.require_peer_floor",
        Slot::Flag(|raw| &mut raw.audit_require_peer_floor),
    ),
    key(
        "audit.witness_logs",
        Slot::Texts(|raw| &mut raw.audit_witness_logs),
    ),
    key(
        "default_model.provider",
        Slot::Text(|raw| &mut raw.model_provider),
    ),
    key("default_model.model", Slot::Text(|raw| &mut raw.model_name)),
    key(
        "default_model.api_key_env",
        Slot::Text(|raw| &mut raw.model_api_key_env),
    ),
    key(
        "default_model.base_url",
        Slot::Text(|raw| &mut raw.model_base_url),
    ),
];

/// Keys and tables that the guides describe and this version does not act on. Reading past them
/// would leave an operator believing in a control that is not there.
const NOT_ENFORCED: [&str; 10] = [
    "api_rate_limit",
    "users",
    "web.fetch",
    "security",
    "webhook_trigger",
    "webhook_triggers",
    "channels",
    "telegram",
    "discord",
    "slack",
];

/// Returns the name of every known key, `table.key`, in the order of the documentation.
pub fn known_keys() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|key| key.name)
}

/// Returns the name of every key that is documented and refused.
pub fn refused_keys() -> impl Iterator<Item = &'static str> {
    NOT_ENFORCED.into_iter()
}

/// Reads a file's text. What is wrong with its form is added to `problems`.
pub(crate) fn read(text: &str, problems: &mut Vec<Problem>) -> RawConfig {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut walk = Walk {
        text,
        raw: RawConfig::default(),
        problems,
    };
    for error in &errors {
        let place = walk.place(error.span().unwrap_or(0..0));
        let kind = ProblemKind::Syntax(error.message().to_owned());
        walk.problems.push(Problem { place, kind });
    }
    // After a syntax error the recovered table may hold halves of keys: complaining about those
    // as well would only hide the cause.
    if errors.is_empty() {
        walk.table(table.get_ref(), "");
    }
    walk.raw
}

struct Walk<'a> {
    text: &'a str,
    raw: RawConfig,
    problems: &'a mut Vec<Problem>,
}

impl Walk<'_> {
    fn table(&mut self, table: &DeTable<'_>, prefix: &str) {
        for (name, value) in table {
            let full = format!("{prefix}{}", name.get_ref());
            let as_table = format!("{full}.");
            if let Some(key) = KEYS.iter().find(|key| key.name == full) {
                self.put(key, value);
            } else if NOT_ENFORCED.contains(&full.as_str()) {
                self.problem(name.span(), ProblemKind::NotEnforced { name: full });
            } else if is_table(&as_table) {
                if let DeValue::Table(inner) = value.get_ref() {
                    self.table(inner, &as_table);
                } else {
                    self.wrong_type(value.span(), full, "a table", value.get_ref());
                }
            } else {
                let nearest = nearest(&full);
                self.problem(
                    name.span(),
                    ProblemKind::UnknownKey {
                        name: full,
                        nearest,
                    },
                );
            }
        }
    }

    fn put(&mut self, key: &Key, value: &Spanned<DeValue<'_>>) {
        let name = key.name.to_owned();
        let place = self.place(value.span());
        let written = self.text.get(value.span()).unwrap_or_default();
        let hash = Sha256::digest(written.as_bytes());
        self.raw.hashes.insert(key.name, hash.into());
        match (&key.slot, value.get_ref()) {
            (Slot::Text(slot), DeValue::String(text)) => {
                *slot(&mut self.raw) = Some(found(text.to_string(), place));
            }
            (Slot::Secret(slot), DeValue::String(text)) => {
                *slot(&mut self.raw) = Some(found(Zeroizing::new(text.to_string()), place));
            }
            (Slot::Flag(slot), DeValue::Boolean(flag)) => {
                *slot(&mut self.raw) = Some(found(*flag, place));
            }
            (Slot::Number(slot), DeValue::Integer(_)) => {
                *slot(&mut self.raw) = Some(found(written.to_owned(), place));
            }
            (Slot::Texts(slot), DeValue::Array(items)) => {
                let texts = items
                    .iter()
                    .filter_map(|item| self.item(key.name, item))
                    .collect();
                *slot(&mut self.raw) = Some(found(texts, place));
            }
            (Slot::Text(_) | Slot::Secret(_), other) => {
                self.wrong_type(value.span(), name, "a text in quotes", other);
            }
            (Slot::Number(_), other) => {
                self.wrong_type(value.span(), name, "a whole number", other);
            }
            (Slot::Flag(_), other) => self.wrong_type(value.span(), name, "true or false", other),
            (Slot::Texts(_), other) => {
                self.wrong_type(value.span(), name, "a list of texts, [\"…\"]", other);
            }
        }
    }

    fn item(&mut self, name: &str, item: &Spanned<DeValue<'_>>) -> Option<Found<String>> {
        if let DeValue::String(text) = item.get_ref() {
            return Some(found(text.to_string(), self.place(item.span())));
        }
        let name = format!("an item of {name}");
        self.wrong_type(item.span(), name, "a text in quotes", item.get_ref());
        None
    }

    fn wrong_type(
        &mut self,
        span: Range<usize>,
        name: String,
        expected: &'static str,
        found: &DeValue<'_>,
    ) {
        let found = type_name(found);
        self.problem(
            span,
            ProblemKind::Type {
                name,
                expected,
                found,
            },
        );
    }

    fn problem(&mut self, span: Range<usize>, kind: ProblemKind) {
        let place = self.place(span);
        self.problems.push(Problem { place, kind });
    }

    /// Counts lines and columns from 1; a column is a character.
    fn place(&self, span: Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .map_or(0, |line| line.chars().count())
            + 1;
        Place::File { line, column }
    }
}

fn found<T>(value: T, place: Place) -> Found<T> {
    Found { value, place }
}

fn is_table(prefix: &str) -> bool {
    known_keys()
        .chain(NOT_ENFORCED)
        .any(|name| name.starts_with(prefix))
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Finds the known key that was most likely meant: one of the same name in another table, or else
/// the most alike.
fn nearest(name: &str) -> Option<&'static str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    if let Some(same) = known_keys().find(|known| last(known) == last(name)) {
        return Some(same);
    }
    likeness::nearest(known_keys(), |known| {
        likeness::of(known, name).max(likeness::of(&last(known), &last(name)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_was_meant_is_found() {
        let check =
            |text: &str, expected: Option<&str>| assert_eq!(nearest(text), expected, "{text}");
        check("api_lisen", Some("api_listen"));
        check("api.api_key", Some("api_key"));
        check("shared_secret", Some("network.shared_secret"));
        check("network.listen_addresses", Some("network.listen_addr"));
        check("network.bootstrap", Some("network.bootstrap_peers"));
        check("default_model.modle", Some("default_model.model"));
        check("audit.log_file", Some("audit.log_path"));
        check("zzz", None);
        check("web.search", None);
        check("memory.decay_rate", None);
    }
}
