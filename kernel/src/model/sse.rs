//! Server-sent events, as WHATWG HTML §9.2 defines them: bytes in, the data of events out.
//!
//! Total: no input makes it fail but one that is too large. Names, ids and retry times of events
//! mean nothing to a chat API and are dropped.

/// A line or an event has more bytes than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLarge;

/// Reads a stream of events piece by piece.
#[derive(Debug)]
pub(super) struct Parser {
    max: usize,
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    after_cr: bool,
    at_start: bool,
}

impl Parser {
    /// Takes the most bytes a line, and the data of an event, may have.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            line: Vec::new(),
            data: Vec::new(),
            has_data: false,
            after_cr: false,
            at_start: true,
        }
    }

    /// Takes the next piece of the stream and returns the data of the events it completes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, TooLarge> {
        let mut events = Vec::new();
        for &byte in bytes {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => events.extend(self.end_line()?),
                _ if self.line.len() >= self.max => return Err(TooLarge),
                _ => self.line.push(byte),
            }
        }
        Ok(events)
    }

    /// The stream has ended. An event without its empty line is not an event by the standard, but
    /// some servers leave the last one so.
    pub(super) fn finish(&mut self) -> Result<Option<String>, TooLarge> {
        let pending = self.end_line()?;
        Ok(pending.or_else(|| self.take_event()))
    }

    fn end_line(&mut self) -> Result<Option<String>, TooLarge> {
        let mut line = std::mem::take(&mut self.line);
        if std::mem::replace(&mut self.at_start, false) && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        if line.is_empty() {
            return Ok(self.take_event());
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line.as_slice(), &[][..]),
        };
        if field == b"data" {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            if self.data.len() + value.len() >= self.max {
                return Err(TooLarge);
            }
            if self.has_data {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value);
            self.has_data = true;
        }
        Ok(None)
    }

    fn take_event(&mut self) -> Option<String> {
        let data = std::mem::take(&mut self.data);
        let complete = std::mem::replace(&mut self.has_data, false);
        complete.then(|| String::from_utf8_lossy(&data).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(pieces: &[&[u8]]) -> Vec<String> {
        let mut parser = Parser::new(1000);
        let mut events = Vec::new();
        for piece in pieces {
            events.extend(parser.push(piece).expect("small"));
        }
        events.extend(parser.finish().expect("small"));
        events
    }

    #[test]
    fn fields_are_read_as_the_standard_says() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(all(&[text.as_bytes()]), expected, "{text:?}");
        };
        check("data: a\n\ndata: b\n\n", &["a", "b"]);
        check("data:a\r\n\r\ndata:  b\r\r", &["a", " b"]);
        check("\u{feff}data: a\n\n", &["a"]);
        check(
            ": a comment\n\n: b\nevent: x\nid: 1\nretry: 5\ndata: a\n\n",
            &["a"],
        );
        check("data: a\ndata: b\ndata\n\n", &["a\nb\n"]);
        check("event: x\n\n", &[]);
        check("data\n\n", &[""]);
        check("data: cut", &["cut"]);
        check("data: cut\n", &["cut"]);
        check("database: no\n\n", &[]);
        check("", &[]);
    }

    #[test]
    fn splitting_the_stream_at_any_byte_changes_nothing() {
        let text = "\u{feff}: hi\r\ndata: {\"é\":\"\u{1f600}\"}\r\n\r\ndata: a\rdata: b\n\ndata: [DONE]\n\n".as_bytes();
        let whole = all(&[text]);
        assert_eq!(whole.len(), 3);
        for at in 0..=text.len() {
            assert_eq!(all(&[&text[..at], &text[at..]]), whole, "split at {at}");
        }
        let single: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(all(&single), whole);
    }

    #[test]
    fn lines_and_events_have_a_largest_size() {
        assert_eq!(Parser::new(8).push(b"data: too long"), Err(TooLarge));
        let mut parser = Parser::new(8);
        assert_eq!(parser.push(b"data:abc\n"), Ok(vec![]));
        assert_eq!(parser.push(b"data:def\ndata:ghi\n"), Err(TooLarge));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_hold_more_than_its_bound(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut parser = Parser::new(64);
            for piece in pieces {
                if parser.push(&piece).is_err() {
                    break;
                }
                prop_assert!(parser.line.len() <= 64 && parser.data.len() <= 64);
            }
        }
    }
}
