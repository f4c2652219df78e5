//! The turn of an agent that thinks with a language model.

use std::collections::{BTreeSet, VecDeque};

use super::{Answer, In, Machine, Message, Out, Reply, ToolCall, Usage, chunks, shown};
use crate::{ModelError, TurnError, TurnEvent};

/// The longest answer, in bytes, over all chunks of a turn.
pub(crate) const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// The most tools a turn may call.
pub(crate) const TOOL_CALLS_MAX: u32 = 100;

/// Stands between what the model says before and after it has used tools.
const PARAGRAPH: &str = "\n\n";

/// What bounds a turn.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// How often the model may be asked.
    pub(crate) max_iterations: u32,
    /// How many tools may be called, those refused included.
    pub(crate) max_tool_calls: u32,
    /// The tools that are granted.
    pub(crate) tools: BTreeSet<&'static str>,
}

#[derive(Debug)]
enum State {
    Idle,
    Thinking {
        text: String,
    },
    Acting {
        running: ToolCall,
        waiting: VecDeque<ToolCall>,
    },
    Ended,
}

/// A turn with a language model.
#[derive(Debug)]
pub(crate) struct Chat {
    rules: Rules,
    state: State,
    conversation: Vec<Message>,
    /// Where in the conversation this turn begins.
    begin: usize,
    response: String,
    usage: Usage,
    iterations: u32,
    tool_calls: u32,
}

impl Chat {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            state: State::Idle,
            conversation: Vec::new(),
            begin: 0,
            response: String::new(),
            usage: Usage::default(),
            iterations: 0,
            tool_calls: 0,
        }
    }

    fn ask(&mut self, out: &mut Vec<Out>) {
        let max = self.rules.max_iterations;
        if self.iterations >= max {
            return self.fail(TurnError::IterationLimit { max }, out);
        }
        self.iterations += 1;
        self.state = State::Thinking {
            text: String::new(),
        };
        out.push(Out::AskModel);
    }

    fn fail(&mut self, error: TurnError, out: &mut Vec<Out>) {
        self.state = State::Ended;
        out.push(Out::Failed(error));
    }

    fn on_text(&mut self, piece: &str, out: &mut Vec<Out>) {
        let State::Thinking { text } = &mut self.state else {
            return;
        };
        if piece.is_empty() {
            return;
        }
        let pause = text.is_empty() && !self.response.is_empty();
        text.push_str(piece);
        for part in [if pause { PARAGRAPH } else { "" }, piece] {
            if self.response.len() + part.len() > ANSWER_BYTES_MAX {
                let max = ANSWER_BYTES_MAX;
                return self.fail(TurnError::AnswerTooLong { max }, out);
            }
            self.response.push_str(part);
            out.extend(chunks(part));
        }
    }

    fn on_reply(&mut self, reply: Reply, out: &mut Vec<Out>) {
        let State::Thinking { text } = &mut self.state else {
            return;
        };
        let text = std::mem::take(text);
        self.usage.input_tokens = self
            .usage
            .input_tokens
            .saturating_add(reply.usage.input_tokens);
        self.usage.output_tokens = self
            .usage
            .output_tokens
            .saturating_add(reply.usage.output_tokens);
        let calls = reply.calls;
        self.conversation.push(Message::Assistant {
            text,
            calls: calls.clone(),
        });
        if calls.is_empty() {
            return self.finish(out);
        }
        self.act(calls.into(), out);
    }

    fn finish(&mut self, out: &mut Vec<Out>) {
        if self.response.is_empty() {
            return self.fail(ModelError::Empty.into(), out);
        }
        self.state = State::Ended;
        out.push(Out::Done(Answer {
            response: std::mem::take(&mut self.response),
            usage: self.usage,
            iterations: self.iterations,
            transcript: self.conversation.split_off(self.begin),
        }));
    }

    /// Goes on with the next tool that is granted, or with the model when none is left.
    fn act(&mut self, mut waiting: VecDeque<ToolCall>, out: &mut Vec<Out>) {
        while let Some(call) = waiting.pop_front() {
            let max = self.rules.max_tool_calls;
            if self.tool_calls >= max {
                return self.fail(TurnError::ToolCallLimit { max }, out);
            }
            self.tool_calls += 1;
            out.push(Out::Show(TurnEvent::ToolStart {
                id: call.id.clone(),
                tool: shown(&call.tool),
                input: shown(&call.arguments),
            }));
            if self.rules.tools.contains(call.tool.as_str()) {
                out.push(Out::RunTool(call.clone()));
                self.state = State::Acting {
                    running: call,
                    waiting,
                };
                return;
            }
            out.push(Out::LogDenied(call.clone()));
            let told = self.denial();
            self.end_tool(call, told, true, out);
        }
        self.ask(out);
    }

    fn denial(&self) -> String {
        if self.rules.tools.is_empty() {
            return "Refused: no tools are granted to this agent.".to_owned();
        }
        let granted: Vec<&str> = self.rules.tools.iter().copied().collect();
        format!(
            "Refused: this tool is not granted to this agent. Granted are: {}.",
            granted.join(", ")
        )
    }

    fn end_tool(&mut self, call: ToolCall, output: String, is_error: bool, out: &mut Vec<Out>) {
        out.push(Out::Show(TurnEvent::ToolEnd {
            id: call.id.clone(),
            tool: shown(&call.tool),
            output: shown(&output),
            is_error,
        }));
        self.conversation.push(Message::Tool {
            call_id: call.id,
            text: output,
            is_error,
        });
    }

    fn on_tool_done(&mut self, output: String, is_error: bool, out: &mut Vec<Out>) {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Acting { running, waiting } => {
                self.end_tool(running, output, is_error, out);
                self.act(waiting, out);
            }
            other @ (State::Idle | State::Thinking { .. } | State::Ended) => self.state = other,
        }
    }
}

