//! The two ends of a substream.

use proptest::prelude::*;

use super::*;
use crate::codec::{DecodeError, FrameError};

fn text(text: &str) -> Frame {
    Frame::Chunk(Chunk::Text(text.to_owned()))
}

fn stream(frame: &Frame) -> Vec<u8> {
    frame.to_stream().expect("within the bounds")
}

/// A client that made the call, and what it wrote.
fn waiting(nr: u8) -> (Client, Vec<u8>) {
    let mut client = Client::new();
    let out = client.handle(client::In::Call(&request(nr)));
    let [client::Out::Send(bytes)] = out.as_slice() else {
        panic!("{out:?}")
    };
    (client, bytes.clone())
}

/// A server that runs the call.
fn running(nr: u8) -> Server {
    let mut server = Server::new();
    let out = server.handle(server::In::Bytes(&stream(&Frame::Request(request(nr)))));
    assert_eq!(out, [server::Out::Run(Box::new(request(nr)))]);
    server
}

#[test]
fn an_answer_comes_in_pieces_and_the_substream_is_used_again() {
    let mut client = Client::new();
    let mut server = Server::new();
    for nr in 1..=3 {
        let out = client.handle(client::In::Call(&request(nr)));
        let [client::Out::Send(bytes)] = out.as_slice() else {
            panic!("{out:?}")
        };
        let mut expected = vec![server::Out::Run(Box::new(request(nr)))];
        if nr > 1 {
            expected.insert(0, server::Out::Received(CallId([nr - 1; 16])));
        }
        assert_eq!(server.handle(server::In::Bytes(bytes)), expected);
        assert_eq!(server.running(), Some(CallId([nr; 16])));
        let mut received = Vec::new();
        for reply in [text("a"), text("b"), Frame::End(end())] {
            for out in server.handle(server::In::Reply(&reply)) {
                let server::Out::Send(bytes) = out else {
                    panic!("{out:?}")
                };
                received.extend(client.handle(client::In::Bytes(&bytes)));
            }
        }
        assert_eq!(
            received,
            [
                client::Out::Chunk(Chunk::Text("a".to_owned())),
                client::Out::Chunk(Chunk::Text("b".to_owned())),
                client::Out::End(end())
            ]
        );
        assert!(client.is_idle());
        assert_eq!(client.received(), 2);
    }
    let out = client.handle(client::In::Retire);
    let [client::Out::Send(bytes)] = out.as_slice() else {
        panic!("{out:?}")
    };
    let received = [server::Out::Received(CallId([3; 16]))];
    assert_eq!(server.handle(server::In::Bytes(bytes)), received);
    assert_eq!(server.handle(server::In::Closed), [server::Out::Closed]);
}

#[test]
fn a_substream_carries_one_call_at_a_time() {
    let (mut client, bytes) = waiting(1);
    assert_eq!(
        client.handle(client::In::Call(&request(2))),
        [client::Out::NotSent(client::NotSent::InUse)]
    );
    let mut server = Server::new();
    server.handle(server::In::Bytes(&bytes));
    assert_eq!(
        server.handle(server::In::Bytes(&bytes)),
        [server::Out::Violated(longer_than_a_cancel(&bytes))]
    );
}

/// Where only a cancel may come, a longer frame is refused at its length, before anything of it is
/// kept.
fn longer_than_a_cancel(bytes: &[u8]) -> Violation {
    let len = bytes.len() - 4;
    Violation::Stream(FrameError::TooLong { len, max: 1 })
}

#[test]
fn a_server_says_what_it_holds_of_a_frame_and_holds_nothing_during_a_call() {
    let bytes = stream(&Frame::Request(Request {
        message: "m".repeat(100_000),
        ..request(1)
    }));
    let mut server = Server::new();
    assert_eq!(server.unfinished(), 0);
    assert_eq!(server.handle(server::In::Bytes(&bytes[..2])), []);
    assert!((1..64).contains(&server.unfinished()));
    let rest = &bytes[2..];
    assert_eq!(server.handle(server::In::Bytes(&rest[..90_000])), []);
    assert!(server.unfinished() >= 89_998);
    server.handle(server::In::Bytes(&rest[90_000..]));
    assert_eq!(server.running(), Some(CallId([1; 16])));
    assert_eq!(server.unfinished(), 0);
    let out = server.handle(server::In::Bytes(&bytes[..90_000]));
    assert!(matches!(out.as_slice(), [server::Out::Violated(_)]));
    assert!(server.unfinished() < 64);
}

