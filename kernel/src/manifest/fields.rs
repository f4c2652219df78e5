//! The keys of a manifest, with their types, bounds and defaults.

use openfang_id::AgentName;
use toml::de::DeTable;

use super::read::{Notes, Section, nearest};
use super::{
    Capabilities, ITERATIONS_MAX, MANIFEST_BYTES_MAX, Manifest, ManifestError, ManifestWarning,
    Model, Problem, Resources, WarningKind,
};
use crate::tool::Tool;

/// Stands for a name that is missing or no name, so that the other keys are looked at all the same.
const NAME_MISSING: &str = "unnamed";
const VERSION_DEFAULT: &str = "0.1.0";
const MODULE_DEFAULT: &str = "builtin:chat";
const SYSTEM_PROMPT_DEFAULT: &str = "You are a helpful AI agent.";
const TOKENS_DEFAULT: u32 = 4096;
const TOKENS_MAX: u64 = 1_000_000;
const TEMPERATURE_DEFAULT: f64 = 0.7;
const HISTORY_DEFAULT: u32 = 20;
/// A session is shown to a model again with every request: more than this is a mistake.
const HISTORY_MAX: u64 = 1000;
const ITERATIONS_DEFAULT: u32 = 50;
const TOOL_CALLS_PER_MINUTE_DEFAULT: u32 = 60;
/// A line of text, such as a version.
const LINE_BYTES_MAX: usize = 256;
/// A description travels to every node.
const DESCRIPTION_BYTES_MAX: usize = 4096;
const PROMPT_BYTES_MAX: usize = 64 * 1024;
/// Tags travel to every node.
const TAGS_MAX: usize = 32;
const LIST_MAX: usize = 256;
const FALLBACKS_MAX: usize = 8;

pub(super) fn parse(
    text: &str,
    source: &str,
) -> Result<(Manifest, Vec<ManifestWarning>), ManifestError> {
    let failed = |problems| ManifestError {
        source_name: source.to_owned(),
        problems,
    };
    if text.len() > MANIFEST_BYTES_MAX {
        let what = format!(
            "{} bytes are more than the {MANIFEST_BYTES_MAX} of any manifest",
            text.len()
        );
        return Err(failed(vec![Problem {
            line: 1,
            column: 1,
            what,
        }]));
    }
    let notes = Notes::new(text, source);
    let manifest = match DeTable::parse(text) {
        Ok(table) => read(Section::root(table.get_ref(), &notes), text),
        Err(error) => {
            notes.problem(&error.span().unwrap_or(0..0), error.message().to_owned());
            None
        }
    };
    let (problems, warnings) = notes.into_parts();
    match manifest {
        Some(manifest) if problems.is_empty() => Ok((manifest, warnings)),
        Some(_) | None => Err(failed(problems)),
    }
}

fn read(mut top: Section<'_>, text: &str) -> Option<Manifest> {
    let manifest = Manifest {
        name: name(&mut top).or_else(|| NAME_MISSING.parse().ok())?,
        version: top.string("version", VERSION_DEFAULT, LINE_BYTES_MAX),
        description: top.string("description", "", DESCRIPTION_BYTES_MAX),
        author: top.string("author", "", LINE_BYTES_MAX),
        module: top.string("module", MODULE_DEFAULT, LINE_BYTES_MAX),
        tags: top.strings("tags", TAGS_MAX).unwrap_or_default(),
        metadata: top.free("metadata"),
        tool_allowlist: tools(&mut top, "tool_allowlist"),
        tool_blocklist: tools(&mut top, "tool_blocklist"),
        max_history_messages: bounded(&mut top, "max_history_messages", 0..=HISTORY_MAX)
            .unwrap_or(HISTORY_DEFAULT),
        model: match top.section("model") {
            Some(section) => model(section),
            None => model_default(),
        },
        fallback_models: top
            .sections("fallback_models", FALLBACKS_MAX)
            .into_iter()
            .map(model)
            .collect(),
        resources: resources(top.section("resources")),
        capabilities: capabilities(top.section("capabilities")),
        max_iterations: autonomous(top.section("autonomous")),
        text: text.to_owned(),
    };
    check_without_effect(&mut top);
    top.finish();
    Some(manifest)
}

