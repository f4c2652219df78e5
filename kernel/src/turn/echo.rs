//! The turn of the built-in agent without a model: it answers with what it got and where it runs.

use openfang_id::{AgentName, NodeId, NodeName};

use super::{Answer, In, Machine, Message, Out, Usage, chunks};

/// Where an agent runs.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) agent: AgentName,
    pub(crate) node: NodeId,
    pub(crate) node_name: NodeName,
}

/// A turn without a model.
#[derive(Debug)]
pub(crate) struct Echo {
    place: Place,
    ended: bool,
}

impl Echo {
    pub(crate) fn new(place: Place) -> Self {
        Self {
            place,
            ended: false,
        }
    }
}

impl Machine for Echo {
    fn handle(&mut self, event: In) -> Vec<Out> {
        let In::Start { message, .. } = event else {
            return Vec::new();
        };
        if std::mem::replace(&mut self.ended, true) {
            return Vec::new();
        }
        let Place {
            agent,
            node,
            node_name,
        } = &self.place;
        let parts = [
            format!("I am {agent}, a built-in agent without a language model, "),
            format!("on node {node_name} ({node}). "),
            format!("You said: {message}"),
        ];
        let mut out: Vec<Out> = parts.iter().flat_map(|part| chunks(part)).collect();
        out.push(Out::Done(Answer {
            response: parts.concat(),
            usage: Usage::default(),
            iterations: 1,
            transcript: Vec::new(),
        }));
        out
    }

    fn conversation(&self) -> &[Message] {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TurnEvent;
    use openfang_id::NodeSeed;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_says_what_it_got_and_where_it_runs(message in ".{0,40}", repeat in 1..3000_usize) {
            let message = message.repeat(repeat);
            let node = NodeSeed::from_bytes([1; 32]).keys().node_id();
            let mut turn = Echo::new(Place {
                agent: "parrot".parse().expect("a name"),
                node,
                node_name: "alpha".parse().expect("a name"),
            });
            let start = In::Start { history: Vec::new(), message: message.clone() };
            let out = turn.handle(start.clone());
            let mut shown = String::new();
            for out in &out[..out.len() - 1] {
                let Out::Show(TurnEvent::Chunk { text }) = out else {
                    panic!("{out:?}");
                };
                shown.push_str(text);
            }
            let Some(Out::Done(answer)) = out.last() else {
                panic!("no end");
            };
            prop_assert!(out.len() > 3);
            prop_assert_eq!(&answer.response, &shown);
            let said = format!("You said: {message}");
            prop_assert!(shown.ends_with(&said));
            prop_assert!(shown.contains("parrot") && shown.contains("alpha") && shown.contains(&node.to_string()));
            prop_assert!(shown.contains("without a language model"));
            prop_assert_eq!(turn.handle(start), []);
        }
    }
}