#[test]
fn a_request_that_is_too_large_is_not_sent_and_harms_nothing() {
    let mut client = Client::new();
    let large = Request {
        message: "m".repeat(REQUEST_BYTES_MAX),
        ..request(1)
    };
    let out = client.handle(client::In::Call(&large));
    assert!(
        matches!(
            out.as_slice(),
            [client::Out::NotSent(client::NotSent::Encode(
                CallEncodeError::TooLarge { .. }
            ))]
        ),
        "{out:?}"
    );
    assert!(client.is_idle());
    assert!(matches!(
        client.handle(client::In::Call(&request(1))).as_slice(),
        [client::Out::Send(_)]
    ));
}

#[test]
fn a_cancel_is_answered_with_a_last_frame_and_drops_what_is_on_the_way() {
    let (mut client, bytes) = waiting(1);
    let mut server = Server::new();
    server.handle(server::In::Bytes(&bytes));
    let on_the_way = server.handle(server::In::Reply(&text("late")));
    let cancel = client.handle(client::In::Cancel);
    let [client::Out::Send(cancel)] = cancel.as_slice() else {
        panic!("{cancel:?}")
    };
    assert_eq!(client.handle(client::In::Cancel), []);
    let [server::Out::Send(late)] = on_the_way.as_slice() else {
        panic!("{on_the_way:?}")
    };
    assert_eq!(client.handle(client::In::Bytes(late)), []);

    let asked = [server::Out::Cancel(CallId([1; 16]))];
    assert_eq!(server.handle(server::In::Bytes(cancel)), asked);
    assert_eq!(server.handle(server::In::Reply(&text("unsent"))), []);
    let last = server.handle(server::In::Reply(&Frame::Failure(Failure::Cancelled)));
    let [server::Out::Send(last)] = last.as_slice() else {
        panic!("{last:?}")
    };
    let failed = [client::Out::Failure(Failure::Cancelled)];
    assert_eq!(client.handle(client::In::Bytes(last)), failed);
    assert!(client.is_idle());
}

#[test]
fn a_cancel_that_crosses_the_last_frame_is_harmless_once() {
    let mut server = running(1);
    server.handle(server::In::Reply(&Frame::End(end())));
    let cancel = stream(&Frame::Cancel);
    assert_eq!(server.handle(server::In::Bytes(&cancel)), []);
    let mut again = running(1);
    again.handle(server::In::Reply(&Frame::End(end())));
    again.handle(server::In::Bytes(&cancel));
    let next = stream(&Frame::Request(request(2)));
    assert_eq!(
        again.handle(server::In::Bytes(&next)),
        [
            server::Out::Received(CallId([1; 16])),
            server::Out::Run(Box::new(request(2)))
        ]
    );
    let (kind, when) = (FrameKind::Cancel, "between calls");
    assert_eq!(
        server.handle(server::In::Bytes(&cancel)),
        [server::Out::Violated(Violation::Unexpected { kind, when })]
    );
}

#[test]
fn the_same_call_again_on_its_substream_is_not_a_receipt() {
    let mut server = running(1);
    server.handle(server::In::Reply(&Frame::Failure(Failure::Internal)));
    let again = stream(&Frame::Request(request(1)));
    assert_eq!(
        server.handle(server::In::Bytes(&again)),
        [server::Out::Run(Box::new(request(1)))]
    );
}

#[test]
fn what_is_not_the_answer_of_a_run_is_not_acknowledged() {
    // The run it was turned away from may still be going on elsewhere, or its answer be asked for.
    let busy = Failure::Busy { retry_after_ms: 5 };
    for failure in [busy, Failure::ShuttingDown, Failure::AlreadyRan] {
        for next in [Frame::Request(request(2)), Frame::Received] {
            let mut server = running(1);
            server.handle(server::In::Reply(&Frame::Failure(failure.clone())));
            let out = server.handle(server::In::Bytes(&stream(&next)));
            let received = |out: &server::Out| matches!(out, server::Out::Received(_));
            assert!(!out.iter().any(received), "{out:?}");
            assert!(
                !matches!(out.as_slice(), [server::Out::Violated(_)]),
                "{out:?}"
            );
        }
    }
}

