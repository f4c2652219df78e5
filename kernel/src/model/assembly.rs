//! Puts the pieces of a streamed answer together.

use serde_json::Value;

use super::wire::{CallPiece, Delta, Piece, Reported, WireUsage};
use super::{Failure, clean};
use crate::ModelError;
use crate::turn::{Reply, ToolCall, Usage};

/// The most tools one answer may call.
const CALLS_MAX: usize = 64;
/// The longest arguments of a tool, in bytes.
const ARGUMENTS_BYTES_MAX: usize = 1024 * 1024;

/// An answer on its way.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    calls: Vec<Slot>,
    usage: Usage,
    finished: bool,
}

#[derive(Debug)]
struct Slot {
    index: Option<u64>,
    call: ToolCall,
}

impl Assembly {
    /// Takes one event's data and returns the text it adds.
    pub(super) fn push(&mut self, data: &str) -> Result<String, Failure> {
        if data.trim() == "[DONE]" {
            self.finished = true;
            return Ok(String::new());
        }
        let piece: Piece = serde_json::from_str(data).map_err(|_not_json| {
            Failure::fatal(ModelError::BadReply {
                what: "an event is not the JSON of a chat answer",
            })
        })?;
        self.take(piece)
    }

    /// Takes a whole answer of a server that does not stream, and returns its text.
    pub(super) fn whole(&mut self, body: &[u8]) -> Result<String, Failure> {
        let bad = |what| Failure::fatal(ModelError::BadReply { what });
        let piece: Piece = serde_json::from_slice(body)
            .map_err(|_not_json| bad("it is not the JSON of a chat answer"))?;
        if piece.choices.is_empty() && piece.error.is_none() {
            return Err(bad("it has no choices"));
        }
        let text = self.take(piece)?;
        self.finished = true;
        Ok(text)
    }

    fn take(&mut self, piece: Piece) -> Result<String, Failure> {
        if let Some(error) = piece.error.filter(|error| !error.is_null()) {
            return Err(Failure::reported(&Reported::of_value(&error)));
        }
        if let Some(usage) = piece.usage.or(piece.x_groq.and_then(|groq| groq.usage)) {
            let WireUsage {
                prompt_tokens,
                completion_tokens,
            } = usage;
            self.usage = Usage {
                input_tokens: prompt_tokens,
                output_tokens: completion_tokens,
            };
        }
        let Some(choice) = piece.choices.into_iter().next() else {
            return Ok(String::new());
        };
        self.finished |= choice
            .finish_reason
            .is_some_and(|reason| !reason.is_empty());
        let Delta {
            content,
            refusal,
            tool_calls,
        } = choice.delta.or(choice.message).unwrap_or_default();
        for piece in tool_calls.unwrap_or_default() {
            self.take_call(piece)?;
        }
        Ok(content
            .filter(|text| !text.is_empty())
            .or(refusal)
            .unwrap_or_default())
    }

    fn take_call(&mut self, piece: CallPiece) -> Result<(), Failure> {
        let too_large = || {
            Failure::fatal(ModelError::TooLarge {
                max: ARGUMENTS_BYTES_MAX,
            })
        };
        let id = piece.id.filter(|id| !id.is_empty());
        let at = self.slot(piece.index, id.as_deref());
        let at = match at {
            Some(at) => at,
            None if self.calls.len() >= CALLS_MAX => {
                return Err(Failure::fatal(ModelError::BadReply {
                    what: "it calls too many tools at once",
                }));
            }
            None => {
                let call = ToolCall {
                    id: String::new(),
                    tool: String::new(),
                    arguments: String::new(),
                };
                self.calls.push(Slot {
                    index: piece.index,
                    call,
                });
                self.calls.len() - 1
            }
        };
        let call = &mut self.calls[at].call;
        if let Some(id) = id {
            call.id = clean(&id, 128);
        }
        let Some(function) = piece.function else {
            return Ok(());
        };
        if let Some(name) = function.name.filter(|name| !name.is_empty()) {
            call.tool = clean(&name, 128);
        }
        let arguments = match function.arguments {
            Some(Value::String(text)) => text,
            Some(Value::Null) | None => String::new(),
            Some(object) => object.to_string(),
        };
        if call.arguments.len() + arguments.len() > ARGUMENTS_BYTES_MAX {
            return Err(too_large());
        }
        call.arguments.push_str(&arguments);
        Ok(())
    }

    /// Finds the call a piece belongs to. Servers that leave the index out give the id of a new
    /// call, and nothing for the rest of the last one.
    fn slot(&self, index: Option<u64>, id: Option<&str>) -> Option<usize> {
        match (index, id) {
            (Some(index), _) => self.calls.iter().position(|slot| slot.index == Some(index)),
            (None, Some(id)) => self.calls.iter().position(|slot| slot.call.id == id),
            (None, None) => self.calls.len().checked_sub(1),
        }
    }