/// The one key that every manifest has. What is wrong with it is noted.
fn name(top: &mut Section<'_>) -> Option<AgentName> {
    if top.any("name").is_none() {
        let what = "`name` is missing: say what the agent is called, such as name = \"helper\"";
        top.notes().problem(&(0..0), what.to_owned());
    }
    let (name, value) = top.text("name", LINE_BYTES_MAX)?;
    name.parse()
        .inspect_err(|why: &openfang_id::NameError| top.reject("name", value, &why.to_string()))
        .ok()
}

/// Keys that are understood, checked where they have a type, and not in force in this program.
fn check_without_effect(top: &mut Section<'_>) {
    if top
        .any("schedule")
        .is_some_and(|value| value.get_ref().as_str() != Some("reactive"))
    {
        top.without_effect("schedule", "agents answer messages only");
    }
    if top
        .any("priority")
        .is_some_and(|value| value.get_ref().as_str() != Some("Normal"))
    {
        top.without_effect("priority", "all agents have the same");
    }
    top.without_effect("profile", "tools are granted by [capabilities] tools alone");
    top.without_effect("tools", "no tool of this program has parameters");
    top.without_effect("skills", "there are no skills");
    top.without_effect("mcp_servers", "there are no MCP servers");
    top.without_effect("routing", "the model is the one that is named");
    top.without_effect("pinned_model", "the model is the one that is named");
    top.without_effect("workspace", "no tool of this program uses files");
    top.without_effect("state_dir", "state is kept in the node's database");
    top.without_effect("generate_identity_files", "no files are generated");
    top.without_effect("exec_policy", "no tool of this program runs commands");
    top.without_effect("cache_context", "conversations are kept in the database");
}

fn model_default() -> Model {
    Model {
        provider: String::new(),
        model: String::new(),
        max_tokens: TOKENS_DEFAULT,
        temperature: TEMPERATURE_DEFAULT,
        system_prompt: SYSTEM_PROMPT_DEFAULT.to_owned(),
        api_key_env: None,
        base_url: None,
    }
}

fn model(mut section: Section<'_>) -> Model {
    let unless_default = |text: String| {
        if text == "default" {
            String::new()
        } else {
            text
        }
    };
    let alias = section.string("name", "", LINE_BYTES_MAX);
    let model = Model {
        provider: unless_default(section.string("provider", "", LINE_BYTES_MAX)),
        model: unless_default(section.string("model", &alias, LINE_BYTES_MAX)),
        max_tokens: bounded(&mut section, "max_tokens", 1..=TOKENS_MAX).unwrap_or(TOKENS_DEFAULT),
        temperature: section
            .number("temperature", 0.0..=2.0)
            .unwrap_or(TEMPERATURE_DEFAULT),
        system_prompt: section.string("system_prompt", SYSTEM_PROMPT_DEFAULT, PROMPT_BYTES_MAX),
        api_key_env: section
            .text("api_key_env", LINE_BYTES_MAX)
            .map(|(text, _)| text.to_owned()),
        base_url: section
            .text("base_url", 2048)
            .map(|(text, _)| text.to_owned()),
    };
    section.finish();
    model
}

fn resources(section: Option<Section<'_>>) -> Resources {
    let mut resources = Resources {
        max_tool_calls_per_minute: TOOL_CALLS_PER_MINUTE_DEFAULT,
        max_llm_tokens_per_hour: 0,
    };
    let Some(mut section) = section else {
        return resources;
    };
    if let Some(calls) = bounded(
        &mut section,
        "max_tool_calls_per_minute",
        0..=u64::from(u32::MAX),
    ) {
        resources.max_tool_calls_per_minute = calls;
    }
    if let Some((tokens, _)) = section.integer("max_llm_tokens_per_hour", 0..=u64::MAX) {
        resources.max_llm_tokens_per_hour = tokens;
    }
    for key in [
        "max_memory_bytes",
        "max_cpu_time_ms",
        "max_network_bytes_per_hour",
    ] {
        section.without_effect(key, "no foreign code runs in this program");
    }
    for key in [
        "max_cost_per_hour_usd",
        "max_cost_per_day_usd",
        "max_cost_per_month_usd",
    ] {
        section.without_effect(
            key,
            "costs are not counted; max_llm_tokens_per_hour is in force",
        );
    }
    section.finish();
    resources
}

