//! What the vault keeps through crashes and damage, and what it erases.

use super::redaction::Plan;
use super::*;
use openfang_id::NodeSeed;

struct Made {
    root: tempfile::TempDir,
    vault: Vault,
}

fn key() -> VaultKey {
    NodeSeed::from_bytes([1; 32]).vault_key()
}

fn made() -> Made {
    let root = tempfile::TempDir::new().expect("a folder");
    let vault = opened(root.path(), 1);
    Made { root, vault }
}

fn opened(root: &Path, run: u8) -> Vault {
    Vault::open(&root.join("vault"), &key(), Zeroizing::new([run; 32])).expect("a vault")
}

fn hidden(subject: &str, value: &str) -> Hidden {
    Hidden {
        subject: Zeroizing::new(subject.to_owned()),
        value: Zeroizing::new(value.to_owned()),
    }
}

/// Seals and writes a value, and returns what a line would hold.
fn keep(vault: &Vault, seq: u64, subject: &str) -> Hash {
    let opening = vault.seal(
        Field::User,
        &hidden(subject, &format!("{subject} at {seq}")),
    );
    vault.write([(seq, &opening)].into_iter()).expect("written");
    opening.commitment()
}

fn value(reader: &VaultReader, commitment: Hash) -> Option<String> {
    let kept = reader.openings(&[commitment].into()).expect("readable");
    let kept = kept.get(&commitment)?;
    let keys = reader.unwrapped(&[kept.key].into()).expect("readable");
    super::open(keys.get(&kept.key)?.as_ref()?, kept)
}

#[test]
fn values_come_back_in_later_runs_and_only_with_the_key_of_the_node() {
    let made = made();
    let first = keep(&made.vault, 3, "ada");
    drop(made.vault);
    let later = opened(made.root.path(), 2);
    let second = keep(&later, 4, "ada");
    let third = keep(&later, 5, "ada");
    for (seq, commitment) in [(3, first), (4, second), (5, third)] {
        let found = value(later.reader(), commitment);
        assert_eq!(found.as_deref(), Some(&*format!("ada at {seq}")));
    }
    assert_eq!(later.reader().files().expect("listed").len(), 2);
    let other = NodeSeed::from_bytes([2; 32]).vault_key();
    let other = VaultReader::new(&made.root.path().join("vault"), &other);
    assert_eq!(value(&other, first), None);
    assert_ne!(other.handle("ada"), later.reader().handle("ada"));
    assert_eq!(
        later.reader().handle(" ADA\n"),
        later.reader().handle("ada")
    );
}

#[test]
fn an_interrupted_write_loses_itself_and_nothing_before_or_after() {
    let made = made();
    let first = keep(&made.vault, 0, "ada");
    let path = made.vault.reader().path(1);
    let before = std::fs::read(&path).expect("readable").len();
    let second = keep(&made.vault, 1, "bob");
    let whole = std::fs::read(&path).expect("readable");
    for len in before..whole.len() {
        std::fs::write(&path, &whole[..len]).expect("cut");
        let run = u8::try_from(len % 200).expect("small") + 3;
        let later = opened(made.root.path(), run);
        assert_eq!(value(later.reader(), first).as_deref(), Some("ada at 0"));
        assert_eq!(value(later.reader(), second), None);
        let third = keep(&later, 1, "bob");
        assert_eq!(value(later.reader(), third).as_deref(), Some("bob at 1"));
    }
}

#[test]
fn no_flipped_bit_brings_another_value() {
    let made = made();
    let one = keep(&made.vault, 0, "ada");
    let path = made.vault.reader().path(1);
    let whole = std::fs::read(&path).expect("readable");
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        let found = value(made.vault.reader(), one);
        assert!(found.is_none_or(|found| found == "ada at 0"), "{at}");
    }
}

#[test]
fn what_cannot_be_written_is_said_and_its_key_is_written_with_the_next() {
    let made = made();
    let dir = made.vault.reader().dir.clone();
    // A file that is always full, in the place of the next one.
    std::os::unix::fs::symlink("/dev/full", dir.join("00000001.vault")).expect("a link");
    let opening = made.vault.seal(Field::User, &hidden("ada", "one"));
    let failed = made.vault.write([(0, &opening)].into_iter());
    assert!(failed.is_err());
    std::fs::remove_file(dir.join("00000001.vault")).expect("removed");
    let next = made.vault.seal(Field::User, &hidden("ada", "two"));
    assert_eq!(next.key, opening.key);
    made.vault.write([(0, &next)].into_iter()).expect("written");
    let found = value(made.vault.reader(), next.commitment());
    assert_eq!(found.as_deref(), Some("two"));
}

