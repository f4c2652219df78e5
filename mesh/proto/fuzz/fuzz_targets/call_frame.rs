//! Feeds a stream to the frame decoder and to both ends of a call's substream: nothing may panic,
//! and whatever is read is written the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_ofp::call::{self, Client, FRAME_BYTES_MAX, Frame, Server, client, server};
use openfang_ofp::codec::FrameBuffer;

fuzz_target!(|data: &[u8]| {
    if let Ok(frame) = Frame::decode(data) {
        let again = frame
            .to_stream()
            .expect("what was read is within the bounds");
        assert_eq!(&again[4..], data);
        for fitted in frame.fit() {
            assert!(fitted.to_stream().is_ok());
        }
    }
    let mut buffer = FrameBuffer::new(FRAME_BYTES_MAX);
    let mut input = data;
    let mut frames = Vec::new();
    while let Ok(Some(frame)) = buffer.feed(&mut input) {
        frames.push(frame);
    }
    let mut server = Server::new();
    let mut requests = Vec::new();
    for out in server.handle(server::In::Bytes(data)) {
        if let server::Out::Run(request) = out {
            requests.push(request);
        }
    }
    server.handle(server::In::Reply(&Frame::Failure(call::Failure::Internal)));
    server.handle(server::In::Closed);
    for request in requests {
        let mut client = Client::new();
        client.handle(client::In::Call(&request));
        client.handle(client::In::Bytes(data));
        client.handle(client::In::Closed);
    }
});
