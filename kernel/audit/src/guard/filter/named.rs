//! Values with a name in front that says what they are: `password=x`, `token: x`, `"secret": "x"`.

use std::ops::Range;

/// Names of secrets, whatever stands before them.
const NAMES: [&str; 10] = [
    "api_key",
    "apikey",
    "api-key",
    "passphrase",
    "password",
    "passwd",
    "pwd",
    "secret",
    "signature",
    "token",
];
/// The setting that entries of the node itself name, and say what was done with it.
const SETTING: &[u8] = b"network.shared_secret";
/// How many blanks may stand on either side of the sign between a name and its value.
const BLANKS_MAX: usize = 4;

/// Returns where the value of a name stands, when the name is one of a secret.
pub(super) fn value_of(text: &[u8], name: &Range<usize>) -> Option<Range<usize>> {
    if !names_a_secret(&text[name.clone()]) {
        return None;
    }
    let quoted = is_quote(text, name.end);
    let sign = skip_blanks(text, name.end + usize::from(quoted));
    let start = skip_blanks(text, sign + 1);
    let blank = start > sign + 1;
    match text.get(sign)? {
        b'=' => {}
        // What follows without a blank may be anything, and with one the rest of a sentence.
        b':' if !(blank && text[..name.end].ends_with(SETTING)) => {}
        _other => return None,
    }
    let value = if is_quote(text, start) {
        let quote = text[start];
        let inner = &text[start + 1..];
        let len = memchr::memchr(quote, inner).unwrap_or(inner.len());
        start + 1..start + 1 + len
    } else {
        start..end_of_value(text, start)
    };
    (!value.is_empty()).then_some(value)
}

/// A value ends at white space, or at what separates it from the next.
pub(super) fn end_of_value(text: &[u8], start: usize) -> usize {
    let ends = |byte: &u8| byte.is_ascii_whitespace() || b"\"'`&;,<>()[]{}".contains(byte);
    let len = text[start..].iter().position(ends);
    len.map_or(text.len(), |len| start + len)
}

fn names_a_secret(word: &[u8]) -> bool {
    NAMES.iter().any(|name| {
        let at = word.len().checked_sub(name.len());
        at.is_some_and(|at| word[at..].eq_ignore_ascii_case(name.as_bytes()))
    })
}

fn is_quote(text: &[u8], at: usize) -> bool {
    matches!(text.get(at), Some(b'"' | b'\''))
}

fn skip_blanks(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    let blanks = rest.iter().take(BLANKS_MAX);
    at + blanks.take_while(|byte| **byte == b' ').count()
}
