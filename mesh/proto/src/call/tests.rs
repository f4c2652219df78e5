//! Calls: the bytes of the frames, their bounds, and the two ends of a substream.

mod ends;
mod frames;

use openfang_id::{AgentId, AgentKey, NodeSeed};

use super::*;

fn request(nr: u8) -> Request {
    Request {
        id: CallId([nr; 16]),
        agent: AgentKey::Name("assistant".parse().expect("a name")),
        message: "hello".to_owned(),
        principal: "api:key".to_owned(),
        path: Vec::new(),
        deadline_ms: 30_000,
        resume_from: 0,
        hlc: 0,
        cause: None,
        labels: Vec::new(),
        trace: None,
        session: None,
        sender: None,
    }
}

/// A request with every field filled.
fn full_request() -> Request {
    Request {
        path: vec![Hop {
            node: NodeSeed::from_bytes([1; 32]).keys().node_id(),
            agent: AgentId::from_bytes([0xa1; 16]),
        }],
        resume_from: 7,
        hlc: 0x0123_4567_89ab_cdef,
        cause: Some("n-x#4".to_owned()),
        labels: vec!["web".to_owned(), "user".to_owned()],
        trace: Some(Trace {
            trace: [0xcc; 16],
            span: [0xdd; 8],
            flags: 1,
        }),
        session: Some("s1".to_owned()),
        sender: Some("coder".to_owned()),
        ..request(0x11)
    }
}

fn end() -> End {
    End {
        agent: AgentId::from_bytes([0xa2; 16]),
        agent_name: "assistant".parse().expect("a name"),
        response: Some("hi".to_owned()),
        input_tokens: 12,
        output_tokens: 3,
        iterations: 1,
        cause: Some("n-y#9".to_owned()),
        hlc: 0x0123_4567_89ab_cdf0,
    }
}

fn failures() -> Vec<Failure> {
    let text = || "x".to_owned();
    vec![
        Failure::UnknownAgent { looked_for: text() },
        Failure::Busy {
            retry_after_ms: 250,
        },
        Failure::Refused { reason: text() },
        Failure::TimedOut,
        Failure::Cancelled,
        Failure::TooLarge {
            limit_bytes: 1 << 20,
        },
        Failure::TooDeep { limit: 8 },
        Failure::AgentFailed {
            code: text(),
            message: text(),
        },
        Failure::ShuttingDown,
        Failure::AlreadyRan,
        Failure::Internal,
    ]
}
