//! Errors of the kernel.

use openfang_id::{AgentRef, NodeId, NodeName};
use openfang_kernel::{
    AuditError, KillError, Listed, ManifestError, ModelError, SendError, SpawnError, TurnError,
};
use openfang_schema::ErrorCode;

use super::ApiError;

/// The sentence for an agent that nobody has, the same for a message and a look.
pub(crate) fn no_such_agent(
    looked_for: &AgentRef,
    where_looked: &dyn std::fmt::Display,
) -> ApiError {
    ApiError::new(
        ErrorCode::UnknownAgent,
        format!("There is no agent {looked_for} {where_looked}."),
    )
    .looked_for(looked_for)
    .where_looked(where_looked)
    .hint("GET /api/agents lists the agents of the mesh.")
}

impl ApiError {
    /// Something that only the agent's own node can do.
    pub(crate) fn not_here(agent: &Listed) -> Self {
        Self::new(
            ErrorCode::NotHere,
            format!(
                "Agent {} lives on node {}, and only that node can do this.",
                agent.name, agent.node_name
            ),
        )
        .node(agent.node, &agent.node_name)
    }
}

impl From<ManifestError> for ApiError {
    fn from(error: ManifestError) -> Self {
        let all: Vec<String> = error
            .problems
            .iter()
            .map(|problem| format!("line {}: {}", problem.line, problem.what))
            .collect();
        let api = Self::new(
            ErrorCode::InvalidManifest,
            format!(
                "The manifest is not valid: {}.",
                all.join("; ").trim_end_matches('.')
            ),
        );
        let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        match error.problems.first() {
            Some(first) => api.place(number(first.line), number(first.column)),
            None => api,
        }
    }
}

impl From<SendError> for ApiError {
    fn from(error: SendError) -> Self {
        let text = sentence(&error);
        let candidates = error.candidates();
        match error {
            SendError::UnknownAgent {
                looked_for,
                where_looked,
            } => no_such_agent(&looked_for, &where_looked),
            SendError::AmbiguousNode { looked_for, .. }
            | SendError::AmbiguousAgent { looked_for, .. } => Self::new(ErrorCode::Ambiguous, text)
                .looked_for(&looked_for)
                .candidates(candidates)
                .hint("Use one of the candidates."),
            SendError::UnknownNode { looked_for } => Self::new(ErrorCode::UnknownNode, text)
                .looked_for(looked_for)
                .hint("GET /api/peers lists the nodes of the mesh."),
            SendError::Unreachable { node, node_name } => unreachable(text, node, node_name),
            SendError::Convicted {
                node, node_name, ..
            } => convicted(text, node, node_name),
            SendError::Busy { retry_after } => {
                Self::new(ErrorCode::Busy, text).retry_after(retry_after)
            }
            SendError::Refused { .. } => Self::new(ErrorCode::Refused, text),
            SendError::TimedOut => Self::new(ErrorCode::TimedOut, text),
            SendError::TooLarge { max, .. } => Self::new(ErrorCode::TooLarge, text).limit(max),
            SendError::TooDeep { .. } => Self::new(ErrorCode::TooDeep, text),
            SendError::NotRunning { .. } => Self::new(ErrorCode::AgentNotRunning, text)
                .hint("Delete the agent and spawn it anew."),
            SendError::NotLogged(cause) => not_logged(&cause),
            SendError::AlreadyRan => Self::new(ErrorCode::AlreadyRan, text),
            SendError::ShuttingDown => Self::stopping(text),
            SendError::Remote { code, .. } => remote(code, text),
        }
    }
}

impl From<TurnError> for ApiError {
    fn from(error: TurnError) -> Self {
        let text = sentence(&error);
        let word = error.code().to_owned();
        match error {
            TurnError::Cancelled => Self::new(ErrorCode::Cancelled, text),
            TurnError::TimedOut { .. } => Self::new(ErrorCode::TimedOut, text),
            TurnError::ShuttingDown => Self::stopping(text),
            TurnError::Model(model) => from_model(&model, text),
            TurnError::Killed
            | TurnError::IterationLimit { .. }
            | TurnError::ToolCallLimit { .. }
            | TurnError::AnswerTooLong { .. } => {
                Self::new(ErrorCode::AgentFailed, text).reason(word)
            }
            TurnError::OverLimit { retry_after, .. } => Self::new(ErrorCode::RateLimited, text)
                .reason(word)
                .retry_after(retry_after),
            TurnError::NotLogged(cause) => not_logged(&cause),
            TurnError::Storage(cause) => Self::internal("Storing the conversation", &cause),
            TurnError::NotDelivered(error) => Self::from(*error),
            TurnError::Cut => Self::new(ErrorCode::CutOff, text).hint(
                "It may have run. The same Idempotency-Key never runs it again; another key does.",
            ),
            TurnError::Remote { code, .. } => remote(code, text),
        }
    }
}

impl From<SpawnError> for ApiError {
    fn from(error: SpawnError) -> Self {
        let text = sentence(&error);
        let word = error.code();
        match error {
            SpawnError::DuplicateName { name, holder } => Self::new(ErrorCode::DuplicateName, text)
                .looked_for(name)
                .candidates(vec![holder.to_string()])
                .hint("Choose another name, or delete that agent first."),
            SpawnError::UnknownModule { .. }
            | SpawnError::TierMissing(_)
            | SpawnError::TooMany { .. } => Self::new(ErrorCode::Unprocessable, text).reason(word),
            SpawnError::NotLogged(cause) => not_logged(&cause),
            SpawnError::Storage(cause) => Self::internal("Storing the agent", &cause),
            SpawnError::ShuttingDown => Self::stopping(text),
        }
    }
}