fn capabilities(section: Option<Section<'_>>) -> Capabilities {
    let Some(mut section) = section else {
        return Capabilities::default();
    };
    let capabilities = Capabilities {
        tools: tools(&mut section, "tools"),
        agent_message: section.strings("agent_message", LIST_MAX),
        memory_read: section.strings("memory_read", LIST_MAX),
        memory_write: section.strings("memory_write", LIST_MAX),
        ofp_discover: section.boolean("ofp_discover"),
        ofp_connect: section.strings("ofp_connect", LIST_MAX),
    };
    // They grant what no tool of this program can do: there is nothing to hold back.
    for key in ["network", "shell"] {
        section.strings(key, LIST_MAX);
    }
    section.boolean("agent_spawn");
    section.finish();
    capabilities
}

fn autonomous(section: Option<Section<'_>>) -> u32 {
    let Some(mut section) = section else {
        return ITERATIONS_DEFAULT;
    };
    let asked = section.integer("max_iterations", 1..=u64::from(u32::MAX));
    let max_iterations = match asked {
        Some((asked, value)) if asked > u64::from(ITERATIONS_MAX) => {
            let to = u64::from(ITERATIONS_MAX);
            let key = section.full("max_iterations");
            section
                .notes()
                .warn(&value.span(), key, WarningKind::Lowered { to });
            ITERATIONS_MAX
        }
        Some((asked, _)) => u32::try_from(asked).unwrap_or(ITERATIONS_MAX),
        None => ITERATIONS_DEFAULT,
    };
    for key in [
        "max_restarts",
        "heartbeat_interval_secs",
        "heartbeat_timeout_secs",
        "heartbeat_channel",
        "quiet_hours",
    ] {
        section.without_effect(key, "agents answer messages only");
    }
    section.finish();
    max_iterations
}

/// A list of tool names or patterns; a name that is no tool is a warning.
fn tools(section: &mut Section<'_>, key: &'static str) -> Vec<String> {
    let list = section.list(key, LIST_MAX).unwrap_or_default();
    for (text, span) in &list {
        if !text.contains('*') && Tool::find(text).is_none() {
            let what = WarningKind::UnknownTool {
                tool: (*text).to_owned(),
                nearest: nearest(text, Tool::ALL.iter().map(|tool| tool.name())),
            };
            section.notes().warn(span, section.full(key), what);
        }
    }
    list.into_iter().map(|(text, _)| text.to_owned()).collect()
}

