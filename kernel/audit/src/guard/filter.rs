//! Finds in a text what looks like a secret: known ones, tokens by their form, and what is too random
//! to be anything else. A few passes over the text, whatever it holds: one over it as it stands, one over what
//! it says with its encodings undone ([`Plain`]), one for known secrets that are written in groups.
//!
//! What entries are made of stays: node ids, UUIDs, hashes of 40, 64 or 128 hexadecimal digits, names of
//! logs and entries, times, versions, addresses, names of models.

mod named;

use std::borrow::Cow;
use std::ops::Range;

use super::known::Known;
use super::plain::{Plain, fold};
use crate::value::is_node_id;
use named::{end_of_value, value_of};

/// The shortest text that can hold a secret.
const TEXT_BYTES_MIN: usize = 5;
/// The shortest piece that is looked at for being random: 20 random letters and digits have 119 bits.
const RANDOM_BYTES_MIN: usize = 20;
/// The shortest piece with slashes in it: base64 has some, and paths have more.
const SLASHED_BYTES_MIN: usize = 32;
/// The fewest characters behind the beginning of a token.
const TOKEN_REST_MIN: usize = 12;
/// The shortest token, with its beginning.
const TOKEN_BYTES_MIN: usize = 3 + TOKEN_REST_MIN;
/// The shortest text behind `Bearer` that is a token.
const BEARER_BYTES_MIN: usize = 8;
/// How many hexadecimal digits the hashes have that are public.
const HASH_DIGITS: [usize; 3] = [40, 64, 128];

/// How tokens begin that have a form of their own.
const TOKENS: [&str; 36] = [
    "AIza",
    "AKIA",
    "ASIA",
    "EAAC",
    "SG.",
    "dapi",
    "dckr_pat_",
    "dop_v1_",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "gsk_",
    "hf_",
    "lin_api_",
    "npm_",
    "nvapi-",
    "ofk1_",
    "ofn1_",
    "ofp1",
    "ofs1_",
    "pplx-",
    "pypi-",
    "r8_",
    "rk_live_",
    "shpat_",
    "sk-",
    "sk_live_",
    "sk_test_",
    "whsec_",
    "xai-",
    "xapp-",
    "xox",
];
const PEM_BEGIN: &[u8] = b"-----BEGIN";
const PEM_END: &[u8] = b"-----END";
const JWT_BEGIN: &[u8] = b"eyJ";
const SCHEME: &[u8] = b"://";

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A secret of this node, or part of one.
    Known,
    /// A token, by how it begins.
    Token,
    /// A JSON Web Token.
    Jwt,
    /// A key in the text form of RFC 7468.
    Pem,
    /// What stands behind `Bearer` or `Basic`.
    Bearer,
    /// The value of a name such as `password`.
    Value,
    /// A name and a password in an address.
    UserInfo,
    /// A long random text.
    Random,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Known => "secret",
            Self::Token => "token",
            Self::Jwt => "jwt",
            Self::Pem => "pem",
            Self::Bearer => "bearer",
            Self::Value => "value",
            Self::UserInfo => "userinfo",
            Self::Random => "random",
        }
    }
}

/// Replaces each secret by `[redacted:KIND]`.
pub(crate) fn clean<'t>(known: &Known, text: &'t str) -> Cow<'t, str> {
    if text.len() < TEXT_BYTES_MIN {
        return Cow::Borrowed(text);
    }
    let mut found = Vec::new();
    look_at(known, text.as_bytes(), &mut found);
    if let Some(plain) = Plain::decode(text.as_bytes()) {
        let mut encoded = Vec::new();
        look_at(known, &plain.bytes, &mut encoded);
        let origins = encoded.into_iter();
        found.extend(origins.map(|(range, kind)| (plain.origin(&range), kind)));
    }
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    found.sort_by_key(|(range, _)| (range.start, usize::MAX - range.end));
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for (range, kind) in found {
        // A secret can be part of a character: what is found in bytes is cut at characters.
        let start = text.floor_char_boundary(range.start);
        let end = text.ceil_char_boundary(range.end);
        if start >= done {
            out.push_str(&text[done..start]);
            out.push_str("[redacted:");
            out.push_str(kind.as_str());
            out.push(']');
        }
        done = done.max(end);
    }
    out.push_str(&text[done..]);
    Cow::Owned(out)
}

fn look_at(known: &Known, text: &[u8], found: &mut Vec<(Range<usize>, Kind)>) {
    known.find(text, found);
    if known.may_be_folded(text) {
        let (folded, places) = fold(text);
        known.find_folded(&folded, &places, found);
    }
    scan(text, found);
}

/// What a byte can be part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Class {
    Gap,
    Lower,
    Upper,
    Digit,
    Join,
}

