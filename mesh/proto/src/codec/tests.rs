//! Every field round-trips, and no bytes make a reader panic.

use openfang_id::{AgentId, AgentKey, NetAddr, NodeId, NodeSeed};
use proptest::prelude::*;

use super::*;

/// One field of every kind.
#[derive(Debug, Clone, PartialEq)]
enum Field {
    U8(u8),
    Bool(bool),
    U16(u16),
    U32(u32),
    U64(u64),
    Bytes16(Vec<u8>),
    Bytes32(Vec<u8>),
    Str16(String),
    Str32(String),
    Option(Option<u32>),
    Count8(u8),
    Count16(u16),
    Node(NodeId),
    Agent(AgentKey),
    Addr(NetAddr),
}

fn addr() -> impl Strategy<Value = NetAddr> {
    let host = prop_oneof![
        any::<[u8; 4]>().prop_map(|ip| format!("/ip4/{}", std::net::Ipv4Addr::from(ip))),
        any::<[u8; 16]>().prop_map(|ip| format!("/ip6/{}", std::net::Ipv6Addr::from(ip))),
        "[a-z][a-z0-9]{0,20}(\\.[a-z]{1,10}){0,3}".prop_map(|name| format!("/dns/{name}")),
    ];
    (host, 1..=u16::MAX, any::<bool>()).prop_map(|(host, port, quic)| {
        let text = if quic {
            format!("{host}/udp/{port}/quic-v1")
        } else {
            format!("{host}/tcp/{port}")
        };
        text.parse().expect("an address")
    })
}

fn field() -> impl Strategy<Value = Field> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        any::<u8>().prop_map(Field::U8),
        any::<bool>().prop_map(Field::Bool),
        any::<u16>().prop_map(Field::U16),
        any::<u32>().prop_map(Field::U32),
        any::<u64>().prop_map(Field::U64),
        bytes.clone().prop_map(Field::Bytes16),
        bytes.prop_map(Field::Bytes32),
        ".{0,20}".prop_map(Field::Str16),
        ".{0,20}".prop_map(Field::Str32),
        any::<Option<u32>>().prop_map(Field::Option),
        any::<u8>().prop_map(Field::Count8),
        any::<u16>().prop_map(Field::Count16),
        any::<[u8; 32]>().prop_map(|seed| Field::Node(NodeSeed::from_bytes(seed).keys().node_id())),
        any::<[u8; 16]>().prop_map(|id| Field::Agent(AgentKey::Id(AgentId::from_bytes(id)))),
        "[a-z][a-z0-9._-]{0,30}"
            .prop_map(|name| Field::Agent(AgentKey::Name(name.parse().expect("a name")))),
        addr().prop_map(Field::Addr),
    ]
}

fn write(writer: &mut Writer, field: &Field) {
    match field {
        Field::U8(n) => writer.u8(*n),
        Field::Bool(b) => writer.bool(*b),
        Field::U16(n) => writer.u16(*n),
        Field::U32(n) => writer.u32(*n),
        Field::U64(n) => writer.u64(*n),
        Field::Bytes16(bytes) => writer.bytes16(bytes),
        Field::Bytes32(bytes) => writer.bytes32(bytes),
        Field::Str16(text) => writer.str16(text),
        Field::Str32(text) => writer.str32(text),
        Field::Option(value) => writer.option(*value, |writer, value| {
            writer.u32(value);
        }),
        Field::Count8(n) => writer.count8(usize::from(*n)),
        Field::Count16(n) => writer.count16(usize::from(*n)),
        Field::Node(id) => writer.node_id(id),
        Field::Agent(key) => writer.agent_key(key),
        Field::Addr(addr) => writer.net_addr(addr),
    };
}

/// Reads a field of the kind of `like`.
fn read(reader: &mut Reader<'_>, like: &Field) -> Result<Field, DecodeError> {
    Ok(match like {
        Field::U8(_) => Field::U8(reader.u8()?),
        Field::Bool(_) => Field::Bool(reader.bool()?),
        Field::U16(_) => Field::U16(reader.u16()?),
        Field::U32(_) => Field::U32(reader.u32()?),
        Field::U64(_) => Field::U64(reader.u64()?),
        Field::Bytes16(_) => Field::Bytes16(reader.bytes16(64)?.to_vec()),
        Field::Bytes32(_) => Field::Bytes32(reader.bytes32(64)?.to_vec()),
        Field::Str16(_) => Field::Str16(reader.str16(80)?.to_owned()),
        Field::Str32(_) => Field::Str32(reader.str32(80)?.to_owned()),
        Field::Option(_) => Field::Option(reader.option(Reader::u32)?),
        Field::Count8(_) => Field::Count8(u8::try_from(reader.count8(255)?).expect("bounded")),
        Field::Count16(_) => {
            Field::Count16(u16::try_from(reader.count16(65_535)?).expect("bounded"))
        }
        Field::Node(_) => Field::Node(reader.node_id()?),
        Field::Agent(_) => Field::Agent(reader.agent_key()?),
        Field::Addr(_) => Field::Addr(reader.net_addr()?),
    })
}

