//! The only place that prints: tables and JSON to stdout, messages to stderr.

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

/// Lays rows out under their headings, columns two spaces apart.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|text| text.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut lines = Vec::with_capacity(rows.len() + 1);
    let headings: Vec<String> = headings.iter().map(|text| (*text).to_owned()).collect();
    for row in std::iter::once(&headings).chain(rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(&format!("{cell:width$}  ", width = *width));
        }
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}

/// Replaces what could move the cursor or hide text: what agents and peers say is not trusted to
/// draw on the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
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
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(
            printable("a\u{1b}[2Jb\r\n\tc"),
            "a\u{fffd}[2Jb\u{fffd}\n\tc"
        );
    }
}
