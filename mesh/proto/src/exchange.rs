//! One question and its answer about audit logs, on a substream of its own.
//!
//! What is carried are the documents of C2SP tlog-witness, tlog-mirror and tlog-tiles, as they travel
//! over HTTP elsewhere: a verb, a path and a body there, a status, a content type and a body back.
//! So a witness has one core, whoever asks and over whatever; here the connection has said who asks.
//!
//! Each direction of the substream holds one frame ([`frame_into`](crate::codec::frame_into)). What
//! a path means is not known here.

use crate::codec::{DecodeError, EncodeError, FrameBuffer, Reader, Writer};

/// The longest path, in bytes.
pub const PATH_BYTES_MAX: usize = 256;
/// The longest body of a question, in bytes: 32 packages of 256 entries of 1,000 bytes.
pub const QUESTION_BODY_MAX: usize = 8 << 20;
/// The longest body of an answer, in bytes: 256 entries of 65,535 bytes, with their lengths.
pub const ANSWER_BODY_MAX: usize = 257 << 16;
/// The longest content type, in bytes.
const CONTENT_TYPE_BYTES_MAX: usize = 64;

const GET: u8 = 1;
const POST: u8 = 2;

/// What is asked to be done with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Read it.
    Get,
    /// Hand it something.
    Post,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What to do.
    pub verb: Verb,
    /// With what; ASCII without spaces and control characters, at most [`PATH_BYTES_MAX`] bytes.
    pub path: String,
    /// What is handed over; empty for [`Verb::Get`].
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// How it went: a status of HTTP, 200 to 599.
    pub status: u16,
    /// What the body is, such as `text/x.tlog.size`; empty for nothing in particular.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Question {
    /// Writes the question, without the length before it.
    ///
    /// # Errors
    /// When the path or the body is too long.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        bounded(self.path.len(), PATH_BYTES_MAX)?;
        bounded(self.body.len(), QUESTION_BODY_MAX)?;
        let mut out = Writer::with_capacity(3 + self.path.len() + self.body.len());
        let verb = match self.verb {
            Verb::Get => GET,
            Verb::Post => POST,
        };
        out.u8(verb).str16(&self.path).raw(&self.body);
        out.finish(question_buffer_bytes())
    }

    /// Reads a question.
    ///
    /// # Errors
    /// When it is none, or a path has a byte that a path must not have.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(frame);
        let verb = match from.u8()? {
            GET => Verb::Get,
            POST => Verb::Post,
            value => {
                let what = "verb";
                return Err(DecodeError::Unknown { what, value });
            }
        };
        let path = from.str16(PATH_BYTES_MAX)?;
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(DecodeError::Invalid { what: "path" });
        }
        let body = rest(&mut from, QUESTION_BODY_MAX)?;
        if verb == Verb::Get && !body.is_empty() {
            return Err(DecodeError::Trailing { left: body.len() });
        }
        Ok(Self {
            verb,
            path: path.to_owned(),
            body,
        })
    }

    /// Collects the bytes of a question.
    #[must_use]
    pub fn buffer() -> FrameBuffer {
        FrameBuffer::new(question_buffer_bytes())
    }
}

impl Answer {
    /// An answer that is a status alone.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self {
            status,
            content_type: String::new(),
            body: Vec::new(),
        }
    }

    /// Writes the answer, without the length before it.
    ///
    /// # Errors
    /// When the content type or the body is too long.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        bounded(self.content_type.len(), CONTENT_TYPE_BYTES_MAX)?;
        bounded(self.body.len(), ANSWER_BODY_MAX)?;
        let mut out = Writer::with_capacity(4 + self.content_type.len() + self.body.len());
        out.u16(self.status)
            .str16(&self.content_type)
            .raw(&self.body);
        out.finish(answer_buffer_bytes())
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(frame);
        let status = from.u16()?;
        if !(200..=599).contains(&status) {
            return Err(DecodeError::Invalid { what: "status" });
        }
        let content_type = from.str16(CONTENT_TYPE_BYTES_MAX)?;
        if !content_type.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(DecodeError::Invalid {
                what: "content type",
            });
        }
        Ok(Self {
            status,
            content_type: content_type.to_owned(),
            body: rest(&mut from, ANSWER_BODY_MAX)?,
        })
    }

    /// Collects the bytes of an answer.
    #[must_use]
    pub fn buffer() -> FrameBuffer {
        FrameBuffer::new(answer_buffer_bytes())
    }
}