proptest! {
    #[test]
    fn every_sequence_of_fields_round_trips(fields in proptest::collection::vec(field(), 0..12)) {
        let mut writer = Writer::new();
        for field in &fields {
            write(&mut writer, field);
        }
        let bytes = writer.finish(usize::MAX).expect("short fields");
        let mut reader = Reader::new(&bytes);
        for field in &fields {
            prop_assert_eq!(read(&mut reader, field), Ok(field.clone()));
        }
        prop_assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_what_is_read_is_written_the_same(
        fields in proptest::collection::vec(field(), 1..8),
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut reader = Reader::new(&bytes);
        let mut writer = Writer::new();
        for field in &fields {
            match read(&mut reader, field) {
                Ok(field) => write(&mut writer, &field),
                Err(_refused) => return Ok(()),
            }
        }
        let taken = bytes.len() - reader.left();
        prop_assert_eq!(writer.finish(usize::MAX).expect("short"), &bytes[..taken]);
    }

    #[test]
    fn frames_come_out_of_a_stream_however_it_is_cut(
        frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..90), 0..8),
        cuts in proptest::collection::vec(1_usize..20, 1..8),
    ) {
        let mut stream = Vec::new();
        for frame in &frames {
            frame_into(&mut stream, frame, 90).expect("within the bound");
        }
        let mut buffer = FrameBuffer::new(90);
        let mut out = Vec::new();
        let mut left = stream.as_slice();
        for cut in cuts.into_iter().cycle() {
            if left.is_empty() {
                break;
            }
            let (mut input, rest) = left.split_at(cut.min(left.len()));
            while let Some(frame) = buffer.feed(&mut input).expect("frames") {
                out.push(frame);
            }
            prop_assert!(input.is_empty());
            left = rest;
        }
        prop_assert_eq!(out, frames);
        prop_assert_eq!(buffer.finish(), Ok(()));
    }

    #[test]
    fn an_arbitrary_stream_never_panics_nor_grows(
        stream in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut buffer = FrameBuffer::new(64);
        let mut input = stream.as_slice();
        while let Ok(Some(frame)) = buffer.feed(&mut input) {
            prop_assert!(frame.len() <= 64);
        }
    }
}

#[test]
fn a_length_over_the_bound_is_refused_before_anything_is_kept() {
    let mut buffer = FrameBuffer::new(10);
    let mut input: &[u8] = &[0, 0, 0];
    assert_eq!(buffer.feed(&mut input), Ok(None));
    let mut input: &[u8] = &[11, 1, 2, 3];
    let refused = Err(FrameError::TooLong { len: 11, max: 10 });
    assert_eq!(buffer.feed(&mut input), refused);
    assert_eq!(input, [1, 2, 3]);
    // And it stays refused.
    assert_eq!(buffer.feed(&mut input), refused);
    assert_eq!(buffer.finish(), Err(FrameError::Truncated));
}

#[test]
fn a_promised_length_alone_takes_no_memory() {
    let mut buffer = FrameBuffer::new(1 << 20);
    let mut input: &[u8] = &[0, 0x0f, 0, 0, 7];
    assert_eq!(buffer.feed(&mut input), Ok(None));
    assert!(buffer.held() < 64, "{}", buffer.held());
}

#[test]
fn a_frame_takes_no_more_memory_than_it_has_bytes() {
    let mut buffer = FrameBuffer::new(1 << 20);
    let mut sent = vec![0, 0x0a, 0, 1];
    sent.resize(4 + 0x0a_0000, 7);
    let mut last = 0;
    for part in sent.chunks(5_000) {
        let mut part = part;
        assert_eq!(buffer.feed(&mut part), Ok(None));
        assert!(buffer.unfinished() >= last);
        last = buffer.unfinished();
    }
    assert!((0x0a_0000..=0x0a_0005).contains(&last), "{last}");
    let whole = buffer.feed(&mut [7].as_slice()).expect("sound");
    assert_eq!(whole.map(|frame| frame.capacity()), Some(0x0a_0001));
    assert_eq!(buffer.unfinished(), 0);
}