#[test]
fn a_lost_stream_names_the_call_and_how_much_of_it_arrived() {
    let mut client = Client::new();
    let retry = Request {
        resume_from: 5,
        ..request(1)
    };
    client.handle(client::In::Call(&retry));
    client.handle(client::In::Bytes(&stream(&text("six"))));
    // Half a frame is lost with the stream.
    client.handle(client::In::Bytes(&stream(&text("seven"))[..6]));
    let lost = [client::Out::Lost(CallId([1; 16]))];
    assert_eq!(client.handle(client::In::Closed), lost);
    assert_eq!(client.received(), 6);
    assert_eq!(client.handle(client::In::Closed), []);
    assert_eq!(
        client.handle(client::In::Call(&request(2))),
        [client::Out::NotSent(client::NotSent::Ended)]
    );

    let mut server = running(1);
    let lost = [server::Out::Lost(CallId([1; 16]))];
    assert_eq!(server.handle(server::In::Closed), lost);
    assert_eq!(
        server.handle(server::In::Reply(&text("x"))),
        [server::Out::NotSent(server::NotSent::NoCall)]
    );

    let mut idle = Client::new();
    assert_eq!(idle.handle(client::In::Closed), [client::Out::Closed]);
    let mut idle = Server::new();
    idle.handle(server::In::Bytes(&[0, 0]));
    let truncated = Violation::Stream(FrameError::Truncated);
    assert_eq!(
        idle.handle(server::In::Closed),
        [server::Out::Violated(truncated)]
    );
}

#[test]
fn each_end_refuses_the_frames_of_its_own_side() {
    for frame in [Frame::Request(request(1)), Frame::Cancel, Frame::Received] {
        let (mut client, _bytes) = waiting(1);
        let (kind, when) = (frame.kind(), "from the answering end");
        assert_eq!(
            client.handle(client::In::Bytes(&stream(&frame))),
            [client::Out::Violated(Violation::Unexpected { kind, when })]
        );
        let mut server = running(1);
        assert_eq!(
            server.handle(server::In::Reply(&frame)),
            [server::Out::NotSent(server::NotSent::NotAReply)]
        );
    }
    for frame in [
        text("x"),
        Frame::End(end()),
        Frame::Failure(Failure::Internal),
    ] {
        let mut server = running(1);
        let bytes = stream(&frame);
        assert_eq!(
            server.handle(server::In::Bytes(&bytes)),
            [server::Out::Violated(longer_than_a_cancel(&bytes))]
        );
        let mut idle = Client::new();
        let (kind, when) = (frame.kind(), "between calls");
        assert_eq!(
            idle.handle(client::In::Bytes(&stream(&frame))),
            [client::Out::Violated(Violation::Unexpected { kind, when })]
        );
    }
}

#[test]
fn a_stream_that_is_no_frames_is_a_typed_violation() {
    let mut server = Server::new();
    let too_long = FrameError::TooLong {
        len: 0xffff_ffff,
        max: FRAME_BYTES_MAX,
    };
    let out = server.handle(server::In::Bytes(&[0xff; 4]));
    assert_eq!(out, [server::Out::Violated(too_long.into())]);
    // Nothing is taken from a broken stream.
    let good = stream(&Frame::Request(request(1)));
    assert_eq!(server.handle(server::In::Bytes(&good)), []);

    let (mut client, _bytes) = waiting(1);
    let unknown = DecodeError::Unknown {
        what: "kind of frame",
        value: 9,
    };
    let out = client.handle(client::In::Bytes(&[0, 0, 0, 1, 9]));
    let violation = Violation::Decode(CallDecodeError::Malformed(unknown));
    assert_eq!(out, [client::Out::Violated(violation)]);
}