/// The class of every byte. Bytes of characters beyond ASCII are gaps: no token has them.
const CLASSES: [Class; 256] = {
    let mut classes = [Class::Gap; 256];
    let mut byte: u8 = 0;
    while byte < 128 {
        classes[byte as usize] = match byte {
            b'a'..=b'z' => Class::Lower,
            b'A'..=b'Z' => Class::Upper,
            b'0'..=b'9' => Class::Digit,
            b'-' | b'_' | b'+' => Class::Join,
            _gap => Class::Gap,
        };
        byte += 1;
    }
    classes
};

fn class(byte: u8) -> Class {
    CLASSES[usize::from(byte)]
}

/// How the characters of a piece follow each other.
#[derive(Debug, Clone, Copy, Default)]
struct Shape {
    /// How often lower case, upper case and digits change from one to the next.
    turns: usize,
    /// How often one of the two is a digit.
    digit_turns: usize,
    joins: usize,
    len: usize,
}

/// What a step from one class to the next counts as, in three counts of twenty bits each: a text is far shorter.
const STEPS: [[u64; 5]; 5] = {
    const ALL: [Class; 5] = [
        Class::Gap,
        Class::Lower,
        Class::Upper,
        Class::Digit,
        Class::Join,
    ];
    let mut steps = [[0; 5]; 5];
    let mut from = 0;
    while from < ALL.len() {
        let mut to = 0;
        while to < ALL.len() {
            let joins = matches!(ALL[to], Class::Join);
            let turns = from != to && !joins && !matches!(ALL[from], Class::Join);
            let digit = matches!(ALL[to], Class::Digit) || matches!(ALL[from], Class::Digit);
            steps[from][to] = turns as u64
                | ((turns && digit) as u64) << COUNT_BITS
                | (joins as u64) << (2 * COUNT_BITS);
            to += 1;
        }
        from += 1;
    }
    steps
};
const COUNT_BITS: u32 = 20;

impl Shape {
    fn of(counts: u64, len: usize) -> Self {
        let count = |number: u32| {
            let count = counts >> (number * COUNT_BITS) & ((1 << COUNT_BITS) - 1);
            usize::try_from(count).unwrap_or(usize::MAX)
        };
        Self {
            turns: count(0),
            digit_turns: count(1),
            joins: count(2),
            len,
        }
    }

    fn add(&mut self, other: Self) {
        self.turns += other.turns;
        self.digit_turns += other.digit_turns;
        self.joins += other.joins;
        self.len += other.len;
    }

    /// Names have joints where they change, and few digits within their parts.
    fn is_random(self) -> bool {
        let few_joins = self.joins * 10 <= self.len;
        few_joins
            && (self.digit_turns >= 4 || self.digit_turns >= 2 && self.turns * 100 >= self.len * 35)
    }
}

/// Pieces with slashes between them, which are base64 when they are random together.
#[derive(Debug, Default)]
struct Slashed {
    start: usize,
    end: usize,
    slashes: usize,
    is_public: bool,
    shape: Shape,
}

impl Slashed {
    fn is_random(&self) -> bool {
        let Shape {
            turns, digit_turns, ..
        } = self.shape;
        let len = self.end - self.start;
        self.slashes > 0
            && !self.is_public
            && len >= SLASHED_BYTES_MIN
            && self.slashes * 10 <= len
            && digit_turns >= 4
            && turns * 100 >= self.shape.len * 40
    }
}

fn scan(text: &[u8], found: &mut Vec<(Range<usize>, Kind)>) {
    let mut at = 0;
    let mut slashed = Slashed::default();
    while let Some(byte) = text.get(at) {
        let first = class(*byte);
        if first == Class::Gap {
            if *byte == b':' && text[at..].starts_with(SCHEME) {
                found.extend(user_info(text, at + SCHEME.len()));
            }
            at += 1;
            continue;
        }
        let start = at;
        let mut counts = 0;
        let mut before = first;
        while let Some(byte) = text.get(at) {
            let class = class(*byte);
            if class == Class::Gap {
                break;
            }
            counts += STEPS[before as usize][class as usize];
            before = class;
            at += 1;
        }
        let shape = Shape::of(counts, at - start);
        let end = judge(text, start..at, shape, found);
        slashed.take(text, start..at, shape, found);
        at = at.max(end);
    }
    slashed.end(found);
}

impl Slashed {
    /// Takes the next piece, and judges those before it when it does not follow them.
    fn take(
        &mut self,
        text: &[u8],
        piece: Range<usize>,
        shape: Shape,
        found: &mut Vec<(Range<usize>, Kind)>,
    ) {
        let follows =
            piece.start > 0 && text[piece.start - 1] == b'/' && self.end + 1 == piece.start;
        if !follows {
            self.end(found);
            *self = Self {
                start: piece.start,
                ..Self::default()
            };
        }
        self.slashes += usize::from(follows);
        self.is_public |= is_public(&text[piece.clone()]);
        self.shape.add(shape);
        self.end = piece.end;
    }

