//! What the kernel is told when it opens. Read from no file and no environment here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

/// Everything the kernel is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder of `openfang.db`; made when it is not there.
    pub data_dir: PathBuf,
    /// The folder whose `*/agent.toml` are spawned at start when they are not there yet.
    pub agents_dir: PathBuf,
    /// What agents use that name no model of their own.
    pub default_model: ModelConfig,
    /// The keys of other providers, by environment variable.
    pub model_keys: ModelKeys,
    /// Bounds; [`Limits::default`] is safe in production.
    pub limits: Limits,
}

/// A model and where it is.
#[derive(Clone)]
pub struct ModelConfig {
    /// A name of [`provider::PROVIDERS`](crate::provider::PROVIDERS), or any word beside a `base_url`.
    pub provider: String,
    /// What the server calls the model.
    pub model: String,
    /// The key; `None` for a server that needs none, or to take it from [`Config::model_keys`].
    pub api_key: Option<Zeroizing<String>>,
    /// The address up to and without `/chat/completions`; `None` is the provider's own.
    pub base_url: Option<String>,
}

impl fmt::Debug for ModelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelConfig")
            .field("provider", &self.provider)
            .field("model", &self.model)
            .field("api_key", &self.api_key.as_ref().map(|_key| "redacted"))
            .field("base_url", &self.base_url)
            .finish()
    }
}

/// Keys of model servers by the environment variable they were found in. Redacted, wiped when dropped.
#[derive(Clone, Default)]
pub struct ModelKeys(BTreeMap<String, Zeroizing<String>>);

impl ModelKeys {
    /// Adds a key; an empty one is as good as none.
    pub fn insert(&mut self, variable: impl Into<String>, key: Zeroizing<String>) {
        if !key.trim().is_empty() {
            self.0.insert(variable.into(), key);
        }
    }

    /// Returns the keys, for what must know them to keep them out of a log.
    pub fn secrets(&self) -> impl Iterator<Item = &[u8]> {
        self.0.values().map(|key| key.trim().as_bytes())
    }

    pub(crate) fn get(&self, variable: &str) -> Option<&Zeroizing<String>> {
        self.0.get(variable)
    }
}

impl fmt::Debug for ModelKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Bounds of everything that could grow.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The longest turn; a caller may ask for less.
    pub turn_timeout: Duration,
    /// How many messages may wait for one agent, beside the one it answers.
    pub waiting_per_agent: usize,
    /// How many turns may run or wait on the node.
    pub turns: usize,
    /// How many agents the node may have.
    pub agents: usize,
    /// How many events of a turn may wait for a slow caller before the turn waits for it.
    pub events: usize,
    /// How model servers are asked.
    pub model: ModelLimits,
}

/// How model servers are asked.
#[derive(Debug, Clone)]
pub struct ModelLimits {
    /// For the connection, TLS included.
    pub connect_timeout: Duration,
    /// From the request to the first byte of the answer: a small machine reads a long conversation slowly.
    pub first_byte_timeout: Duration,
    /// Between two pieces of an answer.
    pub idle_timeout: Duration,
    /// How often a request is made at most, the first included.
    pub attempts: u32,
    /// The first pause is drawn between zero and this; each further bound is twice the one before.
    pub backoff_base: Duration,
    /// No pause is longer, unless the server asks for it.
    pub backoff_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Ten minutes: several slow model requests and tools in one turn.
            turn_timeout: Duration::from_secs(600),
            waiting_per_agent: 64,
            turns: 4096,
            agents: 10_000,
            events: 64,
            model: ModelLimits::default(),
        }
    }
}

impl Default for ModelLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(180),
            idle_timeout: Duration::from_secs(60),
            attempts: 4,
            backoff_base: Duration::from_millis(500),
            backoff_max: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_not_show_in_debug() {
        let mut model_keys = ModelKeys::default();
        model_keys.insert("GROQ_API_KEY", Zeroizing::new("gsk-canary".to_owned()));
        model_keys.insert("EMPTY", Zeroizing::new("  ".to_owned()));
        let config = Config {
            data_dir: PathBuf::new(),
            agents_dir: PathBuf::new(),
            default_model: ModelConfig {
                provider: "openai".to_owned(),
                model: "m".to_owned(),
                api_key: Some(Zeroizing::new("sk-canary".to_owned())),
                base_url: None,
            },
            model_keys,
            limits: Limits::default(),
        };
        let shown = format!("{config:?}");
        assert!(!shown.contains("canary"), "{shown}");
        assert!(shown.contains("GROQ_API_KEY") && !shown.contains("EMPTY"));
    }
}