impl Machine for Chat {
    fn handle(&mut self, event: In) -> Vec<Out> {
        let mut out = Vec::new();
        match event {
            In::Start { history, message } if matches!(self.state, State::Idle) => {
                self.begin = history.len();
                self.conversation = history;
                self.conversation.push(Message::User { text: message });
                self.ask(&mut out);
            }
            In::Start { .. } => {}
            In::Text(text) => self.on_text(&text, &mut out),
            In::Reply(reply) => self.on_reply(reply, &mut out),
            In::ModelFailed(error) => {
                if matches!(self.state, State::Thinking { .. }) {
                    self.fail(error.into(), &mut out);
                }
            }
            In::ToolDone { output, is_error } => self.on_tool_done(output, is_error, &mut out),
        }
        out
    }

    fn conversation(&self) -> &[Message] {
        &self.conversation
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CHUNK_BYTES_MAX;
    use proptest::prelude::*;

    fn rules() -> Rules {
        Rules {
            max_iterations: 4,
            max_tool_calls: 5,
            tools: ["memory_recall", "system_time"].into(),
        }
    }

    fn call(id: &str, tool: &str) -> ToolCall {
        ToolCall {
            id: id.into(),
            tool: tool.into(),
            arguments: "{}".into(),
        }
    }

    fn start(message: &str) -> In {
        In::Start {
            history: Vec::new(),
            message: message.into(),
        }
    }

    fn reply(calls: &[ToolCall]) -> In {
        In::Reply(Reply {
            calls: calls.to_vec(),
            usage: Usage {
                input_tokens: 3,
                output_tokens: 2,
            },
        })
    }

    fn names(out: &[Out]) -> Vec<&'static str> {
        let name = |out: &Out| match out {
            Out::AskModel => "ask",
            Out::RunTool(_) => "run",
            Out::LogDenied(_) => "denied",
            Out::Show(TurnEvent::Chunk { .. }) => "chunk",
            Out::Show(TurnEvent::ToolStart { .. }) => "start",
            Out::Show(TurnEvent::ToolEnd { .. }) => "end",
            Out::Show(TurnEvent::Done(_) | TurnEvent::Failed(_)) => "wrong",
            Out::Done(_) => "done",
            Out::Failed(_) => "failed",
        };
        out.iter().map(name).collect()
    }

