//! Signed notes: a text and signatures over it. C2SP signed-note v1.0.0.
//!
//! A note is a text that ends in a line feed, an empty line, and one or more signature lines
//! `— NAME BASE64`, where the base64 holds a four-byte key id and the signature. Parsing is strict
//! and total: every accepted note is written back byte for byte by its `Display`.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER};
use openfang_id::{SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

use crate::base64;

/// The longest note that is parsed.
pub const NOTE_BYTES_MAX: usize = 1_000_000;
/// The most signature lines that are parsed. The specification asks for 16 at least.
pub const SIGNATURES_MAX: usize = 100;
/// The longest verifier key that is parsed: a name of 255 bytes and the rest.
pub const VKEY_BYTES_MAX: usize = 320;

/// Marks a plain Ed25519 key in key ids and verifier keys.
const TYPE_ED25519: u8 = 0x01;
/// What a signature line begins with: an em dash and a space.
const SIGNATURE_MARK: &str = "\u{2014} ";
pub(crate) const KEY_ID_BYTES: usize = 4;

/// A text with its signatures. What the signatures are worth is told by [`Note::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

/// One signature line. As text it is the line without its line feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The name of the key.
    pub name: String,
    /// Tells keys of one name apart.
    pub key_id: [u8; KEY_ID_BYTES],
    /// The signature itself; its length depends on the kind of key.
    pub bytes: Vec<u8>,
}

/// A named Ed25519 key that checks notes: `NAME+KEYID+BASE64`, of this system or of anyone else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    key: VerifyingKey,
}

/// Why a text is not a note, or a note is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Longer than is parsed.
    #[error("the note is longer than {NOTE_BYTES_MAX} bytes")]
    TooLong,
    /// Control characters, no final line feed, or no empty line before the signatures.
    #[error("not a signed note")]
    Form,
    /// A signature line that is none, or more of them than are parsed.
    #[error("a signature line of the note is malformed")]
    SignatureLine,
    /// None of the signatures is by a key that is asked for.
    #[error("the note is not signed by the expected key")]
    UnknownKey,
    /// A signature by an expected key that does not verify, or two of them.
    #[error("a signature of the note does not verify")]
    Signature,
}

/// Why a text is not a verifier key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    /// Not of the form `NAME+KEYID+BASE64`, or with a name that notes cannot hold.
    #[error("not a verifier key: expected NAME+KEYID+BASE64")]
    Form,
    /// Not of the kind that is asked for, or not a usable Ed25519 key.
    #[error("the verifier key is not a usable Ed25519 key of the expected kind")]
    Key,
    /// The key id belongs to another name or key.
    #[error("the key id does not belong to this name and key")]
    KeyId,
}

impl Note {
    /// Signs a text with a named Ed25519 key. Returns `None` for a text or name that a note cannot
    /// hold: the text must be non-empty, end in a line feed and have no other control character.
    #[must_use]
    pub fn sign(text: &str, name: &str, key: &SigningKey) -> Option<Self> {
        if !is_text(text) || !is_name(name) {
            return None;
        }
        Some(Self {
            text: text.to_owned(),
            signatures: vec![Signature {
                name: name.to_owned(),
                key_id: key_id(name, TYPE_ED25519, &key.verifying_key()),
                bytes: key.sign(text.as_bytes()).to_vec(),
            }],
        })
    }

