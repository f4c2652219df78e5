//! The bytes of the frames and their bounds.

use data_encoding::HEXLOWER;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::*;
use crate::codec::{DecodeError, EncodeError};

const PAGE: &str = include_str!("../../../../../docs/PROTOCOL.md");

fn agent_key() -> impl Strategy<Value = AgentKey> {
    prop_oneof![
        any::<[u8; 16]>().prop_map(|id| AgentKey::Id(AgentId::from_bytes(id))),
        "[a-z][a-z0-9._-]{0,63}".prop_map(|name| AgentKey::Name(name.parse().expect("a name"))),
    ]
}

fn hop() -> impl Strategy<Value = Hop> {
    (any::<[u8; 32]>(), any::<[u8; 16]>()).prop_map(|(seed, agent)| Hop {
        node: NodeSeed::from_bytes(seed).keys().node_id(),
        agent: AgentId::from_bytes(agent),
    })
}

fn trace() -> impl Strategy<Value = Trace> {
    any::<([u8; 16], [u8; 8], u8)>().prop_map(|(trace, span, flags)| Trace { trace, span, flags })
}

fn any_request() -> impl Strategy<Value = Request> {
    let who = (any::<[u8; 16]>(), agent_key(), ".{0,40}", ".{0,200}");
    let limits = (any::<u32>(), any::<(u32, u64)>(), of(trace()));
    let texts = (of(".{0,40}"), of(".{0,40}"), of(".{0,40}"));
    let lists = (vec(".{0,20}", 0..4), vec(hop(), 0..3));
    (who, limits, texts, lists).prop_map(
        |(
            (id, agent, principal, message),
            (deadline_ms, (resume_from, hlc), trace),
            (cause, session, sender),
            (labels, path),
        )| Request {
            id: CallId(id),
            agent,
            message,
            principal,
            path,
            deadline_ms,
            resume_from,
            hlc,
            cause,
            labels,
            trace,
            session,
            sender,
        },
    )
}

fn any_chunk() -> impl Strategy<Value = Chunk> {
    let name = || ".{0,30}";
    prop_oneof![
        ".{0,200}".prop_map(Chunk::Text),
        (name(), name(), ".{0,100}").prop_map(|(id, tool, input)| Chunk::ToolStart {
            id,
            tool,
            input
        }),
        (name(), name(), ".{0,100}", any::<bool>()).prop_map(|(id, tool, output, is_error)| {
            Chunk::ToolEnd {
                id,
                tool,
                output,
                is_error,
            }
        }),
    ]
}

fn any_end() -> impl Strategy<Value = End> {
    let texts = ("[a-z][a-z0-9]{0,20}", of(".{0,100}"), of(".{0,50}"));
    (any::<([u8; 16], u64, u64, u32, u64)>(), texts).prop_map(
        |((agent, input_tokens, output_tokens, iterations, hlc), (name, response, cause))| End {
            agent: AgentId::from_bytes(agent),
            agent_name: name.parse().expect("a name"),
            response,
            input_tokens,
            output_tokens,
            iterations,
            cause,
            hlc,
        },
    )
}

pub(super) fn any_frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        4 => any_request().prop_map(Frame::Request),
        4 => any_chunk().prop_map(Frame::Chunk),
        3 => any_end().prop_map(Frame::End),
        3 => proptest::sample::select(failures()).prop_map(Frame::Failure),
        1 => Just(Frame::Cancel),
        1 => Just(Frame::Received),
    ]
}

/// The frame without the length before it, which must be right.
fn encoded(frame: &Frame) -> Vec<u8> {
    let bytes = frame.to_stream().expect("within the bounds");
    let (header, body) = bytes.split_first_chunk::<4>().expect("a length");
    assert_eq!(usize::try_from(u32::from_be_bytes(*header)), Ok(body.len()));
    body.to_vec()
}