    #[test]
    fn an_answer_without_tools_is_one_request() {
        let mut turn = Chat::new(rules());
        assert_eq!(names(&turn.handle(start("hi"))), ["ask"]);
        assert_eq!(names(&turn.handle(In::Text("hel".into()))), ["chunk"]);
        assert_eq!(names(&turn.handle(In::Text("lo".into()))), ["chunk"]);
        let out = turn.handle(reply(&[]));
        let [Out::Done(answer)] = out.as_slice() else {
            panic!("{out:?}");
        };
        assert_eq!(answer.response, "hello");
        assert_eq!((answer.usage.input_tokens, answer.iterations), (3, 1));
        assert_eq!(answer.transcript.len(), 2);
    }

    #[test]
    fn tools_run_one_after_the_other_and_the_model_is_told() {
        let mut turn = Chat::new(rules());
        turn.handle(start("hi"));
        turn.handle(In::Text("let me see".into()));
        let out = turn.handle(reply(&[
            call("1", "system_time"),
            call("2", "memory_recall"),
        ]));
        assert_eq!(names(&out), ["start", "run"]);
        let done = |text: &str| In::ToolDone {
            output: text.into(),
            is_error: false,
        };
        assert_eq!(names(&turn.handle(done("noon"))), ["end", "start", "run"]);
        assert_eq!(names(&turn.handle(done("tea"))), ["end", "ask"]);
        assert_eq!(turn.conversation().len(), 4);
        assert_eq!(
            names(&turn.handle(In::Text("noon, tea".into()))),
            ["chunk", "chunk"]
        );
        let out = turn.handle(reply(&[]));
        let [Out::Done(answer)] = out.as_slice() else {
            panic!("{out:?}");
        };
        assert_eq!(answer.response, "let me see\n\nnoon, tea");
        assert_eq!(answer.transcript.len(), 5);
    }

    #[test]
    fn a_tool_that_is_not_granted_never_runs() {
        for tool in ["agent_send", "", "rm -rf", "SYSTEM_TIME"] {
            let mut turn = Chat::new(rules());
            turn.handle(start("hi"));
            let out = turn.handle(reply(&[call("1", tool)]));
            assert_eq!(names(&out), ["start", "denied", "end", "ask"], "{tool}");
            let told = turn.conversation().last();
            assert!(
                matches!(told, Some(Message::Tool { is_error: true, text, .. }) if text.contains("system_time")),
                "{told:?}"
            );
        }
        let mut turn = Chat::new(Rules {
            tools: BTreeSet::new(),
            ..rules()
        });
        turn.handle(start("hi"));
        assert_eq!(
            names(&turn.handle(reply(&[call("1", "system_time")]))),
            ["start", "denied", "end", "ask"]
        );
    }

    #[test]
    fn limits_end_a_turn_that_does_not_end_itself() {
        let mut turn = Chat::new(rules());
        let mut last = turn.handle(start("hi"));
        for _ in 0..4 {
            assert_eq!(last.last(), Some(&Out::AskModel));
            turn.handle(reply(&[call("1", "system_time")]));
            last = turn.handle(In::ToolDone {
                output: String::new(),
                is_error: false,
            });
        }
        assert_eq!(
            last.last(),
            Some(&Out::Failed(TurnError::IterationLimit { max: 4 }))
        );

        let mut turn = Chat::new(rules());
        turn.handle(start("hi"));
        let calls: Vec<ToolCall> = (0..6).map(|n| call(&n.to_string(), "nope")).collect();
        let out = turn.handle(reply(&calls));
        assert_eq!(
            out.last(),
            Some(&Out::Failed(TurnError::ToolCallLimit { max: 5 }))
        );

        let mut turn = Chat::new(rules());
        turn.handle(start("hi"));
        turn.handle(In::Text("x".repeat(ANSWER_BYTES_MAX)));
        let out = turn.handle(In::Text("x".into()));
        assert_eq!(
            out,
            [Out::Failed(TurnError::AnswerTooLong {
                max: ANSWER_BYTES_MAX
            })]
        );
    }

