//! What crosses to another node comes back as what it was.

use openfang_id::{AgentId, AgentKey, NodeSeed};
use openfang_kernel::Principal;

use super::*;

fn node(byte: u8) -> NodeId {
    NodeSeed::from_bytes([byte; 32]).keys().node_id()
}

fn about() -> About {
    About {
        node: Remote {
            id: node(2),
            name: Some("b".parse().expect("a name")),
        },
        agent: "helper".parse().expect("a reference"),
        message_bytes: 5,
        depth: 3,
        deadline: Duration::from_secs(9),
    }
}

fn delivered() -> Delivery {
    Delivery {
        call_id: [7; 16],
        from: None,
        agent: AgentKey::Name("helper".parse().expect("a name")),
        message: "hello".to_owned(),
        principal: Principal::agent(AgentId::from_random([1; 16]), node(1)),
        path: vec![(node(1), AgentId::from_random([1; 16]))],
        deadline: Duration::from_millis(1234),
        cause: Some("n-0#1".to_owned()),
        sender: Some("alice".to_owned()),
        session: Some("s".to_owned()),
    }
}

#[test]
fn a_message_crosses_whole() {
    let arrived = delivery(node(1), request(delivered(), 7)).expect("a principal");
    let sent = delivered();
    assert_eq!(arrived.from, Some(node(1)));
    assert_eq!(arrived.call_id, sent.call_id);
    assert_eq!(arrived.agent, sent.agent);
    assert_eq!(arrived.message, sent.message);
    assert_eq!(arrived.principal, sent.principal);
    assert_eq!(arrived.path, sent.path);
    assert_eq!(arrived.deadline, sent.deadline);
    assert_eq!(arrived.cause, sent.cause);
    assert_eq!(arrived.sender, sent.sender);
    assert_eq!(arrived.session, sent.session);
}

#[test]
fn a_principal_that_could_forge_a_log_line_is_refused() {
    let mut forged = request(delivered(), 7);
    forged.principal = "api:key\n".to_owned();
    assert!(delivery(node(1), forged).is_err());
}

#[test]
fn a_turn_crosses_whole() {
    let done = |response: &str| {
        TurnEvent::Done(TurnDone {
            response: response.to_owned(),
            input_tokens: 3,
            output_tokens: 4,
            iterations: 2,
            agent_id: AgentId::from_random([9; 16]),
            agent_name: "helper".parse().expect("a name"),
            node_id: node(2),
            node_name: "b".parse().expect("a name"),
            cause: Some("n-2#8".to_owned()),
        })
    };
    let chunk = |text: &str| TurnEvent::Chunk {
        text: text.to_owned(),
    };
    let turn = [
        chunk("hé"),
        TurnEvent::ToolStart {
            id: "1".to_owned(),
            tool: "system_time".to_owned(),
            input: "{}".to_owned(),
        },
        TurnEvent::ToolEnd {
            id: "1".to_owned(),
            tool: "system_time".to_owned(),
            output: "now".to_owned(),
            is_error: false,
        },
        chunk("llo"),
        done("héllo"),
    ];
    let (mut sent, mut text) = (0, String::new());
    for event_sent in turn {
        let crossing = frame(event_sent.clone(), &mut sent, || 7);
        if let Frame::End(end) = &crossing {
            assert_eq!(end.hlc, 7);
            assert_eq!(
                end.response, None,
                "the text of the chunks is not sent twice"
            );
        }
        assert_eq!(event(crossing, &mut text, &about()), event_sent);
    }
    // An answer that came without chunks is sent with the end.
    let crossing = frame(done("other"), &mut 0, || 7);
    assert_eq!(event(crossing, &mut String::new(), &about()), done("other"));
}

#[test]
fn failures_cross_as_what_they_are() {
    let unknown = SendError::UnknownAgent {
        looked_for: "helper".parse().expect("a reference"),
        where_looked: Looked::Here("b".parse().expect("a name")),
    };
    let busy = SendError::Busy {
        retry_after: Duration::from_millis(250),
    };
    let refused = SendError::Refused {
        reason: "no".to_owned(),
    };
    for sent in [
        unknown,
        busy,
        refused,
        SendError::AlreadyRan,
        SendError::TooDeep { depth: 3 },
    ] {
        let arrived = send_error(send_failure(&sent), &about());
        assert_eq!(arrived.code(), sent.code());
    }
    for (sent, code) in [
        (TurnError::Cancelled, "cancelled"),
        (TurnError::Killed, "agent_killed"),
        (TurnError::IterationLimit { max: 3 }, "iteration_limit"),
        (
            TurnError::TimedOut {
                after: Duration::from_secs(1),
            },
            "timed_out",
        ),
    ] {
        let arrived = turn_error(turn_failure(&sent), &about());
        assert_eq!(arrived.code(), code);
    }
}

#[test]
fn a_node_that_stops_or_is_gone_is_named() {
    for sent in [
        CallError::Failed(Failure::ShuttingDown),
        CallError::Asleep,
        CallError::Lost {
            node: node(2),
            last: "reset".to_owned(),
        },
        CallError::Unreachable {
            node: node(2),
            last: "refused".to_owned(),
        },
    ] {
        assert_eq!(
            call_error(sent, &about()),
            SendError::Unreachable {
                node: node(2),
                node_name: Some("b".parse().expect("a name")),
            }
        );
    }
    assert_eq!(
        call_error(CallError::ShuttingDown, &about()),
        SendError::ShuttingDown
    );
}
