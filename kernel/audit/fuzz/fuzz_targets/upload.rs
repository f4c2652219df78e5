//! However a request is cut into chunks, it decodes to the same pieces, and they are written back byte for byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_audit::mirror::{Ended, Piece, UploadDecoder, WireError};

fn decode(bytes: &[u8], chunk: usize) -> Result<(Vec<Piece>, Ended), WireError> {
    let mut decoder = UploadDecoder::default();
    let mut pieces = Vec::new();
    for mut chunk in bytes.chunks(chunk) {
        while let Some(piece) = decoder.feed(&mut chunk)? {
            pieces.push(piece);
        }
    }
    Ok((pieces, decoder.finish()))
}

fuzz_target!(|input: (u8, &[u8])| {
    let (chunk, bytes) = input;
    let whole = decode(bytes, bytes.len().max(1));
    assert_eq!(decode(bytes, usize::from(chunk).max(1)), whole);
    if let Ok((pieces, ended)) = whole {
        let mut again = Vec::new();
        for piece in &pieces {
            match piece {
                Piece::Header(header) => header.encode(&mut again),
                Piece::Package(package) => package.encode(&mut again),
            }
            .expect("it was read");
        }
        assert!(bytes.starts_with(&again));
        let torn = again.len() < bytes.len() || pieces.is_empty();
        assert_eq!(ended == Ended::Torn, torn);
    }
});