#[test]
fn after_its_receipt_a_substream_carries_no_more_calls() {
    let mut server = running(1);
    server.handle(server::In::Reply(&Frame::End(end())));
    let mut bytes = stream(&Frame::Received);
    bytes.extend(stream(&Frame::Request(request(2))));
    let request = stream(&Frame::Request(request(2)));
    assert_eq!(
        server.handle(server::In::Bytes(&bytes)),
        [
            server::Out::Received(CallId([1; 16])),
            server::Out::Violated(longer_than_a_cancel(&request))
        ]
    );
    // Before any call there is nothing to acknowledge.
    let mut fresh = Client::new();
    assert_eq!(fresh.handle(client::In::Retire), []);
    let (mut busy, _bytes) = waiting(1);
    assert_eq!(busy.handle(client::In::Retire), []);
    assert!(!busy.is_idle());
}

proptest! {
    /// Whatever the pieces in which bytes arrive, the client gets the replies the server gave.
    #[test]
    fn what_one_end_replies_the_other_gets(
        calls in proptest::collection::vec((proptest::collection::vec(".{0,30}", 0..5), any::<bool>()), 1..5),
        cuts in proptest::collection::vec(1_usize..40, 1..6),
    ) {
        let mut client = Client::new();
        let mut server = Server::new();
        for (nr, (texts, succeeds)) in (1_u8..).zip(calls) {
            let out = client.handle(client::In::Call(&request(nr)));
            let [client::Out::Send(bytes)] = out.as_slice() else { panic!("{out:?}") };
            let mut runs = 0;
            for piece in pieces(bytes, &cuts) {
                let out = server.handle(server::In::Bytes(piece));
                runs += out.iter().filter(|out| matches!(out, server::Out::Run(_))).count();
            }
            prop_assert_eq!(runs, 1);
            let mut replies: Vec<_> = texts.iter().map(|line| text(line)).collect();
            replies.push(if succeeds { Frame::End(end()) } else { Frame::Failure(Failure::Internal) });
            let mut written = Vec::new();
            for reply in &replies {
                for out in server.handle(server::In::Reply(reply)) {
                    let server::Out::Send(bytes) = out else { panic!("{out:?}") };
                    written.extend(bytes);
                }
            }
            let mut received = Vec::new();
            for piece in pieces(&written, &cuts) {
                received.extend(client.handle(client::In::Bytes(piece)).into_iter().map(|out| match out {
                    client::Out::Chunk(chunk) => Frame::Chunk(chunk),
                    client::Out::End(end) => Frame::End(end),
                    client::Out::Failure(failure) => Frame::Failure(failure),
                    other @ (client::Out::Send(_) | client::Out::NotSent(_) | client::Out::Closed | client::Out::Lost(_) | client::Out::Violated(_)) => panic!("{other:?}"),
                }));
            }
            prop_assert_eq!(received, replies);
            prop_assert!(client.is_idle());
        }
    }

    #[test]
    fn arbitrary_streams_never_panic_and_end_after_a_violation(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8),
        frames in proptest::collection::vec(super::frames::any_frame(), 0..6),
    ) {
        let mut stream_bytes: Vec<u8> = frames.iter().flat_map(stream).collect();
        stream_bytes.extend(pieces.concat());
        let (mut client, _bytes) = waiting(1);
        let mut server = Server::new();
        let out = client.handle(client::In::Bytes(&stream_bytes));
        let broken = out.iter().position(|out| matches!(out, client::Out::Violated(_)));
        prop_assert!(broken.is_none_or(|at| at + 1 == out.len()));
        let out = server.handle(server::In::Bytes(&stream_bytes));
        let broken = out.iter().position(|out| matches!(out, server::Out::Violated(_)));
        prop_assert!(broken.is_none_or(|at| at + 1 == out.len()));
        if broken.is_some() {
            prop_assert_eq!(server.handle(server::In::Bytes(&stream_bytes)), []);
        }
    }
}

/// Cuts bytes into pieces of these lengths, over and over.
fn pieces<'a>(mut bytes: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut cuts = cuts.iter().cycle();
    std::iter::from_fn(move || {
        let cut = cuts.next().copied().unwrap_or(1).min(bytes.len());
        let (piece, rest) = bytes.split_at(cut);
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}
