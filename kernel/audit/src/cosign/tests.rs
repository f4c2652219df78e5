//! Cosignatures byte for byte, what they hold for, and the names and heads they are about.

use super::*;
use crate::SignedHead;
use crate::note::Verifier;
use crate::tree::EMPTY_ROOT;
use openfang_id::NodeSeed;
use proptest::prelude::*;

/// The head of the examples in C2SP tlog-checkpoint and tlog-cosignature.
const SOFA: &str =
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

fn cosigner(seed: u8) -> Cosigner {
    Cosigner::new(
        "witness.example.com/w1",
        SigningKey::from_bytes(&[seed; 32]),
    )
    .expect("a valid name")
}

fn cosigned(text: &str, by: &Cosigner, time: u64) -> Note {
    let log = SigningKey::from_bytes(&[9; 32]);
    let mut note = Note::sign(text, "example.com/behind-the-sofa", &log).expect("a valid text");
    let head: TreeHead = text.parse().expect("a head");
    note.add(by.cosign(&head, time).expect("a time"))
        .expect("room for a line");
    note
}

#[test]
fn the_head_of_the_specification_is_read() {
    let head: TreeHead = SOFA.parse().expect("a head");
    assert_eq!(head.origin.as_str(), "example.com/behind-the-sofa");
    assert_eq!(head.size, 20_852_163);
    assert_eq!(head.extension_lines().count(), 0);
    assert_eq!(head.to_string(), SOFA);
    let more = format!("{SOFA}an extension line\n\u{2014} another\n");
    let head: TreeHead = more.parse().expect("a head with extension lines");
    assert_eq!(
        head.extension_lines().collect::<Vec<_>>(),
        ["an extension line", "\u{2014} another"]
    );
    assert_eq!(head.to_string(), more);
}

/// The note of the example in C2SP tlog-cosignature: its key is not published, its form is.
#[test]
fn the_cosignature_line_of_the_specification_has_the_form_and_the_time_it_shows() {
    let line = "\u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==";
    let signature: Signature = line.parse().expect("a signature line");
    assert_eq!(signature.bytes.len(), TIME_BYTES + ED25519_BYTES);
    assert_eq!(signature.key_id, [0x8d, 0x66, 0xcf, 0x3f]);
    let time = u64::from_be_bytes(*signature.bytes.first_chunk().expect("a time"));
    assert_eq!(time, 1_679_315_147);
    assert_eq!(signature.to_string(), line);
    assert_eq!(
        message(SOFA, time),
        "cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\n\
         CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    );
}

/// Everything about the format, once more by hand.
#[test]
fn a_cosignature_is_what_the_specification_says_byte_for_byte() {
    let key = SigningKey::from_bytes(&[3; 32]);
    let by = Cosigner::new("w.example/1", key.clone()).expect("a valid name");
    let line = by
        .cosign(&SOFA.parse().expect("a head"), 1_679_315_147)
        .expect("a time");
    let signed = format!("cosignature/v1\ntime 1679315147\n{SOFA}");
    let mut id_of = b"w.example/1\n\x04".to_vec();
    id_of.extend_from_slice(&key.verifying_key().to_bytes());
    let id = &Sha256::digest(&id_of)[..4];
    let mut bytes = id.to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 0, 0x64, 0x18, 0x50, 0xcb]);
    bytes.extend_from_slice(&key.sign(signed.as_bytes()));
    assert_eq!(
        line.to_string(),
        format!("\u{2014} w.example/1 {}", BASE64.encode(&bytes))
    );
    let mut vkey = vec![4];
    vkey.extend_from_slice(&key.verifying_key().to_bytes());
    let vkey = format!(
        "w.example/1+{}+{}",
        data_encoding::HEXLOWER.encode(id),
        BASE64.encode(&vkey)
    );
    assert_eq!(by.public().to_string(), vkey);
    assert_eq!(vkey.parse(), Ok(by.public().clone()));
    assert_eq!(vkey.parse::<Verifier>(), Err(VerifierError::Key));
}

#[test]
fn a_cosignature_holds_for_its_key_text_and_time_only() {
    let by = cosigner(1);
    let note = cosigned(SOFA, &by, 1_679_315_147);
    assert_eq!(by.public().verify(&note), Ok(1_679_315_147));
    assert_eq!(
        cosigner(2).public().verify(&note),
        Err(NoteError::UnknownKey)
    );
    let other_name = CosignerKey::new("w2", *by.public().key()).expect("a valid name");
    assert_eq!(other_name.verify(&note), Err(NoteError::UnknownKey));
    let text = note.to_string();
    let changed: Note = text
        .replace("\n20852163\n", "\n20852164\n")
        .parse()
        .expect("a note");
    assert_eq!(by.public().verify(&changed), Err(NoteError::Signature));
    let mut later = note.clone();
    let mut line = note.signatures()[1].clone();
    line.bytes[7] ^= 1;
    later.add(line.clone()).expect("room for a line");
    assert_eq!(by.public().verify(&later), Err(NoteError::Signature));
    for length in [8, 71, 73] {
        line.bytes.resize(length, 0);
        later.add(line.clone()).expect("room for a line");
        assert_eq!(by.public().verify(&later), Err(NoteError::Signature));
    }
    let twice: Note = format!("{text}{}\n", note.signatures()[1])
        .parse()
        .expect("a note");
    assert_eq!(by.public().verify(&twice), Err(NoteError::Signature));
}

