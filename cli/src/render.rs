//! The only place that prints: tables and JSON to stdout, messages to stderr.

pub(crate) mod progress;

use std::io::{self, Write};

use serde::Serialize;

/// Writes lines to stdout.
///
/// # Errors
/// When stdout is closed.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")
}

/// Writes a piece of text to stdout at once, so that it shows while more is awaited.
///
/// # Errors
/// When stdout is closed.
pub(crate) fn piece(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes a value as indented JSON to stdout.
///
/// # Errors
/// When stdout is closed.
pub(crate) fn json(value: &impl Serialize) -> Result<(), serde_json::Error> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out).map_err(serde_json::Error::io)
}

/// Writes a value as one line of JSON to stdout.
///
/// # Errors
/// When stdout is closed.
pub(crate) fn json_line(value: &impl Serialize) -> Result<(), serde_json::Error> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    writeln!(out).map_err(serde_json::Error::io)
}

/// Writes a message to stderr. Nobody can be told that stderr is closed.
pub(crate) fn message(text: &str) {
    let mut err = io::stderr().lock();
    match writeln!(err, "{text}") {
        Ok(()) | Err(_) => {}
    }
}

/// Asks for one line on stderr; the answer is read by the caller.
pub(crate) fn prompt(text: &str) {
    let mut err = io::stderr().lock();
    match write!(err, "{text}").and_then(|()| err.flush()) {
        Ok(()) | Err(_) => {}
    }
}

/// Lays rows out under their headings, columns two spaces apart. What is in a cell stays in it.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |row: &Vec<String>| row.iter().map(|text| cell(text)).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let mut widths: Vec<usize> = headings.iter().map(|text| text.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut lines = Vec::with_capacity(rows.len() + 1);
    let headings: Vec<String> = headings.iter().map(|text| (*text).to_owned()).collect();
    for row in std::iter::once(&headings).chain(&rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(&format!("{cell:width$}  ", width = *width));
        }
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}

/// Replaces what could move the cursor, hide text or turn its order round: what agents and peers say
/// is not trusted to draw on the terminal. Lines and tabs of a text stay.
pub(crate) fn printable(text: &str) -> String {
    replaced(text, |c| draws(c) && c != '\n' && c != '\t')
}

/// The same for what must stay in one line, or in one column of it.
pub(crate) fn cell(text: &str) -> String {
    replaced(text, draws)
}

fn replaced(text: &str, is_bad: impl Fn(char) -> bool) -> String {
    let replace = |c| if is_bad(c) { '\u{fffd}' } else { c };
    text.chars().map(replace).collect()
}

/// Control characters, line and paragraph separators, and what has no width or sets the direction
/// of what follows (Unicode TR 36, § 2.1 and § 3.5).
fn draws(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{2064}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec!["a".to_owned(), "läng".to_owned(), "x".to_owned()],
            vec!["bbb".to_owned(), "c".to_owned(), String::new()],
        ];
        assert_eq!(
            table(&["N", "TEXT", "END"], &rows),
            "N    TEXT  END\na    läng  x\nbbb  c"
        );
    }

    #[test]
    fn no_cell_makes_a_row_of_its_own() {
        let rows = [vec![
            "a\nfake  running".to_owned(),
            "x\ty\u{202e}z".to_owned(),
        ]];
        let shown = table(&["NAME", "TEXT"], &rows);
        assert_eq!(
            shown,
            "NAME             TEXT\na\u{fffd}fake  running  x\u{fffd}y\u{fffd}z"
        );
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(
            printable("a\u{1b}[2Jb\r\n\tc"),
            "a\u{fffd}[2Jb\u{fffd}\n\tc"
        );
        for hidden in [
            '\u{61c}', '\u{200b}', '\u{200f}', '\u{2028}', '\u{202e}', '\u{2060}', '\u{2064}',
            '\u{2066}', '\u{2069}', '\u{feff}', '\u{9b}', '\u{7f}',
        ] {
            assert_eq!(printable(&hidden.to_string()), "\u{fffd}", "{hidden:?}");
        }
        assert_eq!(printable("é 語 🦊 ﬁ"), "é 語 🦊 ﬁ");
    }
}
