//! The turn of an agent as a pure state machine: what comes in leads to what is to be done.
//!
//! A driver hands each event to [`Machine::handle`] and carries out what it returns, in order:
//! ask the model, run a tool, show something to the caller, log a refusal. The machine knows no
//! clock, no network and no task; streaming, cancelling and logging are the driver's. After
//! [`Out::Done`] or [`Out::Failed`] nothing comes out any more.
//!
//! [`Chat`] talks to a language model; [`Echo`] has none.

mod chat;
mod echo;

pub(crate) use chat::{Chat, Rules, TOOL_CALLS_MAX};
pub(crate) use echo::{Echo, Place};

use crate::{CHUNK_BYTES_MAX, ModelError, SHOWN_BYTES_MAX, TurnError, TurnEvent};

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// From whoever talks to the agent.
    User {
        /// What they said.
        text: String,
    },
    /// From the model.
    Assistant {
        /// What it said; may be empty when it calls tools.
        text: String,
        /// The tools it calls.
        calls: Vec<ToolCall>,
    },
    /// What a tool answered.
    Tool {
        /// The call it answers.
        call_id: String,
        /// What the model is told.
        text: String,
        /// Whether the tool failed or was refused.
        is_error: bool,
    },
}

/// A model's wish to use a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ToolCall {
    /// Unique within its message.
    pub(crate) id: String,
    /// The tool, as the model wrote it.
    pub(crate) tool: String,
    /// The arguments, as the model wrote them: JSON text, if it did well.
    pub(crate) arguments: String,
}

/// What a model used up, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
}

/// The end of a model's answer; its text has come before, piece by piece.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Reply {
    pub(crate) calls: Vec<ToolCall>,
    pub(crate) usage: Usage,
}

/// What happens to a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum In {
    /// It begins; comes first and once.
    Start {
        history: Vec<Message>,
        message: String,
    },
    /// The model said something.
    Text(String),
    /// The model has ended its answer.
    Reply(Reply),
    /// The model gave no usable answer.
    ModelFailed(ModelError),
    /// The tool that was to run has ended.
    ToolDone { output: String, is_error: bool },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Out {
    /// Ask the model with [`Machine::conversation`].
    AskModel,
    /// Run this tool; nothing else comes until it has ended.
    RunTool(ToolCall),
    /// Log that this tool was asked for and not granted.
    LogDenied(ToolCall),
    /// Show this to the caller; a chunk or a tool's start or end.
    Show(TurnEvent),
    /// Store the conversation, and tell the caller.
    Done(Answer),
    /// Tell the caller.
    Failed(TurnError),
}

/// The end of a turn that went well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The texts of all chunks, one after the other.
    pub(crate) response: String,
    pub(crate) usage: Usage,
    pub(crate) iterations: u32,
    /// What the turn adds to the conversation.
    pub(crate) transcript: Vec<Message>,
}

/// A turn of some kind of agent.
pub(crate) trait Machine: Send {
    /// Takes an event and returns what is to be done, in order. An event that does not fit the
    /// state changes nothing.
    fn handle(&mut self, event: In) -> Vec<Out>;

    /// Returns what the model is to be shown.
    fn conversation(&self) -> &[Message];
}

/// Cuts a text into chunks of at most [`CHUNK_BYTES_MAX`] bytes, at characters.
fn chunks(text: &str) -> impl Iterator<Item = Out> + '_ {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (piece, after) = rest.split_at(floor_char(rest, CHUNK_BYTES_MAX));
        rest = after;
        (!piece.is_empty()).then(|| {
            Out::Show(TurnEvent::Chunk {
                text: piece.to_owned(),
            })
        })
    })
}

/// Returns the largest place of a character that is not above `at`.
fn floor_char(text: &str, at: usize) -> usize {
    if at >= text.len() {
        return text.len();
    }
    (0..=at)
        .rev()
        .find(|place| text.is_char_boundary(*place))
        .unwrap_or(0)
}

/// Cuts a text for showing it.
fn shown(text: &str) -> String {
    text[..floor_char(text, SHOWN_BYTES_MAX)].to_owned()
}

/// Returns the end of a conversation: at most `max` messages, beginning with one of the user, so
/// that no answer of a tool is without its call.
pub(crate) fn recent(mut history: Vec<Message>, max: usize) -> Vec<Message> {
    let from = history.len().saturating_sub(max);
    let begin = history[from..]
        .iter()
        .position(|message| matches!(message, Message::User { .. }))
        .map_or(history.len(), |skip| from + skip);
    history.split_off(begin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_at_characters() {
        let text = "é".repeat(CHUNK_BYTES_MAX);
        let pieces: Vec<String> = chunks(&text)
            .map(|out| {
                let Out::Show(TurnEvent::Chunk { text }) = out else {
                    panic!("not a chunk: {out:?}");
                };
                text
            })
            .collect();
        assert_eq!(pieces.len(), 2);
        assert!(pieces.iter().all(|piece| piece.len() <= CHUNK_BYTES_MAX));
        assert_eq!(pieces.concat(), text);
        assert_eq!(chunks("").count(), 0);
    }

    #[test]
    fn a_shortened_history_begins_with_the_user() {
        let user = |text: &str| Message::User { text: text.into() };
        let assistant = Message::Assistant {
            text: String::new(),
            calls: Vec::new(),
        };
        let tool = Message::Tool {
            call_id: "1".into(),
            text: String::new(),
            is_error: false,
        };
        let history = vec![
            user("a"),
            assistant.clone(),
            tool,
            assistant.clone(),
            user("b"),
            assistant,
        ];
        assert_eq!(recent(history.clone(), 100), history);
        assert_eq!(recent(history.clone(), 5), history[4..]);
        assert_eq!(recent(history.clone(), 2), history[4..]);
        assert_eq!(recent(history.clone(), 1), []);
        assert_eq!(recent(history, 0), []);
    }
}