    /// Whether the server has said that this is all.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Ends the answer: calls without a name are dropped, ids that are missing or double are made up.
    pub(super) fn finish(self) -> Result<Reply, Failure> {
        if !self.finished {
            return Err(Failure::retryable(ModelError::Cut));
        }
        let mut calls: Vec<ToolCall> = Vec::new();
        for (at, Slot { mut call, .. }) in self.calls.into_iter().enumerate() {
            if call.tool.is_empty() {
                continue;
            }
            if call.id.is_empty() || calls.iter().any(|earlier| earlier.id == call.id) {
                call.id = format!("call_{at}_{}", calls.len());
            }
            calls.push(call);
        }
        Ok(Reply {
            calls,
            usage: self.usage,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assemble(events: &[&str]) -> Result<(String, Reply), ModelError> {
        let mut assembly = Assembly::default();
        let mut text = String::new();
        for event in events {
            text += &assembly.push(event).map_err(|failure| failure.error)?;
        }
        let reply = assembly.finish().map_err(|failure| failure.error)?;
        Ok((text, reply))
    }

    fn calls(events: &[&str]) -> Vec<(String, String, String)> {
        let (_, reply) = assemble(events).expect("a good answer");
        let parts = |call: ToolCall| (call.id, call.tool, call.arguments);
        reply.calls.into_iter().map(parts).collect()
    }

    fn expect(found: Vec<(String, String, String)>, expected: &[(&str, &str, &str)]) {
        let found: Vec<_> = found
            .iter()
            .map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    const STOP: &str = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;

    #[test]
    fn texts_and_usage_are_gathered() {
        let (text, reply) = assemble(&[
            r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#,
            r#"{"choices":[{"delta":{"content":"Hel","reasoning_content":"hm"}}]}"#,
            r#"{"choices":[{"delta":{"content":"lo"},"finish_reason":null}],"usage":null}"#,
            STOP,
            r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}"#,
            "[DONE]",
        ])
        .expect("a good answer");
        assert_eq!(text, "Hello");
        assert_eq!(
            reply.usage,
            Usage {
                input_tokens: 7,
                output_tokens: 2
            }
        );
        let groq = r#"{"choices":[],"x_groq":{"usage":{"prompt_tokens":1,"completion_tokens":2}}}"#;
        let (_, reply) = assemble(&[STOP, groq]).expect("a good answer");
        assert_eq!(reply.usage.input_tokens, 1);
    }

    #[test]
    fn tool_calls_are_gathered_by_index() {
        let found = calls(&[
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"x","arguments":""}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"id":"b","function":{"name":"y","arguments":"{"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}},{"index":1,"function":{"arguments":"}"}}]}}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#,
        ]);
        expect(found, &[("a", "x", "{}"), ("b", "y", "{}")]);
    }

    #[test]
    fn what_servers_do_otherwise_is_understood() {
        let whole = r#"{"choices":[{"delta":{"tool_calls":[{"id":"a","function":{"name":"x","arguments":{"k":1}}},{"id":"b","function":{"name":"y"}}]},"finish_reason":"stop"}]}"#;
        expect(calls(&[whole]), &[("a", "x", r#"{"k":1}"#), ("b", "y", "")]);
        let no_index = [
            r#"{"choices":[{"delta":{"tool_calls":[{"id":"a","function":{"name":"x","arguments":"{"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"}"}}]}}]}"#,
            STOP,
        ];
        expect(calls(&no_index), &[("a", "x", "{}")]);
        let no_id = r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"x"}},{"index":1,"id":"","function":{"name":"y"}}]},"finish_reason":"stop"}]}"#;
        expect(
            calls(&[no_id]),
            &[("call_0_0", "x", ""), ("call_1_1", "y", "")],
        );
        let mut assembly = Assembly::default();
        let body = br#"{"choices":[{"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}"#;
        assert_eq!(
            assembly.whole(body).map_err(|f| f.error),
            Ok("hi".to_owned())
        );
        assert!(assembly.is_finished());
    }

    #[test]
    fn answers_that_are_none_are_typed_failures() {
        let check = |events: &[&str], expected: ModelError| {
            assert_eq!(
                assemble(events).expect_err("no answer"),
                expected,
                "{events:?}"
            );
        };
        check(&[], ModelError::Cut);
        check(
            &[r#"{"choices":[{"delta":{"content":"x"}}]}"#],
            ModelError::Cut,
        );
        check(
            &["{"],
            ModelError::BadReply {
                what: "an event is not the JSON of a chat answer",
            },
        );
        check(
            &[r#"{"error":{"message":"over\nloaded","code":529}}"#],
            ModelError::Reported {
                message: "over loaded".to_owned(),
            },
        );
        check(
            &[r#"{"error":{"code":"context_length_exceeded"}}"#],
            ModelError::ContextTooLong,
        );
    }

    proptest! {
        #[test]
        fn no_events_make_it_panic(events in prop::collection::vec(".{0,60}", 0..5)) {
            let events: Vec<&str> = events.iter().map(String::as_str).collect();
            prop_assert!(assemble(&events).is_err() || events.iter().any(|event| event.contains("[DONE]")));
        }
    }
}