proptest! {
    #[test]
    fn every_frame_round_trips(frame in any_frame()) {
        let bytes = encoded(&frame);
        prop_assert_eq!(Frame::decode(&bytes), Ok(frame));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_have_one_form(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(frame) = Frame::decode(&bytes) {
            prop_assert_eq!(encoded(&frame), bytes);
        }
    }

    #[test]
    fn a_damaged_frame_never_panics_and_has_one_form(
        frame in any_frame(),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
        cut in any::<bool>(),
    ) {
        let mut bytes = encoded(&frame);
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
            prop_assert!(Frame::decode(&bytes).is_err());
        } else {
            bytes[at] ^= 1 << bit;
            if let Ok(other) = Frame::decode(&bytes) {
                prop_assert_ne!(&other, &frame);
                prop_assert_eq!(encoded(&other), bytes);
            }
        }
    }

    #[test]
    fn text_of_any_length_fits_after_it_was_split(text in "[aü€𝄞]{0,400}", times in 1_usize..400) {
        let text = text.repeat(times);
        let pieces = Frame::Chunk(Chunk::Text(text.clone())).fit();
        let mut joined = String::new();
        for piece in pieces {
            prop_assert!(piece.to_stream().is_ok());
            let Frame::Chunk(Chunk::Text(piece)) = piece else { panic!("{piece:?}") };
            joined.push_str(&piece);
        }
        prop_assert_eq!(joined, text);
    }
}

