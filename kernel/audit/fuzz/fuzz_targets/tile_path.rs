//! Every accepted path of a tile is written back as it was, and no size makes its row overflow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_audit::tile::TilePath;

fuzz_target!(|input: (&str, u64)| {
    let (text, size) = input;
    if let Ok(path) = text.parse::<TilePath>() {
        assert_eq!(path.to_string(), text);
        let there = TilePath::at(path.kind(), path.index(), size);
        assert_eq!(
            path.is_within(size),
            there.is_some_and(|there| path.width() <= there.width())
        );
    }
});