const fn question_buffer_bytes() -> usize {
    1 + 2 + PATH_BYTES_MAX + QUESTION_BODY_MAX
}

const fn answer_buffer_bytes() -> usize {
    2 + 2 + CONTENT_TYPE_BYTES_MAX + ANSWER_BODY_MAX
}

fn bounded(len: usize, max: usize) -> Result<(), EncodeError> {
    if len > max {
        return Err(EncodeError::FieldTooLong { len, max });
    }
    Ok(())
}

fn rest(from: &mut Reader<'_>, max: usize) -> Result<Vec<u8>, DecodeError> {
    let len = from.left();
    if len > max {
        return Err(DecodeError::TooLong { len, max });
    }
    Ok(from.raw(len)?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn question(verb: Verb, path: &str, body: &[u8]) -> Question {
        Question {
            verb,
            path: path.to_owned(),
            body: body.to_vec(),
        }
    }

    #[test]
    fn a_content_type_may_have_parameters_and_no_control_characters() {
        let answer = |content_type: &str| Answer {
            status: 200,
            content_type: content_type.to_owned(),
            body: Vec::new(),
        };
        let plain = answer("text/plain; charset=utf-8");
        let bytes = plain.encode().expect("fits");
        assert_eq!(Answer::decode(&bytes), Ok(plain));
        for wrong in ["text/plain\n", "a\0", "\u{7f}", "text/ü"] {
            let bytes = answer(wrong).encode().expect("fits");
            assert!(Answer::decode(&bytes).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_bytes_do_not_change() {
        let asked = question(Verb::Post, "/w", b"old 0\n");
        assert_eq!(
            asked.encode().expect("fits"),
            b"\x02\x00\x02/wold 0\n".as_slice()
        );
        let answer = Answer {
            status: 409,
            content_type: "text/x".to_owned(),
            body: b"5\n".to_vec(),
        };
        assert_eq!(
            answer.encode().expect("fits"),
            b"\x01\x99\x00\x06text/x5\n".as_slice()
        );
    }

    #[test]
    fn what_is_too_long_is_neither_written_nor_read() {
        let long = question(Verb::Get, &"p".repeat(PATH_BYTES_MAX + 1), b"");
        assert!(long.encode().is_err());
        let body = vec![0; QUESTION_BODY_MAX + 1];
        assert!(question(Verb::Post, "/", &body).encode().is_err());
        let mut frame = b"\x02\x00\x01/".to_vec();
        frame.extend_from_slice(&body);
        assert!(matches!(
            Question::decode(&frame),
            Err(DecodeError::TooLong { .. })
        ));
        let full = question(Verb::Post, "/", &body[1..]);
        assert_eq!(
            Question::decode(&full.encode().expect("fits")),
            Ok(full.clone())
        );
    }

    #[test]
    fn what_is_odd_is_refused() {
        for frame in [
            b"".as_slice(),
            b"\x03\x00\x01/",
            b"\x01\x00\x02/ ",
            b"\x01\x00\x02/\n",
            b"\x01\x00\x01/body",
            b"\x01\x00\x02/",
        ] {
            assert!(Question::decode(frame).is_err(), "{frame:?}");
        }
        for frame in [b"\x00\xc7\x00\x00".as_slice(), b"\x02\x58\x00\x00", b"\x00"] {
            assert!(Answer::decode(frame).is_err(), "{frame:?}");
        }
    }

    proptest! {
        #[test]
        fn questions_round_trip(get in any::<bool>(), path in "[!-~]{0,256}", body in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let (verb, body) = if get { (Verb::Get, Vec::new()) } else { (Verb::Post, body) };
            let asked = Question { verb, path, body };
            prop_assert_eq!(Question::decode(&asked.encode().expect("fits")), Ok(asked));
        }

        #[test]
        fn answers_round_trip(status in 200_u16..600, content_type in "[!-~]{0,64}", body in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let answer = Answer { status, content_type, body };
            prop_assert_eq!(Answer::decode(&answer.encode().expect("fits")), Ok(answer));
        }

        #[test]
        fn any_bytes_are_read_or_refused_and_written_back_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(asked) = Question::decode(&bytes) {
                prop_assert_eq!(asked.encode().expect("was read"), bytes.clone());
            }
            if let Ok(answer) = Answer::decode(&bytes) {
                prop_assert_eq!(answer.encode().expect("was read"), bytes);
            }
        }
    }
}