    /// Returns the signed text, with its final line feed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the signatures, as they stand: checked for form only.
    #[must_use]
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Adds a signature line, or puts it in the place of the one of the same name and key id.
    ///
    /// # Errors
    /// [`NoteError::SignatureLine`] for a line that cannot be written, or one too many;
    /// [`NoteError::TooLong`] when the note would become too long. The note is then unchanged.
    pub fn add(&mut self, signature: Signature) -> Result<(), NoteError> {
        if !is_name(&signature.name) || signature.bytes.is_empty() {
            return Err(NoteError::SignatureLine);
        }
        let mut signatures = self.signatures.clone();
        match signatures.iter().position(|old| old.is_beside(&signature)) {
            Some(at) => signatures[at] = signature,
            None if signatures.len() < SIGNATURES_MAX => signatures.push(signature),
            None => return Err(NoteError::SignatureLine),
        }
        let changed = Self {
            text: self.text.clone(),
            signatures,
        };
        if changed.to_string().len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLong);
        }
        *self = changed;
        Ok(())
    }

    /// Returns the note with those of its signatures that are wanted, or `None` when there is none.
    #[must_use]
    pub fn with_only(&self, wanted: impl FnMut(&&Signature) -> bool) -> Option<Self> {
        let signatures: Vec<_> = self.signatures.iter().filter(wanted).cloned().collect();
        (!signatures.is_empty()).then(|| Self {
            text: self.text.clone(),
            signatures,
        })
    }

    /// Checks the signature of one key. Those of other keys are passed over.
    ///
    /// # Errors
    /// [`NoteError::UnknownKey`] when there is none, [`NoteError::Signature`] when there are two or
    /// it does not hold.
    pub fn verify(&self, verifier: &Verifier) -> Result<(), NoteError> {
        let line = self.line_of(&verifier.name, verifier.key_id())?;
        let bytes: &[u8; 64] = line
            .bytes
            .as_slice()
            .try_into()
            .map_err(|_length| NoteError::Signature)?;
        verifier
            .key
            .verify(self.text.as_bytes(), bytes)
            .map_err(|_mismatch| NoteError::Signature)
    }

    /// Returns the one signature line of a key.
    pub(crate) fn line_of(
        &self,
        name: &str,
        id: [u8; KEY_ID_BYTES],
    ) -> Result<&Signature, NoteError> {
        let mut own = self.signatures.iter().filter(|line| line.is_of(name, id));
        let first = own.next().ok_or(NoteError::UnknownKey)?;
        match own.next() {
            None => Ok(first),
            Some(_second) => Err(NoteError::Signature),
        }
    }
}

impl FromStr for Note {
    type Err = NoteError;

    fn from_str(note: &str) -> Result<Self, NoteError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLong);
        }
        let split = note.rfind("\n\n").ok_or(NoteError::Form)?;
        let (text, rest) = note.split_at(split + 1);
        if !is_text(text) {
            return Err(NoteError::Form);
        }
        let lines = &rest[1..];
        if !lines.ends_with('\n') {
            return Err(NoteError::Form);
        }
        let signatures = Signature::parse_lines(lines)?;
        Ok(Self {
            text: text.to_owned(),
            signatures,
        })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for signature in &self.signatures {
            writeln!(f, "{signature}")?;
        }
        Ok(())
    }
}

impl Signature {
    /// Reads signature lines, each with its line feed: what a witness answers.
    ///
    /// # Errors
    /// [`NoteError::SignatureLine`] when one is malformed, or there are none or too many,
    /// [`NoteError::TooLong`] when they are longer than a note may be.
    pub fn parse_lines(text: &str) -> Result<Vec<Self>, NoteError> {
        if text.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLong);
        }
        let lines = text.strip_suffix('\n').ok_or(NoteError::SignatureLine)?;
        let mut signatures = Vec::new();
        for line in lines.split('\n') {
            if signatures.len() == SIGNATURES_MAX {
                return Err(NoteError::SignatureLine);
            }
            signatures.push(line.parse()?);
        }
        Ok(signatures)
    }

    /// Tells whether this is the line of a key.
    pub(crate) fn is_of(&self, name: &str, id: [u8; KEY_ID_BYTES]) -> bool {
        self.name == name && self.key_id == id
    }

    /// Tells whether two lines are of the same key.
    fn is_beside(&self, other: &Self) -> bool {
        self.is_of(&other.name, other.key_id)
    }

    fn parse(line: &str) -> Option<Self> {
        let (name, encoded) = line.strip_prefix(SIGNATURE_MARK)?.split_once(' ')?;
        if !is_name(name) {
            return None;
        }
        let decoded = base64::decode(encoded)?;
        let (key_id, bytes) = decoded.split_first_chunk()?;
        if bytes.is_empty() {
            return None;
        }
        Some(Self {
            name: name.to_owned(),
            key_id: *key_id,
            bytes: bytes.to_vec(),
        })
    }
}

impl FromStr for Signature {
    type Err = NoteError;

    fn from_str(line: &str) -> Result<Self, NoteError> {
        if line.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLong);
        }
        Self::parse(line).ok_or(NoteError::SignatureLine)
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.key_id.to_vec();
        bytes.extend_from_slice(&self.bytes);
        let encoded = BASE64.encode(&bytes);
        write!(f, "{SIGNATURE_MARK}{} {encoded}", self.name)
    }
}

