//! Every accepted bundle is made again from its entries, byte for byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_audit::tile::Bundle;

fuzz_target!(|input: (u16, &[u8])| {
    let (width, bytes) = input;
    if let Ok(bundle) = Bundle::parse(bytes.to_vec(), width) {
        assert_eq!(bundle.len(), width);
        let mut again = Bundle::default();
        for entry in bundle.iter() {
            again.push(entry).expect("it fitted");
        }
        assert_eq!(again.as_bytes(), bytes);
    }
});