#[test]
fn only_a_cosignature_that_holds_is_collected() {
    let (by, other) = (
        cosigner(1),
        Cosigner::new("other", SigningKey::from_bytes(&[2; 32])),
    );
    let other = other.expect("a valid name");
    let head: TreeHead = SOFA.parse().expect("a head");
    let line = |by: &Cosigner, time| by.cosign(&head, time).expect("a time");
    let offered = cosigned(SOFA, &other, 3);
    let mut note = offered.clone();
    let answer = format!("{}\n{}\n", line(&other, 4), line(&by, 5));
    assert_eq!(by.public().collect(&mut note, &answer), Ok(5));
    assert_eq!(by.public().verify(&note), Ok(5));
    assert_eq!(other.public().verify(&note), Ok(3));
    // A later one takes its place.
    let later = format!("{}\n", line(&by, 9));
    assert_eq!(by.public().collect(&mut note, &later), Ok(9));
    assert_eq!(note.signatures().len(), 3);
    let mut false_line = line(&by, 6);
    false_line.bytes[30] ^= 1;
    for (answer, expected) in [
        (String::new(), NoteError::SignatureLine),
        (format!("{}\n", line(&other, 4)), NoteError::UnknownKey),
        (format!("{false_line}\n"), NoteError::Signature),
        (later.repeat(2), NoteError::Signature),
    ] {
        let mut note = offered.clone();
        assert_eq!(by.public().collect(&mut note, &answer), Err(expected));
        assert_eq!(note, offered);
    }
}

#[test]
fn the_time_ends_where_the_specification_says() {
    let head: TreeHead = SOFA.parse().expect("a head");
    let by = cosigner(1);
    assert_eq!(by.cosign(&head, TIME_MAX + 1), None);
    assert_eq!(
        by.public().verify(&cosigned(SOFA, &by, TIME_MAX)),
        Ok(TIME_MAX)
    );
    // Signed nevertheless, by someone who does not care.
    let time = TIME_MAX + 1;
    let mut bytes = time.to_be_bytes().to_vec();
    bytes.extend_from_slice(&by.key.sign(message(SOFA, time).as_bytes()));
    let mut note = cosigned(SOFA, &by, 1);
    let line = Signature {
        bytes,
        ..note.signatures()[1].clone()
    };
    note.add(line).expect("room for a line");
    assert_eq!(by.public().verify(&note), Err(NoteError::Signature));
}

/// A note's own signature and a cosignature by the same key cannot stand for each other.
#[test]
fn a_cosignature_is_no_signature_of_a_log() {
    let key = SigningKey::from_bytes(&[1; 32]);
    let by = Cosigner::new("same", key.clone()).expect("a valid name");
    let own = Note::sign(SOFA, "same", &key).expect("a valid text");
    assert_eq!(by.public().verify(&own), Err(NoteError::UnknownKey));
    let verifier = Verifier::new("same", key.verifying_key()).expect("a valid name");
    let only = cosigned(SOFA, &by, 5)
        .with_only(|line| line.name == "same")
        .expect("one line");
    assert_eq!(only.verify(&verifier), Err(NoteError::UnknownKey));
}

#[test]
fn the_names_of_a_node_share_the_label_of_its_log() {
    let node = NodeSeed::from_bytes([1; 32]).keys().node_id();
    let origin = Origin::of(&node, 3);
    let stem = origin.as_str().strip_suffix("/audit/3").expect("an origin");
    assert_eq!(Role::Witness.name_of(&node), format!("{stem}/witness"));
    assert_eq!(Role::Mirror.name_of(&node), format!("{stem}/mirror"));
    let key = SigningKey::from_bytes(&[1; 32]);
    let by = Cosigner::of(&node, Role::Mirror, key.clone());
    assert_eq!(by.public().name(), Role::Mirror.name_of(&node));
    assert_eq!(
        by.public(),
        &CosignerKey::of(&node, Role::Mirror, key.verifying_key())
    );
}

#[test]
fn a_head_of_this_system_is_a_head_of_any_log() {
    let keys = NodeSeed::from_bytes([1; 32]).keys();
    let checkpoint = Checkpoint {
        origin: Origin::of(&keys.node_id(), 1),
        size: 0,
        root: EMPTY_ROOT,
    };
    let head = TreeHead::from(&checkpoint);
    assert_eq!(head.to_string(), checkpoint.to_string());
    assert_eq!(checkpoint.to_string().parse(), Ok(head.clone()));
    assert_eq!(
        head.origin.id().to_string(),
        data_encoding::HEXLOWER.encode(&Sha256::digest(checkpoint.origin.as_str()))
    );
    // A cosignature leaves the head what it was for those that know the log only.
    let signed = SignedHead::sign(checkpoint.clone(), &keys.log);
    let mut note: Note = signed.note.parse().expect("a note");
    let by = Cosigner::of(&keys.node_id(), Role::Witness, keys.witness.clone());
    note.add(by.cosign(&head, 5).expect("a time"))
        .expect("room for a line");
    let opened = SignedHead::open(
        &note.to_string(),
        &checkpoint.origin,
        &keys.log.verifying_key(),
    );
    assert_eq!(opened.map(|head| head.checkpoint), Ok(checkpoint));
}

