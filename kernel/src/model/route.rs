//! Which server is asked for which model, with which key.
//!
//! A key goes to the server of its provider, or to the one the node's configuration names; never to
//! an address that only a manifest names. A manifest is written by whoever may spawn an agent, and
//! must not be able to have a key of the node sent to a machine of theirs.

use std::fmt;

use reqwest::Url;
use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

use crate::ModelError;
use crate::config::{Config, ModelConfig};
use crate::manifest::Model;
use crate::provider::{self, PROVIDERS, Provider};

/// Models of OpenAI that refuse any temperature but their own.
const FIXED_TEMPERATURE: [&str; 4] = ["o1", "o3", "o4", "gpt-5"];

/// A settled way to a model. The key is redacted in `Debug`.
pub(crate) struct Route {
    pub(crate) provider: String,
    pub(crate) model: String,
    pub(crate) max_tokens: u32,
    pub(crate) temperature: f64,
    pub(super) url: Url,
    pub(super) authorization: Option<HeaderValue>,
    pub(super) max_tokens_field: &'static str,
    pub(super) stream_options: bool,
    pub(super) fixed_temperature: bool,
}

impl Route {
    /// Returns host and port, for errors.
    pub(super) fn host(&self) -> String {
        host(&self.url)
    }

    /// Returns `provider/model`, for the audit log.
    pub(crate) fn target(&self) -> String {
        format!("{}/{}", self.provider, self.model)
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("provider", &self.provider)
            .field("model", &self.model)
            .field("host", &self.host())
            .finish_non_exhaustive()
    }
}

/// Settles the way to the model of a manifest.
pub(crate) fn find(model: &Model, config: &Config) -> Result<Route, ModelError> {
    let default = &config.default_model;
    let uses_default = model.provider.is_empty() || model.provider == default.provider;
    let name = if model.provider.is_empty() {
        &default.provider
    } else {
        &model.provider
    };
    let row = provider::find(name);
    let trusted = trusted_url(uses_default.then_some(default), row)?;
    let base = match &model.base_url {
        Some(text) => parse_url(text)?,
        None => trusted.clone().ok_or_else(|| match name.as_str() {
            "" => ModelError::NoModel,
            _named => ModelError::UnknownProvider {
                provider: name.clone(),
            },
        })?,
    };
    let model_name = match (model.model.is_empty(), uses_default) {
        (false, _) => model.model.clone(),
        (true, true) if !default.model.is_empty() => default.model.clone(),
        (true, _) => return Err(ModelError::NoModel),
    };
    let is_trusted = trusted.is_some_and(|trusted| trusted.origin() == base.origin());
    let key = match &model.api_key_env {
        Some(variable) => Some(named_key(variable, name, &base, config)?),
        None if is_trusted => own_key(uses_default, name, row, config)?,
        None => None,
    };
    let authorization = key.map(|key| bearer(&key, name)).transpose()?;
    Ok(Route {
        provider: name.clone(),
        max_tokens: model.max_tokens,
        temperature: model.temperature,
        url: endpoint(base),
        authorization,
        max_tokens_field: row.map_or("max_tokens", |row| row.max_tokens_field),
        stream_options: row.is_none_or(|row| row.stream_options),
        fixed_temperature: name == "openai"
            && FIXED_TEMPERATURE
                .iter()
                .any(|prefix| model_name.starts_with(prefix)),
        model: model_name,
    })
}

/// Where the key of a provider may go: what the configuration says, else what the table says.
fn trusted_url(
    default: Option<&ModelConfig>,
    row: Option<&Provider>,
) -> Result<Option<Url>, ModelError> {
    let configured = default.and_then(|default| default.base_url.as_deref());
    let known = row.and_then(|row| row.base_url);
    configured.or(known).map(parse_url).transpose()
}

/// The key of the provider itself; none where none is needed.
fn own_key(
    uses_default: bool,
    name: &str,
    row: Option<&Provider>,
    config: &Config,
) -> Result<Option<Zeroizing<String>>, ModelError> {
    let default = &config.default_model;
    if let Some(key) = default.api_key.as_ref().filter(|_| uses_default) {
        return Ok(Some(key.clone()));
    }
    let Some(variable) = row.and_then(|row| row.key_variable) else {
        return Ok(None);
    };
    match config.model_keys.get(variable) {
        Some(key) => Ok(Some(key.clone())),
        // A server of one's own in the place of the provider's may need none.
        None if uses_default && default.base_url.is_some() => Ok(None),
        None => Err(ModelError::NoKey {
            provider: name.to_owned(),
            variable: variable.to_owned(),
        }),
    }
}

/// The key a manifest names, if it may go to that address.
fn named_key(
    variable: &str,
    name: &str,
    base: &Url,
    config: &Config,
) -> Result<Zeroizing<String>, ModelError> {
    let owner = PROVIDERS
        .iter()
        .find(|row| row.key_variable == Some(variable));
    let known = owner.and_then(|row| row.base_url);
    let configured = config.default_model.base_url.as_deref();
    let allowed = known
        .into_iter()
        .chain(configured)
        .filter_map(|url| parse_url(url).ok())
        .any(|url| url.origin() == base.origin());
    if !allowed {
        return Err(ModelError::KeyNotForHost {
            variable: variable.to_owned(),
            host: host(base),
        });
    }
    config
        .model_keys
        .get(variable)
        .cloned()
        .ok_or_else(|| ModelError::NoKey {
            provider: name.to_owned(),
            variable: variable.to_owned(),
        })
}

