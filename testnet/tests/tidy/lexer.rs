//! Just enough of Rust's lexical grammar to tell code from text.
//!
//! [`blank`] overwrites comments and the contents of literals with spaces, so that a brace, a
//! `fn` or an `unsafe` that is left is code. It keeps every line break: line numbers stay true.
//! Source: the Rust reference, "Comments" and "Tokens" (literals, lifetimes, raw identifiers).

/// The source with comments and literals overwritten by spaces.
pub(crate) fn blank(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let Some(end) = text_end(&chars, at) else {
            out.push(c);
            at += 1;
            continue;
        };
        let end = end.min(chars.len());
        out.extend(chars.iter().take(end).skip(at).map(|&c| blanked(c)));
        at = end;
    }
    out
}

/// The source without its test code: each item under `#[cfg(test)]` overwritten by spaces.
/// Takes and gives blanked text.
pub(crate) fn without_tests(blanked_source: &str) -> String {
    const MARKS: [&str; 2] = ["#[cfg(test)]", "#[cfg(all(test"];
    let mut rest = blanked_source;
    let mut out = String::with_capacity(rest.len());
    while let Some(start) = MARKS.iter().filter_map(|mark| rest.find(mark)).min() {
        let (before, item) = rest.split_at(start);
        out.push_str(before);
        let (gone, after) = item.split_at(item_end(item));
        out.extend(gone.chars().map(blanked));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The modules in files of their own that exist only for tests. Takes blanked text.
pub(crate) fn test_modules(blanked_source: &str) -> Vec<String> {
    let items = blanked_source.split("#[cfg(test)]").skip(1);
    items
        .filter_map(|rest| module_file(rest.split_at(item_end(rest)).0))
        .collect()
}

/// The name in `mod NAME;`, attributes and visibility before it left out.
fn module_file(item: &str) -> Option<String> {
    let (before, rest) = item.split_once("mod ")?;
    let name = rest.trim().strip_suffix(';')?;
    (!before.contains('{') && name.chars().all(is_word)).then(|| name.to_owned())
}

/// Where, in bytes, the item at the start of the text ends, its attributes included.
fn item_end(item: &str) -> usize {
    let mut depth = 0_u32;
    for (at, c) in item.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            // The end of what holds the item: a field or a variant has no end of its own.
            ')' | ']' | '}' if depth == 0 => return at,
            ')' | ']' | '}' => {
                depth -= 1;
                // The brace that ends a body ends the item, unless it is that of `use a::{b};`.
                let tail = item.split_at(at + 1).1;
                if depth == 0 && c == '}' && !tail.trim_start().starts_with(';') {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}

/// Whether a character can stand inside an identifier.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn blanked(c: char) -> char {
    if c == '\n' { '\n' } else { ' ' }
}

/// Where the comment or literal that starts at `at` ends; `None` when none starts there.
fn text_end(chars: &[char], at: usize) -> Option<usize> {
    match (chars.get(at)?, chars.get(at + 1)) {
        ('/', Some('/')) => Some(find(chars, at, |c| c == '\n')),
        ('/', Some('*')) => Some(block_comment_end(chars, at)),
        ('"', _) => Some(string_end(chars, at + 1)),
        ('\'', Some(_)) => char_end(chars, at),
        ('r' | 'b' | 'c', Some(_)) if at == 0 || !is_word(*chars.get(at - 1)?) => {
            prefixed_end(chars, at)
        }
        _ => None,
    }
}

/// `/* … */`, which nests.
fn block_comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0_u32;
    let mut at = start;
    while at < chars.len() {
        match (chars.get(at), chars.get(at + 1)) {
            (Some('/'), Some('*')) => {
                depth += 1;
                at += 2;
            }
            (Some('*'), Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    chars.len()
}

/// The end of a string whose opening quote is just before `at`.
fn string_end(chars: &[char], mut at: usize) -> usize {
    while let Some(&c) = chars.get(at) {
        match c {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// A character literal; `None` for a lifetime or a loop label.
fn char_end(chars: &[char], at: usize) -> Option<usize> {
    if chars.get(at + 1) == Some(&'\\') {
        return Some(find(chars, at + 3, |c| c == '\'') + 1);
    }
    (chars.get(at + 2) == Some(&'\'')).then_some(at + 3)
}

/// `b'x'`, `b"…"`, `c"…"`, `r"…"`, `r#"…"#`, `br"…"`, `cr"…"`; `None` for an identifier, `r#raw` too.
fn prefixed_end(chars: &[char], at: usize) -> Option<usize> {
    let raw = match (chars.get(at)?, chars.get(at + 1)?) {
        ('b', '\'') => return char_end(chars, at + 1),
        ('b' | 'c', '"') => return Some(string_end(chars, at + 2)),
        ('b' | 'c', 'r') => at + 2,
        ('r', _) => at + 1,
        _ => return None,
    };
    let hashes = find(chars, raw, |c| c != '#') - raw;
    if chars.get(raw + hashes) != Some(&'"') {
        return None;
    }
    let mut end = raw + hashes + 1;
    while end < chars.len() {
        let quote = find(chars, end, |c| c == '"');
        end = quote + 1;
        if find(chars, end, |c| c != '#') - end >= hashes {
            return Some(end + hashes);
        }
    }
    Some(chars.len())
}

/// The first place at or after `from` where it holds, or the end; never before `from`.
fn find(chars: &[char], from: usize, holds: impl Fn(char) -> bool) -> usize {
    (from..chars.len())
        .find(|&at| chars.get(at).is_some_and(|&c| holds(c)))
        .unwrap_or(chars.len().max(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expected: &str) {
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let blanked = blank(source);
        assert_eq!(squeezed(&blanked), squeezed(expected));
        assert_eq!(blanked.chars().count(), source.chars().count());
        assert_eq!(blanked.lines().count(), source.lines().count());
    }

    #[test]
    fn comments_go_and_code_stays() {
        check("a // fn x() {\nb", "a b");
        check("a /* { /* nested { */ } */ b", "a b");
        check("a /* never closed {", "a");
        check("/// doc {\n//! doc }\nfn a() {}", "fn a() {}");
        check("x / y /z", "x / y /z");
    }

    #[test]
    fn strings_of_every_kind_go() {
        check(r#"a("{ \" }")b"#, "a( )b");
        check(r#"a("\\")b{"#, "a( )b{");
        check("a(r\"\\\")b", "a( )b");
        check("a(r#\"quote \" and }\"#)b", "a( )b");
        check("a(r##\"one \"# only\"##)b", "a( )b");
        check("a(b\"{\", br#\"{\"#, c\"{\", cr\"{\")b", "a( , , , )b");
        check("a(\"over\n{two lines\")b", "a( )b");
        check("a(\"never closed {", "a(");
    }

    #[test]
    fn characters_go_and_lifetimes_stay() {
        check(
            "a('{', '\\'', '\\\\', '\\u{1F600}', '\"')b",
            "a( , , , , )b",
        );
        check("b'{' b'\\'' x", "x");
        check(
            "fn f<'a>(x: &'a str) -> &'a str {",
            "fn f<'a>(x: &'a str) -> &'a str {",
        );
        check(
            "'outer: loop { break 'outer; }",
            "'outer: loop { break 'outer; }",
        );
        check(
            "impl X<'_> for &'static str {}",
            "impl X<'_> for &'static str {}",
        );
    }

    #[test]
    fn identifiers_that_look_like_prefixes_stay() {
        check("r#fn + bar + br + c + r", "r#fn + bar + br + c + r");
        check("for b in c {}", "for b in c {}");
        check("attr\"text\"", "attr");
    }

    #[test]
    fn a_comment_mark_in_a_string_hides_nothing() {
        check("a(\"http://x\") + unsafe_b", "a( ) + unsafe_b");
        check("a('/', '*') b", "a( , ) b");
        check("// it's\nb // \"\nc", "b c");
    }

    #[test]
    fn test_items_go_whole() {
        let source =
            "fn a() {}\n#[cfg(test)]\n#[path = x]\nmod tests {\n fn b() { { } }\n}\nfn c() {}";
        let left = without_tests(&blank(source));
        assert!(
            left.contains("fn a") && left.contains("fn c") && !left.contains("fn b"),
            "{left}"
        );
        assert_eq!(left.lines().count(), source.lines().count());
        let import = "#[cfg(test)]\nuse a::{b, c};\nfn d() {}";
        assert_eq!(without_tests(import).trim(), "fn d() {}");
        let file = "#[cfg(test)]\nmod tests;\nfn d() {}";
        assert_eq!(without_tests(file).trim(), "fn d() {}");
        let function = "#[cfg(test)]\nfn t(x: [u8; 3]) -> u8 { x[0] }\nfn d() {}";
        assert_eq!(without_tests(function).trim(), "fn d() {}");
        let field = "struct S { a: u8, #[cfg(test)] b: u8 }\nfn d() {}";
        assert_eq!(without_tests(field).matches('}').count(), 2);
    }

    #[test]
    fn modules_that_are_only_tests_are_named() {
        let source = "#[cfg(test)]\nmod a;\n#[cfg(test)]\nmod b { }\n#[cfg(test)]\n#[path = x]\npub(crate) mod c;\nmod d;";
        assert_eq!(test_modules(source), ["a", "c"]);
    }
}