#[test]
fn an_empty_frame_is_a_frame() {
    let mut buffer = FrameBuffer::new(10);
    let mut input: &[u8] = &[0, 0, 0, 0];
    assert_eq!(buffer.feed(&mut input), Ok(Some(Vec::new())));
    assert!(buffer.is_empty());
}

#[test]
fn what_does_not_fit_is_reported_at_the_end() {
    let long = vec![0; 65_536];
    let mut writer = Writer::new();
    writer.bytes16(&long).u8(1);
    let too_long = EncodeError::FieldTooLong {
        len: 65_536,
        max: 65_535,
    };
    assert_eq!(writer.finish(usize::MAX), Err(too_long));

    let mut writer = Writer::new();
    writer.bytes16(&long[1..]);
    assert_eq!(
        writer.finish(65_536),
        Err(EncodeError::MessageTooLong {
            len: 65_537,
            max: 65_536
        })
    );

    let mut writer = Writer::new();
    writer.count8(256);
    let too_long = EncodeError::FieldTooLong { len: 256, max: 255 };
    assert_eq!(writer.finish(usize::MAX), Err(too_long));

    let mut writer = Writer::new();
    writer.str16_max("four", 3);
    let too_long = EncodeError::FieldTooLong { len: 4, max: 3 };
    assert_eq!(writer.finish(usize::MAX), Err(too_long));

    let mut out = vec![9];
    assert_eq!(
        frame_into(&mut out, &[1, 2], 1),
        Err(EncodeError::MessageTooLong { len: 2, max: 1 })
    );
    assert_eq!(out, [9]);
}

#[test]
fn a_reader_names_what_is_wrong() {
    let mut reader = Reader::new(&[0, 3, b'a']);
    assert_eq!(reader.str16(9), Err(DecodeError::Truncated { missing: 2 }));
    let mut reader = Reader::new(&[0, 3, b'a', b'b', b'c']);
    assert_eq!(
        reader.str16(2),
        Err(DecodeError::TooLong { len: 3, max: 2 })
    );
    let mut reader = Reader::new(&[0xff; 40]);
    let too_long = DecodeError::TooLong {
        len: 0xffff_ffff,
        max: 1 << 20,
    };
    assert_eq!(reader.bytes32(1 << 20), Err(too_long));
    let mut reader = Reader::new(&[0, 1, 0xff]);
    assert_eq!(reader.str16(9), Err(DecodeError::Utf8));
    let mut reader = Reader::new(&[2]);
    let unknown = DecodeError::Unknown {
        what: "truth value",
        value: 2,
    };
    assert_eq!(reader.bool(), Err(unknown));
    assert_eq!(
        Reader::new(&[1]).finish(),
        Err(DecodeError::Trailing { left: 1 })
    );
    // The identity point of the curve: anyone could sign under it.
    let mut weak = [0; 32];
    weak[0] = 1;
    let invalid = DecodeError::Invalid { what: "node id" };
    assert_eq!(Reader::new(&weak).node_id(), Err(invalid));
}

#[test]
fn an_address_has_one_form() {
    let check = |bytes: &[u8], expected: Result<&str, DecodeError>| {
        let read = Reader::new(bytes).net_addr();
        let shown = read.map(|addr| addr.to_string());
        assert_eq!(shown, expected.map(str::to_owned), "{bytes:?}");
    };
    let host = Err(DecodeError::Invalid { what: "host name" });
    check(
        &[1, 4, 192, 0, 2, 7, 0x10, 0x68],
        Ok("/ip4/192.0.2.7/tcp/4200"),
    );
    check(b"\x02\x01\x00\x01x\x00\x01", Ok("/dns/x/udp/1/quic-v1"));
    check(b"\x02\x01\x00\x01X\x00\x01", host);
    check(b"\x02\x01\x00\x00\x00\x01", host);
    check(b"\x01\x01\x00\x09x/tcp/1/p\x00\x01", host);
    check(b"\x01\x01\x00\x071.2.3.4\x00\x01", host);
    check(
        &[1, 4, 192, 0, 2, 7, 0, 0],
        Err(DecodeError::Invalid { what: "port" }),
    );
    check(
        &[3],
        Err(DecodeError::Unknown {
            what: "transport",
            value: 3,
        }),
    );
    check(
        &[1, 5],
        Err(DecodeError::Unknown {
            what: "kind of host",
            value: 5,
        }),
    );
}