#[test]
fn malformed_heads_and_names_are_refused() {
    let check = |text: &str, expected: TreeHeadError| {
        assert_eq!(text.parse::<TreeHead>(), Err(expected), "{text:?}");
    };
    check("", TreeHeadError::Lines);
    check(SOFA.trim_end(), TreeHeadError::Lines);
    check("a\n1\n", TreeHeadError::Lines);
    check(&format!("{SOFA}\n"), TreeHeadError::Lines);
    check(&format!("{SOFA}x\n\ny\n"), TreeHeadError::Lines);
    check(&format!("{SOFA}x\ty\n"), TreeHeadError::Lines);
    check(&SOFA.replace("63\n", "63\r\n"), TreeHeadError::Lines);
    check(
        &SOFA.replace("example.com", "example com"),
        TreeHeadError::Origin(LogNameError),
    );
    check(
        &SOFA.replace("example.com", "a+b"),
        TreeHeadError::Origin(LogNameError),
    );
    for size in ["020852163", "+1", "-1", "1 ", "9223372036854775808", "x"] {
        check(&SOFA.replace("20852163", size), TreeHeadError::Size);
    }
    check(&SOFA.replace("q2I=", "q2I"), TreeHeadError::Root);
    check(&SOFA.replace("q2I=", "q2J="), TreeHeadError::Root);
    check(&SOFA.replace("q2I=", "q2Ia"), TreeHeadError::Root);
    let long = format!("{SOFA}{}\n", "x".repeat(TREE_HEAD_BYTES_MAX));
    check(&long, TreeHeadError::TooLong);
    for name in [
        "",
        "a b",
        "a+b",
        "a\u{a0}b",
        "a\u{2028}b",
        "a\nb",
        "a\u{7f}",
        &"x".repeat(256),
    ] {
        assert_eq!(name.parse::<LogName>(), Err(LogNameError), "{name:?}");
    }
    assert!("x".repeat(255).parse::<LogName>().is_ok());
    assert!("日本.example/log".parse::<LogName>().is_ok());
}

#[test]
fn proof_lines_are_counted_and_read_strictly() {
    let line = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n";
    let hash = Hash::from_bytes([7; 32]);
    assert_eq!(parse_proof_lines(""), Some(Vec::new()));
    assert_eq!(parse_proof_lines(&line.repeat(63)), Some(vec![hash; 63]));
    for bad in [
        line.repeat(64),
        "\n".to_owned(),
        line.trim_end().to_owned(),
        format!("{line}\n"),
        line.replace("wc=", "wd="),
        line.replace("wc=", "wc"),
        line.replace("BwcH", ""),
    ] {
        assert_eq!(parse_proof_lines(&bad), None, "{bad:?}");
    }
}

proptest! {
    #[test]
    fn every_flipped_bit_of_a_cosigned_head_is_noticed(bit in 0_usize..8 * 330) {
        let by = cosigner(1);
        let note = cosigned(SOFA, &by, 1_679_315_147).with_only(|line| line.name.starts_with("witness"));
        let text = note.expect("one line").to_string();
        let mut bytes = text.clone().into_bytes();
        let at = (bit / 8) % bytes.len();
        bytes[at] ^= 1 << (bit % 8);
        if let Ok(changed) = String::from_utf8(bytes) && let Ok(note) = changed.parse::<Note>() {
            prop_assert!(by.public().verify(&note).is_err());
        }
    }

    #[test]
    fn heads_are_written_back(
        origin in "[^\\p{Cc}\\s+]{1,30}",
        size in 0..=SIZE_MAX,
        root: [u8; 32],
        extension in prop::collection::vec("[^\\p{Cc}]{1,20}", 0..3),
    ) {
        let root = BASE64.encode(&root);
        let mut text = format!("{origin}\n{size}\n{root}\n");
        for line in &extension {
            text.push_str(line);
            text.push('\n');
        }
        let head = text.parse::<TreeHead>();
        prop_assert_eq!(head.map(|head| head.to_string()), Ok(text));
    }

    #[test]
    fn parsing_never_panics_and_what_is_accepted_is_written_back(
        text in "([a-z+ ./]{0,9}\n)?([0-9+-]{1,20}\n)?(BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n)?(.|\n){0,9}",
    ) {
        if let Ok(head) = text.parse::<TreeHead>() {
            prop_assert_eq!(head.to_string(), text.clone());
        }
        if let Ok(name) = text.parse::<LogName>() {
            prop_assert_eq!(name.to_string(), text.clone());
        }
        if let Ok(key) = text.parse::<CosignerKey>() {
            prop_assert_eq!(key.to_string(), text);
        }
    }
}