    #[test]
    fn an_empty_answer_is_a_failure() {
        let mut turn = Chat::new(rules());
        turn.handle(start("hi"));
        assert_eq!(
            turn.handle(reply(&[])),
            [Out::Failed(ModelError::Empty.into())]
        );
    }

    fn any_event() -> impl Strategy<Value = In> {
        let tool = prop_oneof![Just("system_time"), Just("memory_recall"), Just("shell")];
        let calls = prop::collection::vec(tool, 0..4).prop_map(|tools| {
            let calls = tools.iter().enumerate();
            reply(
                &calls
                    .map(|(n, tool)| call(&n.to_string(), tool))
                    .collect::<Vec<_>>(),
            )
        });
        prop_oneof![
            1 => Just(start("hi")),
            4 => "[a-zé]{0,9}".prop_map(In::Text),
            1 => Just(In::Text("é".repeat(CHUNK_BYTES_MAX))),
            4 => calls,
            1 => Just(In::ModelFailed(ModelError::Cut)),
            4 => any::<bool>().prop_map(|is_error| In::ToolDone { output: "o".into(), is_error }),
        ]
    }

    proptest! {
        /// Whatever happens in whatever order: one end, nothing after it, only granted tools, no
        /// limit passed, and an answer that is what was shown.
        #[test]
        fn a_turn_keeps_its_promises(events in prop::collection::vec(any_event(), 0..60)) {
            let mut turn = Chat::new(rules());
            let (mut asked, mut ran, mut ended, mut text) = (0, 0, false, String::new());
            for event in std::iter::once(start("hi")).chain(events) {
                for out in turn.handle(event) {
                    prop_assert!(!ended, "{out:?} after the end");
                    match out {
                        Out::AskModel => asked += 1,
                        Out::RunTool(call) => {
                            ran += 1;
                            prop_assert!(rules().tools.contains(call.tool.as_str()));
                        }
                        Out::LogDenied(call) => prop_assert_eq!(call.tool, "shell"),
                        Out::Show(TurnEvent::Chunk { text: piece }) => {
                            prop_assert!(!piece.is_empty() && piece.len() <= CHUNK_BYTES_MAX);
                            text.push_str(&piece);
                        }
                        Out::Show(_) => {}
                        Out::Done(answer) => {
                            ended = true;
                            prop_assert_eq!(&answer.response, &text);
                            prop_assert_eq!(answer.iterations, asked);
                            check_transcript(&answer.transcript)?;
                        }
                        Out::Failed(_) => ended = true,
                    }
                }
            }
            prop_assert!(asked <= rules().max_iterations && ran <= rules().max_tool_calls);
        }
    }

    /// Every call is answered by the tool messages that follow it, in its order.
    fn check_transcript(messages: &[Message]) -> Result<(), TestCaseError> {
        let begins = matches!(messages[0], Message::User { .. });
        prop_assert!(begins);
        let mut open = VecDeque::new();
        for message in &messages[1..] {
            match message {
                Message::User { .. } => prop_assert!(false, "a second user"),
                Message::Assistant { calls, .. } => {
                    prop_assert!(open.is_empty());
                    open.extend(calls.iter().map(|call| call.id.clone()));
                }
                Message::Tool { call_id, .. } => {
                    prop_assert_eq!(open.pop_front(), Some(call_id.clone()))
                }
            }
        }
        prop_assert!(open.is_empty());
        Ok(())
    }
}