#[test]
fn the_frames_have_these_bytes() {
    let chunks = [
        Chunk::Text("hi".to_owned()),
        Chunk::ToolStart {
            id: "t1".to_owned(),
            tool: "agent_list".to_owned(),
            input: "{}".to_owned(),
        },
        Chunk::ToolEnd {
            id: "t1".to_owned(),
            tool: "agent_list".to_owned(),
            output: "[]".to_owned(),
            is_error: false,
        },
    ];
    let frames = [
        Frame::Request(request(0x11)),
        Frame::Request(full_request()),
    ]
    .into_iter()
    .chain(chunks.map(Frame::Chunk))
    .chain([Frame::End(end())])
    .chain(failures().into_iter().map(Frame::Failure))
    .chain([Frame::Cancel, Frame::Received]);
    let shown: Vec<_> = frames
        .map(|frame| HEXLOWER.encode(&encoded(&frame)))
        .collect();
    for hex in &shown {
        let listed = PAGE.contains(&format!("  {hex}\n"));
        assert!(listed, "docs/PROTOCOL.md does not have {hex}");
    }
    insta::assert_snapshot!(shown.join("\n"), @"
    011111111111111111111111111111111100007530000000000000000000000000020009617373697374616e7400076170693a6b65790000000000000000000568656c6c6f
    011111111111111111111111111111111100007530000000070123456789abcdef020009617373697374616e7400076170693a6b6579010005636f64657201000273310100056e2d78233401ccccccccccccccccccccccccccccccccdddddddddddddddd010200037765620004757365720187c411ad756f2d401e68e29061d9d1a2adee37afdb6a71eab4cb835924bf4fb9a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a10000000568656c6c6f
    0201000000026869
    020200027431000a6167656e745f6c697374000000027b7d
    020300027431000a6167656e745f6c69737400000000025b5d
    03a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a20009617373697374616e74000000000000000c0000000000000003000000010123456789abcdf00100056e2d79233901000000026869
    0401000178
    0402000000fa
    0403000178
    0404
    0405
    040600100000
    040700000008
    0408000178000178
    0409
    040a
    040b
    05
    06
    ");
}

#[test]
fn a_request_of_a_mebibyte_passes_and_one_byte_more_does_not() {
    let empty = encoded(&Frame::Request(Request {
        message: String::new(),
        ..request(1)
    }));
    let with = |len: usize| {
        Frame::Request(Request {
            message: "m".repeat(len),
            ..request(1)
        })
    };
    let room = REQUEST_BYTES_MAX - empty.len();
    let largest = encoded(&with(room));
    assert_eq!(largest.len(), REQUEST_BYTES_MAX);
    assert!(Frame::decode(&largest).is_ok());
    let (kind, len, max) = (FrameKind::Request, REQUEST_BYTES_MAX + 1, REQUEST_BYTES_MAX);
    assert_eq!(
        with(room + 1).to_stream(),
        Err(CallEncodeError::TooLarge { kind, len, max })
    );
    let mut larger = largest;
    larger.push(0);
    assert_eq!(
        Frame::decode(&larger),
        Err(CallDecodeError::TooLarge { kind, len, max })
    );
}

#[test]
fn a_chunk_of_64_kib_passes_and_one_byte_more_does_not() {
    let with = |len: usize| Frame::Chunk(Chunk::Text("m".repeat(len)));
    let room = CHUNK_BYTES_MAX - encoded(&with(0)).len();
    let largest = encoded(&with(room));
    assert_eq!(largest.len(), CHUNK_BYTES_MAX);
    assert!(Frame::decode(&largest).is_ok());
    let (kind, len, max) = (FrameKind::Chunk, CHUNK_BYTES_MAX + 1, CHUNK_BYTES_MAX);
    assert_eq!(
        with(room + 1).to_stream(),
        Err(CallEncodeError::TooLarge { kind, len, max })
    );
    let mut larger = largest;
    larger.push(0);
    assert_eq!(
        Frame::decode(&larger),
        Err(CallDecodeError::TooLarge { kind, len, max })
    );
}

#[test]
fn a_field_over_its_bound_is_refused_on_both_sides() {
    let refused = |request: Request, len: usize, max: usize| {
        let field = EncodeError::FieldTooLong { len, max };
        assert_eq!(
            Frame::Request(request).to_stream(),
            Err(CallEncodeError::Field(field))
        );
    };
    let text = |len: usize| "x".repeat(len);
    refused(
        Request {
            principal: text(257),
            ..request(1)
        },
        257,
        256,
    );
    refused(
        Request {
            session: Some(text(257)),
            ..request(1)
        },
        257,
        256,
    );
    refused(
        Request {
            labels: vec![text(129)],
            ..request(1)
        },
        129,
        128,
    );
    refused(
        Request {
            labels: vec![text(1); 33],
            ..request(1)
        },
        33,
        32,
    );
    let hop = full_request().path[0];
    refused(
        Request {
            path: vec![hop; 33],
            ..request(1)
        },
        33,
        32,
    );

    // The same on the way in: a failure whose reason says 1,025 bytes.
    let mut bytes = vec![4, 3, 0x04, 0x01];
    bytes.resize(4 + 1025, b'x');
    let too_long = DecodeError::TooLong {
        len: 1025,
        max: 1024,
    };
    assert_eq!(
        Frame::decode(&bytes),
        Err(CallDecodeError::Malformed(too_long))
    );
}

#[test]
fn a_reply_of_any_size_can_be_made_to_fit() {
    let long = || "ü".repeat(100_000);
    let replies = [
        Frame::Chunk(Chunk::ToolStart {
            id: long(),
            tool: long(),
            input: long(),
        }),
        Frame::Chunk(Chunk::ToolEnd {
            id: long(),
            tool: long(),
            output: long(),
            is_error: true,
        }),
        Frame::Failure(Failure::UnknownAgent { looked_for: long() }),
        Frame::Failure(Failure::Refused { reason: long() }),
        Frame::Failure(Failure::AgentFailed {
            code: long(),
            message: long(),
        }),
        Frame::End(End {
            cause: Some(long()),
            ..end()
        }),
        Frame::End(End {
            response: Some("x".repeat(END_BYTES_MAX - 1024)),
            ..end()
        }),
        Frame::End(End {
            response: Some("x".repeat(END_BYTES_MAX)),
            ..end()
        }),
    ];
    for reply in replies {
        let kind = reply.kind();
        let fitted = reply.fit();
        assert_eq!(fitted.len(), 1);
        assert!(fitted[0].to_stream().is_ok(), "{kind:?}");
    }
    let too_large = Failure::TooLarge {
        limit_bytes: 1 << 20,
    };
    let end = Frame::End(End {
        response: Some("x".repeat(END_BYTES_MAX)),
        ..end()
    });
    assert_eq!(end.fit(), [Frame::Failure(too_large)]);
}

#[test]
fn the_numbers_of_the_failures_do_not_change() {
    let codes: Vec<_> = failures().iter().map(Failure::code).collect();
    assert_eq!(codes, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    for (failure, code) in failures().into_iter().zip(codes) {
        assert_eq!(encoded(&Frame::Failure(failure))[1], code);
    }
    let what = "failure";
    assert_eq!(
        Frame::decode(&[4, 12]),
        Err(CallDecodeError::Malformed(DecodeError::Unknown {
            what,
            value: 12
        }))
    );
}
