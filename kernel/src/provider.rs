//! Servers that speak the OpenAI chat protocol: where they are and where their keys are kept.
//!
//! A table, not code: a new provider is a new row.

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Provider {
    /// What a manifest or configuration calls it.
    pub name: &'static str,
    /// Where it is; `None` when only the configuration can say.
    pub base_url: Option<&'static str>,
    /// The environment variable its key is kept in; `None` when it needs none.
    pub key_variable: Option<&'static str>,
    /// How it wants the bound of the answer called.
    pub(crate) max_tokens_field: &'static str,
    /// Whether it reports usage only when asked with `stream_options`.
    pub(crate) stream_options: bool,
}

const fn hosted(name: &'static str, base_url: &'static str, key: &'static str) -> Provider {
    Provider {
        name,
        base_url: Some(base_url),
        key_variable: Some(key),
        max_tokens_field: "max_tokens",
        stream_options: true,
    }
}

const fn local(name: &'static str, base_url: Option<&'static str>) -> Provider {
    Provider {
        name,
        base_url,
        key_variable: None,
        max_tokens_field: "max_tokens",
        stream_options: true,
    }
}

/// All known providers.
pub const PROVIDERS: [Provider; 17] = [
    Provider {
        // OpenAI's newer models know this name only.
        max_tokens_field: "max_completion_tokens",
        ..hosted("openai", "https://api.openai.com/v1", "OPENAI_API_KEY")
    },
    hosted("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    hosted(
        "openrouter",
        "https://openrouter.ai/api/v1",
        "OPENROUTER_API_KEY",
    ),
    hosted(
        "deepseek",
        "https://api.deepseek.com/v1",
        "DEEPSEEK_API_KEY",
    ),
    Provider {
        // Reports usage unasked, and refuses fields it does not know.
        stream_options: false,
        ..hosted("mistral", "https://api.mistral.ai/v1", "MISTRAL_API_KEY")
    },
    hosted(
        "together",
        "https://api.together.xyz/v1",
        "TOGETHER_API_KEY",
    ),
    hosted(
        "fireworks",
        "https://api.fireworks.ai/inference/v1",
        "FIREWORKS_API_KEY",
    ),
    hosted("cerebras", "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    hosted("xai", "https://api.x.ai/v1", "XAI_API_KEY"),
    // The two below through their OpenAI-compatible entrances.
    hosted(
        "gemini",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GEMINI_API_KEY",
    ),
    hosted(
        "anthropic",
        "https://api.anthropic.com/v1",
        "ANTHROPIC_API_KEY",
    ),
    local("ollama", Some("http://127.0.0.1:11434/v1")),
    local("lmstudio", Some("http://127.0.0.1:1234/v1")),
    local("vllm", Some("http://127.0.0.1:8000/v1")),
    local("llamacpp", Some("http://127.0.0.1:8080/v1")),
    local("local", None),
    local("custom", None),
];

/// Looks a provider up by name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().find(|provider| provider.name == name)
}

/// Returns the environment variables the keys of the known providers are kept in: whoever reads the
/// environment puts those that are set into [`ModelKeys`](crate::ModelKeys).
pub fn key_variables() -> impl Iterator<Item = &'static str> {
    PROVIDERS
        .iter()
        .filter_map(|provider| provider.key_variable)
}

/// Returns all names for a sentence.
pub(crate) fn names() -> String {
    let names: Vec<&str> = PROVIDERS.iter().map(|provider| provider.name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_keys_go_over_tls_only() {
        for (at, provider) in PROVIDERS.iter().enumerate() {
            assert!(PROVIDERS[at + 1..].iter().all(|p| p.name != provider.name));
            if provider.key_variable.is_some() {
                let url = provider.base_url.expect("a hosted provider has an address");
                assert!(url.starts_with("https://") && !url.ends_with('/'), "{url}");
            }
        }
        assert!(find("openai").is_some() && find("OpenAI").is_none());
    }
}
