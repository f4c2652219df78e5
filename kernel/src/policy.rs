//! What an agent may do: everything that its manifest does not grant is refused.

use std::collections::BTreeSet;

use crate::Manifest;
use crate::tool::Tool;

/// The grants of one agent.
#[derive(Debug, Clone)]
pub(crate) struct Grants {
    tools: BTreeSet<Tool>,
    agent_message: Option<Vec<String>>,
    memory_read: Option<Vec<String>>,
    memory_write: Option<Vec<String>>,
    ofp_discover: bool,
    ofp_connect: Option<Vec<String>>,
}

impl Grants {
    pub(crate) fn none() -> Self {
        Self {
            tools: BTreeSet::new(),
            agent_message: Some(Vec::new()),
            memory_read: Some(Vec::new()),
            memory_write: Some(Vec::new()),
            ofp_discover: false,
            ofp_connect: Some(Vec::new()),
        }
    }

    pub(crate) fn of(manifest: &Manifest) -> Self {
        let wanted = &manifest.capabilities;
        let granted = |tool: &Tool| {
            let name = tool.name();
            any_matches(&wanted.tools, name)
                && (manifest.tool_allowlist.is_empty()
                    || any_matches(&manifest.tool_allowlist, name))
                && !any_matches(&manifest.tool_blocklist, name)
        };
        Self {
            tools: Tool::ALL.into_iter().filter(granted).collect(),
            agent_message: wanted.agent_message.clone(),
            memory_read: wanted.memory_read.clone(),
            memory_write: wanted.memory_write.clone(),
            ofp_discover: wanted.ofp_discover.unwrap_or(true),
            ofp_connect: wanted.ofp_connect.clone(),
        }
    }

    /// Returns the tools, by name.
    pub(crate) fn tools(&self) -> impl Iterator<Item = Tool> + '_ {
        self.tools.iter().copied()
    }

    /// Whether it may send to an agent that goes by any of these names.
    pub(crate) fn may_message(&self, names: &[String]) -> bool {
        let allowed = |patterns: &Vec<String>| names.iter().any(|name| any_matches(patterns, name));
        self.agent_message.as_ref().is_none_or(allowed)
    }

    /// Whether it may send to another node that goes by any of these names.
    pub(crate) fn may_connect(&self, names: &[String]) -> bool {
        let allowed = |patterns: &Vec<String>| names.iter().any(|name| any_matches(patterns, name));
        self.ofp_connect.as_ref().is_none_or(allowed)
    }

    pub(crate) fn may_discover(&self) -> bool {
        self.ofp_discover
    }

    pub(crate) fn may_read(&self, key: &str) -> bool {
        self.memory_read
            .as_ref()
            .is_none_or(|patterns| key_matches(patterns, key))
    }

    pub(crate) fn may_write(&self, key: &str) -> bool {
        self.memory_write
            .as_ref()
            .is_none_or(|patterns| key_matches(patterns, key))
    }
}

/// Memory is each agent's own, so that `self.KEY` and `KEY` mean the same.
fn key_matches(patterns: &[String], key: &str) -> bool {
    any_matches(patterns, key) || any_matches(patterns, &format!("self.{key}"))
}

fn any_matches(patterns: &[String], text: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, text))
}

/// Whether a text is as a pattern says, in which `*` stands for any text. Takes time linear in the
/// product of both lengths at most.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut left) = text.strip_prefix(head) else {
        return false;
    };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return left.ends_with(part);
        }
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        let check = |pattern: &str, text: &str, expected: bool| {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        };
        check("a", "a", true);
        check("a", "ab", false);
        check("", "", true);
        check("", "a", false);
        check("*", "", true);
        check("*", "abc", true);
        check("a*", "abc", true);
        check("*c", "abc", true);
        check("a*c", "abc", true);
        check("a*c", "ac", true);
        check("a*a", "a", false);
        check("a*b*c", "a-b-b-c", true);
        check("a*b*c", "a-c-b", false);
        check("**", "x", true);
    }

    fn grants(toml: &str) -> Grants {
        let toml = format!("name = \"x\"\n{toml}");
        Grants::of(&Manifest::parse(&toml, "t").expect("a manifest").0)
    }

    #[test]
    fn an_empty_list_of_tools_grants_none() {
        let names = |toml: &str| -> Vec<&str> { grants(toml).tools().map(Tool::name).collect() };
        assert_eq!(names(""), Vec::<&str>::new());
        assert_eq!(names("[capabilities]\ntools = []"), Vec::<&str>::new());
        assert_eq!(
            names("[capabilities]\ntools = [\"*\"]").len(),
            Tool::ALL.len()
        );
        assert_eq!(
            names(
                "tool_blocklist = [\"memory_store\"]\n[capabilities]\ntools = [\"memory_*\", \"shell\"]"
            ),
            ["memory_recall"]
        );
        assert_eq!(
            names("tool_allowlist = [\"system_time\"]\n[capabilities]\ntools = [\"*\"]"),
            ["system_time"]
        );
    }

    #[test]
    fn a_narrower_list_narrows_only_where_it_is_present() {
        let open = grants("");
        assert!(open.may_read("k") && open.may_message(&["a".into()]) && open.may_discover());
        let closed = grants(
            "[capabilities]\nagent_message = []\nmemory_read = [\"self.a*\"]\nmemory_write = []\nofp_discover = false\nofp_connect = [\"b\"]",
        );
        assert!(!closed.may_message(&["a".into()]) && !closed.may_discover());
        assert!(closed.may_read("ab") && !closed.may_read("b") && !closed.may_write("ab"));
        assert!(
            closed.may_connect(&["id".into(), "b".into()]) && !closed.may_connect(&["c".into()])
        );
        assert!(!Grants::none().may_read("k") && Grants::none().tools().next().is_none());
    }
}