#[test]
fn what_is_erased_is_gone_from_every_file_and_the_rest_stays() {
    let made = made();
    let ada: Vec<Hash> = (0..3).map(|seq| keep(&made.vault, seq, "ada")).collect();
    let bob = keep(&made.vault, 3, "bob");
    drop(made.vault);
    let vault = opened(made.root.path(), 2);
    let late = keep(&vault, 4, "ada");
    let reader = vault.reader();
    // One opening alone.
    let plan = Plan {
        openings: [ada[1]].into(),
        ..Plan::default()
    };
    let bytes = |at| std::fs::read(reader.path(at)).expect("readable");
    let sealed = reader.openings(&plan.openings).expect("readable")[&ada[1]]
        .sealed
        .clone();
    let holds = |at| bytes(at).windows(sealed.len()).any(|part| part == sealed);
    assert!(holds(1));
    vault.erase(&plan).expect("erased");
    assert!(!holds(1));
    assert_eq!(value(reader, ada[1]), None);
    assert_eq!(value(reader, ada[2]).as_deref(), Some("ada at 2"));
    assert_eq!(
        reader
            .still_kept(&ada.iter().copied().collect())
            .expect("readable")
            .len(),
        2
    );
    // A subject, over both files.
    let (plan, found) = reader.kept_of("Ada").expect("readable");
    assert_eq!((plan.keys.len(), found.len()), (2, 3));
    vault.erase(&plan).expect("erased");
    vault.erase(&plan).expect("erased again");
    for gone in ada.iter().chain([&late]) {
        assert_eq!(value(reader, *gone), None);
    }
    assert_eq!(
        reader.kept_of("ada").expect("readable"),
        (Plan::default(), Vec::new())
    );
    assert_eq!(value(reader, bob).as_deref(), Some("bob at 3"));
    // What comes later has another key.
    let after = keep(&vault, 5, "ada");
    assert_eq!(value(reader, after).as_deref(), Some("ada at 5"));
    // A file without openings goes.
    let (plan, _) = reader.kept_of("bob").expect("readable");
    vault.erase(&plan).expect("erased");
    let numbers: Vec<u64> = reader
        .files()
        .expect("listed")
        .into_iter()
        .map(|(at, _)| at)
        .collect();
    assert_eq!(numbers, [2]);
}

#[test]
fn a_full_file_is_followed_by_another() {
    let made = made();
    let first = keep(&made.vault, 0, "ada");
    if let Some((_, _, len)) = &mut lock(&made.vault.active).file {
        *len = FILE_BYTES_MAX;
    }
    let second = keep(&made.vault, 1, "ada");
    assert_eq!(made.vault.reader().files().expect("listed").len(), 2);
    for one in [first, second] {
        assert!(value(made.vault.reader(), one).is_some());
    }
}

#[test]
fn many_subjects_are_forgotten_and_get_other_keys() {
    let made = made();
    let first = keep(&made.vault, 0, "ada");
    for number in 0..=SUBJECTS_MAX {
        drop(
            made.vault
                .key_of([u8::try_from(number % 251).expect("small"); 16]),
        );
        let mut handle = [0; 16];
        handle[..8].copy_from_slice(&number.to_be_bytes());
        drop(made.vault.key_of(handle));
    }
    assert!(lock(&made.vault.keys).known.len() <= SUBJECTS_MAX);
    let second = keep(&made.vault, 1, "ada");
    for one in [first, second] {
        assert!(value(made.vault.reader(), one).is_some());
    }
}

#[test]
fn an_intent_is_read_back_in_one_spelling_only() {
    let origin = crate::Origin::of(&NodeSeed::from_bytes([1; 32]).keys().node_id(), 1);
    let intent = Intent {
        origin,
        from: 7,
        seqs: vec!["3,7-9".to_owned(), "12".to_owned()],
        reason: "asked by the subject".to_owned(),
        user: "cli".to_owned(),
        withdrawn: vec![15, 16],
        plan: Plan {
            openings: [Hash::from_bytes([3; 32]), Hash::from_bytes([4; 32])].into(),
            keys: [[1; 16]].into(),
        },
    };
    let text = intent.to_string();
    assert_eq!(
        parse_intent(text.as_bytes()).map(|same| same.as_ref().to_vec()),
        Ok(text.clone().into())
    );
    for bad in [
        "".to_owned(),
        text[..text.len() - 1].to_owned(),
        text.replace("from 7", "from 07"),
        text.replace("seqs 12\n", ""),
        format!("{text}x"),
        text.replace("key ", "key x"),
        text.replace("withdrawn 15", "withdrawn -15"),
        text.replace("opening", "closing"),
    ] {
        let read = parse_intent(bad.as_bytes());
        let same = read.is_ok_and(|same| same.as_ref() == text.as_bytes());
        assert!(!same, "{bad}");
    }
}
