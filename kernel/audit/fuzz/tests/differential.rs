//! Notes of each implementation in the other one. Needs no nightly compiler.

use openfang_audit::cosign::{Cosigner, TreeHead};
use openfang_audit::note::{Note, Verifier};
use openfang_audit_fuzz::{compare_note, compare_vkey};
use openfang_id::{NodeSeed, SigningKey};
use signed_note::{Note as Theirs, Signer as _, StandardSigner, StandardVerifier, VerifierList};

const HEAD: &str = "log.example/1\n5\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n";

/// A number generator of its own, so that the same cases come every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % end
    }
}

fn key(seed: u8) -> SigningKey {
    NodeSeed::from_bytes([seed; 32]).keys().log
}

fn vkey(seed: u8) -> Verifier {
    Verifier::new("log.example/1", key(seed).verifying_key()).expect("a valid name")
}

/// Our note, cosigned, of which they verify the line of the log and ignore the rest.
#[test]
fn what_we_sign_they_verify() {
    for seed in 0..50 {
        let mut note = Note::sign(HEAD, "log.example/1", &key(seed)).expect("a valid text");
        let witness = Cosigner::new("witness.example/w", key(seed + 100)).expect("a valid name");
        let head: TreeHead = HEAD.parse().expect("a head");
        note.add(witness.cosign(&head, 1_700_000_000).expect("a time"))
            .expect("room for a line");
        let text = note.to_string();
        compare_note(&text);
        compare_vkey(&vkey(seed).to_string());
        let theirs = Theirs::from_bytes(text.as_bytes()).expect("a note");
        let known = StandardVerifier::new(&vkey(seed).to_string()).expect("a key");
        let (verified, unverified) = theirs
            .verify(&VerifierList::new(vec![Box::new(known)]))
            .expect("signed by the log");
        assert_eq!((verified.len(), unverified.len()), (1, 1));
        let stranger = StandardVerifier::new(&vkey(seed + 50).to_string()).expect("a key");
        assert!(
            theirs
                .verify(&VerifierList::new(vec![Box::new(stranger)]))
                .is_err()
        );
    }
}

#[test]
fn what_they_sign_we_verify() {
    for seed in 0..50 {
        let ours = vkey(seed);
        let mut bytes = vec![1];
        bytes.extend_from_slice(key(seed).secret_bytes().as_slice());
        let id = data_encoding::HEXLOWER.encode(&ours.key_id());
        let encoded = data_encoding::BASE64.encode(&bytes);
        let skey = format!("PRIVATE+KEY+log.example/1+{id}+{encoded}");
        let signer = StandardSigner::new(&skey).expect("a key");
        assert_eq!(signer.key_id(), u32::from_be_bytes(ours.key_id()));
        let mut theirs = Theirs::new(HEAD.as_bytes(), &[]).expect("a valid text");
        theirs.add_sigs(&[&signer]).expect("a valid key");
        let text = String::from_utf8(theirs.to_bytes()).expect("text");
        let note: Note = text.parse().expect("a note");
        assert_eq!(note.verify(&ours), Ok(()));
        assert_eq!(note.to_string(), text);
        assert!(note.verify(&vkey(seed + 50)).is_err());
    }
}

/// A hundred thousand changed notes: bytes that matter in the format, in all places.
#[test]
fn both_accept_the_same_notes() {
    let note = Note::sign(HEAD, "log.example/1", &key(1)).expect("a valid text");
    let good = note.to_string();
    let marks = [
        "\n",
        "\n\n",
        "\u{2014} ",
        " ",
        "+",
        "=",
        "A",
        "\0",
        "\r",
        "\t",
        "\u{a0}",
        "\u{7f}",
        "",
    ];
    let mut numbers = Numbers(1);
    for _case in 0..100_000 {
        let mut text = good.clone();
        for _change in 0..=numbers.below(3) {
            let ends: Vec<_> = text.char_indices().map(|(at, _)| at).collect();
            let from = ends
                .get(numbers.below(ends.len() + 1))
                .copied()
                .unwrap_or(text.len());
            let to = ends
                .iter()
                .copied()
                .find(|at| *at > from)
                .unwrap_or(text.len());
            let to = if numbers.below(2) == 0 { from } else { to };
            text.replace_range(from..to, marks[numbers.below(marks.len())]);
            if text.is_empty() {
                break;
            }
        }
        compare_note(&text);
        for line in text.lines() {
            compare_note(line);
            compare_vkey(line);
        }
    }
}