impl Verifier {
    /// Names a key. Returns `None` for a name that a note cannot hold: it is not empty and has no
    /// white space, no ASCII control character and no `+`.
    #[must_use]
    pub fn new(name: &str, key: VerifyingKey) -> Option<Self> {
        is_name(name).then(|| Self {
            name: name.to_owned(),
            key,
        })
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &VerifyingKey {
        &self.key
    }

    /// Returns the key id that signature lines carry.
    #[must_use]
    pub fn key_id(&self) -> [u8; KEY_ID_BYTES] {
        key_id(&self.name, TYPE_ED25519, &self.key)
    }
}

impl FromStr for Verifier {
    type Err = VerifierError;

    fn from_str(text: &str) -> Result<Self, VerifierError> {
        let (name, key) = parse_vkey(text, TYPE_ED25519)?;
        Ok(Self {
            name: name.to_owned(),
            key,
        })
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_vkey(f, &self.name, TYPE_ED25519, &self.key)
    }
}

/// Reads `NAME+KEYID+BASE64` of an Ed25519 key of a kind.
pub(crate) fn parse_vkey(text: &str, kind: u8) -> Result<(&str, VerifyingKey), VerifierError> {
    if text.len() > VKEY_BYTES_MAX {
        return Err(VerifierError::Form);
    }
    let mut parts = text.splitn(3, '+');
    let mut part = || parts.next().ok_or(VerifierError::Form);
    let (name, id, key) = (part()?, part()?, part()?);
    if !is_name(name) {
        return Err(VerifierError::Form);
    }
    let mut stated_id = [0; KEY_ID_BYTES];
    if HEXLOWER.decode_len(id.len()) != Ok(KEY_ID_BYTES) {
        return Err(VerifierError::Form);
    }
    HEXLOWER
        .decode_mut(id.as_bytes(), &mut stated_id)
        .map_err(|_not_hex| VerifierError::Form)?;
    let decoded = base64::decode(key).ok_or(VerifierError::Form)?;
    let key = match decoded.split_first() {
        Some((stated, key)) if *stated == kind => key,
        Some(_) | None => return Err(VerifierError::Key),
    };
    let key = key.try_into().map_err(|_length| VerifierError::Key)?;
    let key = VerifyingKey::from_bytes(key).map_err(|_invalid| VerifierError::Key)?;
    if key_id(name, kind, &key) != stated_id {
        return Err(VerifierError::KeyId);
    }
    Ok((name, key))
}

pub(crate) fn write_vkey(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    kind: u8,
    key: &VerifyingKey,
) -> fmt::Result {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&key.to_bytes());
    let id = HEXLOWER.encode(&key_id(name, kind, key));
    write!(f, "{name}+{id}+{}", BASE64.encode(&bytes))
}

/// First bytes of SHA-256(name || LF || type || public key).
pub(crate) fn key_id(name: &str, kind: u8, key: &VerifyingKey) -> [u8; KEY_ID_BYTES] {
    let hash = Sha256::new()
        .chain_update(name)
        .chain_update([b'\n', kind])
        .chain_update(key.to_bytes())
        .finalize();
    let mut id = [0; KEY_ID_BYTES];
    id.copy_from_slice(&hash[..KEY_ID_BYTES]);
    id
}

pub(crate) fn is_text(text: &str) -> bool {
    text.ends_with('\n') && !text.bytes().any(|byte| byte < 0x20 && byte != b'\n')
}