fn bearer(key: &str, provider: &str) -> Result<HeaderValue, ModelError> {
    let text = Zeroizing::new(format!("Bearer {}", key.trim()));
    let mut value = HeaderValue::from_str(&text).map_err(|_not_ascii| ModelError::NoKey {
        provider: provider.to_owned(),
        variable: "a key of printable ASCII".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn parse_url(text: &str) -> Result<Url, ModelError> {
    let bad = || ModelError::BadAddress { url: redact(text) };
    let url = Url::parse(text.trim()).map_err(|_not_a_url| bad())?;
    let sound = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if sound { Ok(url) } else { Err(bad()) }
}

/// Leaves out what could be a password or a key.
fn redact(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    match url[..end].rsplit_once('@') {
        Some((_, place)) => format!("…@{place}"),
        None => url[..end].to_owned(),
    }
}

fn endpoint(mut base: Url) -> Url {
    let path = format!("{}/chat/completions", base.path().trim_end_matches('/'));
    base.set_path(&path);
    base
}

fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Limits, ModelKeys};
    use std::path::PathBuf;

    fn config(provider: &str, base_url: Option<&str>, api_key: Option<&str>) -> Config {
        let mut model_keys = ModelKeys::default();
        model_keys.insert("GROQ_API_KEY", Zeroizing::new("groq-key".to_owned()));
        model_keys.insert("MY_KEY", Zeroizing::new("my-key".to_owned()));
        Config {
            data_dir: PathBuf::new(),
            agents_dir: PathBuf::new(),
            default_model: ModelConfig {
                provider: provider.to_owned(),
                model: "base".to_owned(),
                api_key: api_key.map(|key| Zeroizing::new(key.to_owned())),
                base_url: base_url.map(str::to_owned),
            },
            model_keys,
            limits: Limits::default(),
        }
    }

    fn model(provider: &str, name: &str, base_url: Option<&str>, variable: Option<&str>) -> Model {
        Model {
            provider: provider.to_owned(),
            model: name.to_owned(),
            max_tokens: 1,
            temperature: 0.0,
            system_prompt: String::new(),
            api_key_env: variable.map(str::to_owned),
            base_url: base_url.map(str::to_owned),
        }
    }

    fn parts(route: Result<Route, ModelError>) -> (String, String, Option<String>) {
        let route = route.expect("a way");
        let key = route
            .authorization
            .map(|value| value.to_str().expect("ascii").to_owned());
        (route.url.to_string(), route.model, key)
    }

    #[test]
    fn what_a_manifest_leaves_out_comes_from_the_node() {
        let node = config("local", Some("http://127.0.0.1:9/v1/"), Some("k"));
        let (url, name, key) = parts(find(&model("", "", None, None), &node));
        assert_eq!(url, "http://127.0.0.1:9/v1/chat/completions");
        assert_eq!((name.as_str(), key.as_deref()), ("base", Some("Bearer k")));
        let (url, name, key) = parts(find(&model("groq", "llama", None, None), &node));
        assert_eq!(url, "https://api.groq.com/openai/v1/chat/completions");
        assert_eq!(
            (name.as_str(), key.as_deref()),
            ("llama", Some("Bearer groq-key"))
        );
        let (_, _, key) = parts(find(&model("ollama", "m", None, None), &node));
        assert_eq!(key, None);
    }

    #[test]
    fn a_key_goes_to_no_address_that_only_a_manifest_names() {
        let evil = Some("https://evil.example/v1");
        let node = config("openai", None, Some("sk"));
        let (url, _, key) = parts(find(&model("openai", "m", evil, None), &node));
        assert_eq!(
            (url.as_str(), key),
            ("https://evil.example/v1/chat/completions", None)
        );
        let (_, _, key) = parts(find(&model("", "m", evil, None), &node));
        assert_eq!(key, None);
        for variable in ["GROQ_API_KEY", "MY_KEY"] {
            let refused = find(&model("groq", "m", evil, Some(variable)), &node);
            assert!(
                matches!(refused, Err(ModelError::KeyNotForHost { .. })),
                "{refused:?}"
            );
        }
        let node = config("custom", evil, None);
        let (_, _, key) = parts(find(&model("", "m", None, Some("MY_KEY")), &node));
        assert_eq!(key.as_deref(), Some("Bearer my-key"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let node = config("openai", None, None);
        let check = |found: Result<Route, ModelError>, code: &str| {
            assert_eq!(found.expect_err("no way").code(), code);
        };
        check(find(&model("", "", None, None), &node), "model_no_key");
        check(
            find(&model("mistral", "m", None, None), &node),
            "model_no_key",
        );
        check(find(&model("groq", "", None, None), &node), "model_not_set");
        let nothing = find(&model("", "", None, None), &config("", None, None));
        let shown = nothing.expect_err("no way").to_string();
        assert!(shown.contains("[default_model] in config.toml"), "{shown}");
        check(
            find(&model("nobody", "m", None, None), &node),
            "model_unknown_provider",
        );
        check(
            find(&model("custom", "m", None, None), &node),
            "model_unknown_provider",
        );
        for url in [
            "ftp://x/",
            "x",
            "",
            "http://u:p@h/v1",
            "http://h/v1?key=1",
            "file:///etc",
        ] {
            check(
                find(&model("custom", "m", Some(url), None), &node),
                "model_bad_address",
            );
        }
        let shown = find(
            &model("custom", "m", Some("http://u:canary@h/v1?k=canary"), None),
            &node,
        );
        assert!(!shown.expect_err("refused").to_string().contains("canary"));
    }

    #[test]
    fn a_key_does_not_show_in_debug() {
        let node = config("openai", None, Some("sk-canary"));
        let route = find(&model("", "", None, None), &node).expect("a way");
        assert!(!format!("{route:?} {:?}", route.authorization).contains("canary"));
    }
}