fn bounded(
    section: &mut Section<'_>,
    key: &'static str,
    range: std::ops::RangeInclusive<u64>,
) -> Option<u32> {
    let (number, _) = section.integer(key, range)?;
    u32::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse_ok(text: &str) -> (Manifest, Vec<String>) {
        let (manifest, warnings) = parse(text, "agent.toml").expect("a valid manifest");
        (manifest, warnings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_manifest_without_a_name_is_refused() {
        for text in ["", "# nothing\n", "module = \"builtin:echo\""] {
            let error = parse(text, "a.toml").expect_err("no name");
            assert_eq!(
                error.to_string(),
                "a.toml:1:1: `name` is missing: say what the agent is called, such as name = \"helper\"",
                "{text}"
            );
        }
    }

    #[test]
    fn a_manifest_of_a_name_has_the_defaults() {
        let (manifest, warnings) = parse_ok("name = \"x\"");
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(manifest.module, "builtin:chat");
        assert_eq!(manifest.max_iterations, 50);
        assert_eq!(manifest.max_history_messages, 20);
        assert_eq!(manifest.model, model_default());
        assert_eq!(manifest.resources.max_tool_calls_per_minute, 60);
        assert_eq!(manifest.capabilities, Capabilities::default());
    }

    #[test]
    fn every_field_is_read() {
        let (manifest, warnings) = parse_ok(
            r#"
name = "coder"
version = "1.2.3"
description = "writes code"
author = "me"
module = "builtin:chat"
tags = ["dev", "x"]
max_history_messages = 5
tool_blocklist = ["agent_send"]
schedule = "reactive"
[metadata]
team = "a"
level = 3
[model]
provider = "groq"
name = "llama"
max_tokens = 100
temperature = 1
system_prompt = "Be brief."
api_key_env = "GROQ_API_KEY"
base_url = "http://localhost:1/v1"
[[fallback_models]]
provider = "ollama"
model = "default"
[resources]
max_tool_calls_per_minute = 2
max_llm_tokens_per_hour = 1_000
[capabilities]
tools = ["agent_send", "memory_*"]
agent_message = ["b*"]
ofp_discover = false
network = ["*"]
[autonomous]
max_iterations = 7
"#,
        );
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(manifest.metadata["level"], "3");
        assert_eq!(manifest.model.model, "llama");
        assert!((manifest.model.temperature - 1.0).abs() < f64::EPSILON);
        assert_eq!(manifest.fallback_models[0].provider, "ollama");
        assert_eq!(manifest.fallback_models[0].model, "");
        assert_eq!(manifest.resources.max_llm_tokens_per_hour, 1000);
        assert_eq!(
            manifest.capabilities.agent_message,
            Some(vec!["b*".to_owned()])
        );
        assert_eq!(manifest.capabilities.ofp_discover, Some(false));
        assert_eq!(manifest.capabilities.memory_read, None);
        assert_eq!(manifest.max_iterations, 7);
    }

    #[test]
    fn what_has_no_effect_is_said_with_its_place() {
        let (manifest, warnings) = parse_ok(
            "name = \"x\"\nmodle = \"x\"\n[capabilities]\ntools = [\"agent_lst\", \"web_fetch\"]\n[autonomous]\nmax_iterations = 5000\n[resources]\nmax_cost_per_hour_usd = 1.5\n[x.y]\n",
        );
        assert_eq!(manifest.max_iterations, ITERATIONS_MAX);
        assert_eq!(
            warnings,
            [
                "agent.toml:2:1: unknown key `modle` is ignored; did you mean `module`?",
                "agent.toml:4:10: `capabilities.tools` names \"agent_lst\", which is no tool of this program; did you mean `agent_list`?",
                "agent.toml:4:23: `capabilities.tools` names \"web_fetch\", which is no tool of this program",
                "agent.toml:6:18: `autonomous.max_iterations` is lowered to 100, the most possible",
                "agent.toml:8:25: `resources.max_cost_per_hour_usd` has no effect: costs are not counted; max_llm_tokens_per_hour is in force",
                "agent.toml:9:2: unknown key `x` is ignored",
            ]
        );
    }

    #[test]
    fn all_problems_are_told_at_once_with_their_places() {
        let check = |text: &str, expected: &[&str]| {
            let error = parse(text, "a.toml").expect_err("a bad manifest");
            let shown = error.to_string();
            assert_eq!(shown.lines().collect::<Vec<_>>(), expected, "{text}");
        };
        check(
            "name = \"x\"\nmodule = 3\n[model]\nmax_tokens = \"many\"\ntemperature = 9\n",
            &[
                "a.toml:2:10: `module` must be a string, not a TOML integer",
                "a.toml:4:14: `model.max_tokens` must be an integer, not a TOML string",
                "a.toml:5:15: `model.temperature`: must be from 0 to 2",
            ],
        );
        check(
            "name = \"a b\"",
            &[
                "a.toml:1:8: `name`: ' ' is not allowed in a name here: use letters, digits, '.', '_' and '-', and start with a letter or digit",
            ],
        );
        check(
            "name = \"x\"\n[capabilities]\ntools = \"all\"\nofp_discover = 1",
            &[
                "a.toml:3:9: `capabilities.tools` must be a list of strings, not a TOML string",
                "a.toml:4:16: `capabilities.ofp_discover` must be true or false, not a TOML integer",
            ],
        );
        let broken = parse("name = \n", "a.toml").expect_err("no value");
        assert_eq!(broken.problems[0].line, 1, "{broken}");
        let large = parse(&"#".repeat(MANIFEST_BYTES_MAX + 1), "a.toml").expect_err("too large");
        assert_eq!(large.problems.len(), 1);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,200}") {
            if let Err(error) = parse(&text, "p") {
                prop_assert!(!error.problems.is_empty());
            }
        }

        #[test]
        fn no_value_makes_the_parser_panic(
            key in "(name|module|tags|model|capabilities|resources|autonomous|fallback_models|metadata|schedule)",
            value in r#"(1|-1|1.5|true|"x"|\[\]|\[1\]|\{\}|\{a=1\}|\[\{\}\]|1979-05-27|0xff)"#,
        ) {
            if let Err(error) = parse(&format!("{key} = {value}"), "p") {
                prop_assert!(!error.problems.is_empty());
            }
        }
    }
}