/// Names are what the specification allows, however odd: a line of an unknown key must not spoil a note.
pub(crate) fn is_name(name: &str) -> bool {
    let allowed = |c: char| !c.is_whitespace() && c > ' ' && c != '+';
    !name.is_empty() && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of the specification.
    const VKEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    const SIGNATURE: &str = "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=";

    fn example() -> String {
        format!("This is an example message.\n\n\u{2014} example.com/foo {SIGNATURE}\n")
    }

    #[test]
    fn the_example_of_the_specification_verifies() {
        let verifier: Verifier = VKEY.parse().expect("a verifier key");
        assert_eq!(verifier.to_string(), VKEY);
        let note: Note = example().parse().expect("a note");
        assert_eq!(note.text(), "This is an example message.\n");
        assert_eq!(note.to_string(), example());
        assert_eq!(note.verify(&verifier), Ok(()));
    }

    #[test]
    fn lines_of_unknown_keys_are_passed_over_and_a_bad_known_one_is_not() {
        let verifier: Verifier = VKEY.parse().expect("a verifier key");
        let verify = |text: &str| text.parse::<Note>().and_then(|note| note.verify(&verifier));
        let stranger = "\u{2014} stranger AAAAAAE=\n";
        assert_eq!(verify(&(example() + stranger)), Ok(()));
        let only_stranger = format!("text\n\n{stranger}");
        assert_eq!(verify(&only_stranger), Err(NoteError::UnknownKey));
        let other_text = example().replace("example message", "Example message");
        assert_eq!(verify(&other_text), Err(NoteError::Signature));
        let line = format!("\u{2014} example.com/foo {SIGNATURE}\n");
        assert_eq!(verify(&(example() + &line)), Err(NoteError::Signature));
        let cut = format!(
            "text\n\n\u{2014} example.com/foo {}\n",
            BASE64.encode(b"\x53\x0d\x90\x3a1")
        );
        assert_eq!(verify(&cut), Err(NoteError::Signature));
    }

    #[test]
    fn malformed_notes_are_refused() {
        let check = |text: &str, expected: NoteError| {
            assert_eq!(text.parse::<Note>(), Err(expected), "{text:?}");
        };
        let line = format!("\u{2014} example.com/foo {SIGNATURE}\n");
        check("", NoteError::Form);
        check("text\n", NoteError::Form);
        check(&line, NoteError::Form);
        check(
            &format!("\n\n{line}").replace("\n\n", "\n"),
            NoteError::Form,
        );
        check(&format!("te\txt\n\n{line}"), NoteError::Form);
        check(&format!("te\r\n\n{line}"), NoteError::Form);
        check(&format!("text\n\n{}", line.trim_end()), NoteError::Form);
        check("text\n\n", NoteError::Form);
        check("text\n\n\n", NoteError::Form);
        check("text\n\nline\n", NoteError::SignatureLine);
        check(
            &format!("text\n\n-{}", &line[3..]),
            NoteError::SignatureLine,
        );
        check(
            &line.replacen('\u{2014}', "text\n\n\u{2014} ", 1),
            NoteError::SignatureLine,
        );
        check(
            &format!("text\n\n{}", line.replace("foo", "f+o")),
            NoteError::SignatureLine,
        );
        check(
            &format!("text\n\n{}", line.replace("foo", "f\u{a0}o")),
            NoteError::SignatureLine,
        );
        check(
            &format!("text\n\n{}", line.replace("aQM=", "aQM")),
            NoteError::SignatureLine,
        );
        check(
            &format!("text\n\n{}", line.replace("aQM=", "aQN=")),
            NoteError::SignatureLine,
        );
        check("text\n\n\u{2014} name AAAAAA==\n", NoteError::SignatureLine);
        check(
            "text\n\n\u{2014} name AAAAAA==AAAA\n",
            NoteError::SignatureLine,
        );
        check(
            &format!("text\n\n{}", line.repeat(SIGNATURES_MAX + 1)),
            NoteError::SignatureLine,
        );
        check(&"x".repeat(NOTE_BYTES_MAX + 1), NoteError::TooLong);
    }

    #[test]
    fn malformed_verifier_keys_are_refused() {
        let check = |text: &str, expected: VerifierError| {
            assert_eq!(text.parse::<Verifier>(), Err(expected), "{text:?}");
        };
        check("", VerifierError::Form);
        check("name+530d903a", VerifierError::Form);
        check(&VKEY.replace("530d903a", "530D903A"), VerifierError::Form);
        check(&VKEY.replace("530d903a", "530d903aff"), VerifierError::Form);
        check(&VKEY.replace("3U2k", "3U2"), VerifierError::Form);
        check(&VKEY.replace("+Ae", "+Be"), VerifierError::Key);
        check(&VKEY.replace("530d903a", "530d903b"), VerifierError::KeyId);
        check(&VKEY.replace("/foo", "/bar"), VerifierError::KeyId);
    }

    #[test]
    fn a_signature_line_is_added_or_replaced() {
        let keys = [1, 2].map(|seed| SigningKey::from_bytes(&[seed; 32]));
        let sign = |name, key| Note::sign("text\n", name, key).expect("a valid note");
        let mut note = sign("one", &keys[0]);
        let second = sign("two", &keys[1]).signatures()[0].clone();
        assert_eq!(note.add(second.clone()), Ok(()));
        assert_eq!(note.signatures().len(), 2);
        for (name, key) in [("one", &keys[0]), ("two", &keys[1])] {
            let verifier = Verifier::new(name, key.verifying_key()).expect("a valid name");
            assert_eq!(note.verify(&verifier), Ok(()));
        }
        let newer = Signature {
            bytes: vec![1, 2, 3],
            ..second.clone()
        };
        assert_eq!(note.add(newer.clone()), Ok(()));
        assert_eq!(note.signatures()[1..], [newer]);
        assert_eq!(note.to_string().parse(), Ok(note.clone()));
        let only = note.with_only(|line| line.name == "one");
        assert_eq!(only, Some(sign("one", &keys[0])));
        assert_eq!(note.with_only(|line| line.name == "three"), None);
        for (name, bytes) in [
            ("a b", vec![1]),
            ("", vec![1]),
            ("a+b", vec![1]),
            ("a", vec![]),
        ] {
            let bad = Signature {
                name: name.to_owned(),
                bytes,
                key_id: [0; 4],
            };
            assert_eq!(note.add(bad), Err(NoteError::SignatureLine));
        }
        for number in 2..SIGNATURES_MAX {
            let name = format!("n{number}");
            let line = Signature {
                name,
                ..second.clone()
            };
            assert_eq!(note.add(line), Ok(()));
        }
        let full = note.clone();
        let more = Signature {
            name: "more".to_owned(),
            ..second.clone()
        };
        assert_eq!(note.add(more), Err(NoteError::SignatureLine));
        let long = Signature {
            bytes: vec![0; NOTE_BYTES_MAX],
            ..second
        };
        assert_eq!(note.add(long), Err(NoteError::TooLong));
        assert_eq!(note, full);
        assert_eq!(note.to_string().parse(), Ok(note));
    }

    /// The key of the test log of Tessera.
    #[test]
    fn keys_of_other_logs_are_read() {
        let text = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx";
        let key: Verifier = text.parse().expect("a verifier key");
        assert_eq!(key.name(), "example.com/log/testdata");
        assert_eq!(key.key_id(), [0x33, 0xd7, 0xb4, 0x96]);
        assert_eq!(key.to_string(), text);
        let long = format!("{}{text}", "x".repeat(VKEY_BYTES_MAX));
        assert_eq!(long.parse::<Verifier>(), Err(VerifierError::Form));
    }

    #[test]
    fn signature_lines_alone_are_read_strictly() {
        let note: Note = example().parse().expect("a note");
        let line = format!("{}\n", note.signatures()[0]);
        assert_eq!(
            Signature::parse_lines(&line.repeat(2)),
            Ok(vec![note.signatures()[0].clone(); 2])
        );
        assert_eq!(line.trim_end().parse(), Ok(note.signatures()[0].clone()));
        assert_eq!(line.parse::<Signature>(), Err(NoteError::SignatureLine));
        for bad in [
            String::new(),
            "\n".to_owned(),
            line.trim_end().to_owned(),
            format!("{line}\n"),
        ] {
            let parsed = Signature::parse_lines(&bad);
            assert_eq!(parsed, Err(NoteError::SignatureLine), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_signed_round_trips_and_verifies(
            text in "[^\\p{Cc}]{0,40}(\n[^\\p{Cc}]{0,40}){0,3}",
            name in "[a-z./]{1,20}",
            seed: [u8; 32],
        ) {
            let key = SigningKey::from_bytes(&seed);
            let note = Note::sign(&format!("{text}\n"), &name, &key).expect("a valid text");
            let written = note.to_string();
            let verifier = Verifier::new(&name, key.verifying_key()).expect("a valid name");
            prop_assert_eq!(written.parse(), Ok(note.clone()));
            prop_assert_eq!(note.verify(&verifier), Ok(()));
            prop_assert_eq!(verifier.to_string().parse(), Ok(verifier));
        }

        #[test]
        fn parsing_never_panics_and_what_is_accepted_is_written_back(
            text in "(.|\n|\u{2014} [a-z]+ [A-Za-z0-9+/=]{4,12}\n|\n\n){0,12}",
        ) {
            if let Ok(note) = text.parse::<Note>() {
                prop_assert_eq!(note.to_string(), text);
            }
        }
    }
}