impl From<KillError> for ApiError {
    fn from(error: KillError) -> Self {
        let text = sentence(&error);
        match error {
            KillError::Unknown { id } => Self::new(ErrorCode::UnknownAgent, text).looked_for(id),
            KillError::NotLogged(cause) => not_logged(&cause),
            KillError::Storage(cause) => Self::internal("Storing the change", &cause),
            KillError::ShuttingDown => Self::stopping(text),
        }
    }
}

fn unreachable(text: String, node: NodeId, name: Option<NodeName>) -> ApiError {
    let name = name.map_or_else(String::new, |name| name.to_string());
    ApiError::new(ErrorCode::Unreachable, text)
        .node(node, name)
        .hint("The node is known and does not answer; openfang peers shows since when.")
}

/// A node that is kept away: who decides about that is the operator of this one.
fn convicted(text: String, node: NodeId, name: Option<NodeName>) -> ApiError {
    let name = name.map_or_else(String::new, |name| name.to_string());
    ApiError::new(ErrorCode::Refused, text)
        .reason("node_convicted")
        .node(node, name)
        .hint(format!(
            "The file is in audit.d/evidence of this node; anyone can check it. To call the node all the same: \
             allow_convicted = [\"{node}\"] in [audit] of config.toml, then: openfang restart."
        ))
}

/// The word for a log that is not signed.
pub(crate) const IN_DOUBT: &str = "in_doubt";

/// What cannot be logged is not done; why is a matter of this node's log.
pub(crate) fn not_logged(cause: &AuditError) -> ApiError {
    tracing::error!(error = %cause, "an action was refused because it cannot be logged");
    let refused = |text: &str| ApiError::new(ErrorCode::NotLogged, text);
    match cause {
        AuditError::NotCosigned {
            seq,
            needed,
            witnesses,
        } => {
            let text = format!(
                "This was not done: entry {seq} says what was to be done, {needed} of {witnesses} witnesses have \
                 to cosign it first, and fewer did. The entry after it says that it was not done."
            );
            refused(&text).hint(
                "openfang audit witness status tells who has not cosigned and why. It can be tried again; \
                 audit.change_durability = \"durable\" waits for no witness.",
            )
        }
        AuditError::NotSigned { seq, .. } => refused(&format!(
            "This was not done: {cause}, and nobody could be asked to cosign it. An entry after {} says that it was \
             not done.",
            seq.0
        ))
        .reason("not_signed")
        .hint(
            "df -h: the disk of this node may be full, and the log of the node tells why no head is signed. When \
             there is room the log is signed by itself; then try again.",
        ),
        AuditError::InDoubt => refused(
            "This was not done: peers have not said yet what they know of the audit log of this node. It may be \
             older than they know it, and then the entry for this would have to make room.",
        )
        .reason(IN_DOUBT)
        .hint(
            "openfang audit witness status tells whom it waits for. Try again when it says that the log is \
             signed; messages are answered meanwhile.",
        ),
        AuditError::Contradicted => refused(
            "This was not done: the audit log of this node has signed two histories and signs nothing more, so \
             that nobody could check the entry for this.",
        )
        .reason("contradicted")
        .hint("docs/AUDIT.md, \"Lost or old\", tells how the log goes on as the peers have it."),
        AuditError::Append(_) | AuditError::Lost => {
            refused("This was not done, because the audit log cannot take the entry for it.")
                .hint("openfang audit verify and the log of the node tell why.")
        }
    }
}

fn from_model(error: &ModelError, text: String) -> ApiError {
    let api = match error {
        ModelError::RateLimited {
            retry_after: Some(wait),
        } => ApiError::new(ErrorCode::ModelFailed, text).retry_after(*wait),
        ModelError::UnknownProvider { .. }
        | ModelError::NoModel
        | ModelError::BadAddress { .. }
        | ModelError::NoKey { .. }
        | ModelError::KeyNotForHost { .. }
        | ModelError::Connect { .. }
        | ModelError::Unauthorized { .. }
        | ModelError::NotFound { .. }
        | ModelError::RateLimited { retry_after: None }
        | ModelError::ContextTooLong
        | ModelError::Rejected { .. }
        | ModelError::Server { .. }
        | ModelError::Reported { .. }
        | ModelError::BadReply { .. }
        | ModelError::Cut
        | ModelError::Idle { .. }
        | ModelError::TooLarge { .. }
        | ModelError::Empty => ApiError::new(ErrorCode::ModelFailed, text),
    };
    api.reason(error.code())
}

/// A failure of another node, of which only its word and its sentence came over.
fn remote(word: String, text: String) -> ApiError {
    let code = if word.starts_with("model_") {
        ErrorCode::ModelFailed
    } else {
        ErrorCode::AgentFailed
    };
    ApiError::new(code, text).reason(word)
}

/// An error text as a sentence.
pub(super) fn sentence(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let mut chars = text.chars();
    let mut out: String = chars
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .chain(chars)
        .collect();
    if !out.ends_with(['.', '?', '!']) {
        out.push('.');
    }
    out
}