    fn end(&self, found: &mut Vec<(Range<usize>, Kind)>) {
        if self.is_random() {
            found.push((self.start..self.end, Kind::Random));
        }
    }
}

/// Looks at one piece, and returns where to go on.
fn judge(
    text: &[u8],
    piece: Range<usize>,
    shape: Shape,
    found: &mut Vec<(Range<usize>, Kind)>,
) -> usize {
    let word = &text[piece.clone()];
    let next = text.get(piece.end).copied();
    if word.starts_with(PEM_BEGIN) {
        let end = pem_end(text, piece.start);
        found.push((piece.start..end, Kind::Pem));
        return end;
    }
    if let Some(value) = value_of(text, &piece) {
        let end = value.end;
        found.push((value, Kind::Value));
        return end;
    }
    if next == Some(b' ')
        && (word.eq_ignore_ascii_case(b"bearer") || word.eq_ignore_ascii_case(b"basic"))
    {
        let end = end_of_value(text, piece.end + 1);
        let value = &text[piece.end + 1..end];
        let has_digit = value.iter().any(u8::is_ascii_digit);
        if value.len() >= BEARER_BYTES_MIN && (has_digit || value.len() >= RANDOM_BYTES_MIN) {
            found.push((piece.end + 1..end, Kind::Bearer));
            return end;
        }
    }
    if word.starts_with(JWT_BEGIN) && next == Some(b'.') {
        let end = end_of_dotted(text, piece.end);
        found.push((piece.start..end, Kind::Jwt));
        return end;
    }
    let may_be_token = word.len() >= TOKEN_BYTES_MIN || next == Some(b'.');
    if may_be_token && let Some(start) = TOKENS.iter().find(|start| begins(word, start)) {
        let dotted = start.ends_with('.') || next == Some(b'.');
        let end = if dotted {
            end_of_dotted(text, piece.end)
        } else {
            piece.end
        };
        let rest = &text[piece.start..end][start.len().min(end - piece.start)..];
        let has_digit = rest.iter().any(u8::is_ascii_digit);
        if has_digit && rest.len() >= TOKEN_REST_MIN {
            found.push((piece.start..end, Kind::Token));
            return end;
        }
        if !has_digit {
            // Nothing random is without digits: no need to look at its parts once more.
            return end;
        }
    }
    if word.len() >= RANDOM_BYTES_MIN && shape.is_random() && !is_public(word) {
        let pad = text[piece.end..].iter().take_while(|byte| **byte == b'=');
        let end = piece.end + pad.take(2).count();
        found.push((piece.start..end, Kind::Random));
        return end;
    }
    piece.end
}

/// Tells whether a word begins a token; the dot of one that has it there is a gap.
fn begins(word: &[u8], start: &str) -> bool {
    match start.strip_suffix('.') {
        Some(start) => word == start.as_bytes(),
        None => word.starts_with(start.as_bytes()),
    }
}

/// Tells whether a word is one of the long forms that everybody may read.
fn is_public(word: &[u8]) -> bool {
    if word.len() < HASH_DIGITS[0] {
        return false;
    }
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if HASH_DIGITS.contains(&word.len()) && word.iter().all(is_hex) {
        return true;
    }
    std::str::from_utf8(word).is_ok_and(is_node_id)
}

fn end_of_dotted(text: &[u8], start: usize) -> usize {
    let goes_on = |byte: &u8| *byte == b'.' || class(*byte) != Class::Gap;
    let len = text[start..].iter().position(|byte| !goes_on(byte));
    len.map_or(text.len(), |len| start + len)
}

/// A key goes on up to the line that ends it, or to the end of the text.
fn pem_end(text: &[u8], start: usize) -> usize {
    let Some(last) = memchr::memmem::find(&text[start..], PEM_END) else {
        return text.len();
    };
    let line = start + last + PEM_END.len();
    let end = memchr::memmem::find(&text[line..], b"-----");
    end.map_or(text.len(), |end| line + end + b"-----".len())
}

/// Finds `name:password` in front of the `@` of an address.
fn user_info(text: &[u8], start: usize) -> Option<(Range<usize>, Kind)> {
    let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'?' | b'#' | b'@');
    let len = text[start..].iter().position(ends)?;
    let has_password = text[start..start + len].contains(&b':');
    (text[start + len] == b'@' && has_password).then_some((start..start + len, Kind::UserInfo))
}

#[cfg(test)]
mod tests;
