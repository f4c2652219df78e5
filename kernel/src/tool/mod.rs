//! The tools an agent may be granted.

/// A tool of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tool {
    /// Lists the agents of the mesh.
    AgentList,
    /// Sends a message to an agent and waits for its answer.
    AgentSend,
    /// Reads what the agent has stored.
    MemoryRecall,
    /// Stores a text under a key.
    MemoryStore,
    /// Tells date and time.
    SystemTime,
}

impl Tool {
    /// All tools, by name.
    pub const ALL: [Self; 5] = [
        Self::AgentList,
        Self::AgentSend,
        Self::MemoryRecall,
        Self::MemoryStore,
        Self::SystemTime,
    ];

    /// Returns the name a model calls it by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AgentList => "agent_list",
            Self::AgentSend => "agent_send",
            Self::MemoryRecall => "memory_recall",
            Self::MemoryStore => "memory_store",
            Self::SystemTime => "system_time",
        }
    }

    /// Looks a tool up by name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.name() == name)
    }
}
