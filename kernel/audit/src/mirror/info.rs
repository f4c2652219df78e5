//! What a mirror says about where it stands: `text/x.tlog.mirror-info`. C2SP tlog-mirror.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;

use super::wire::TICKET_BYTES_MAX;
use crate::base64;
use crate::checkpoint::parse_decimal;
use crate::tree::SIZE_MAX;

/// The content type of [`MirrorInfo`] over HTTP.
pub const MIRROR_INFO_TYPE: &str = "text/x.tlog.mirror-info";

/// Two numbers and the longest ticket in base64.
const INFO_BYTES_MAX: usize = 2 * 20 + TICKET_BYTES_MAX.div_ceil(3) * 4 + 1;

/// Where an upload to a mirror can go on. Its text has three lines: the size, the next entry, and the
/// ticket in base64.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MirrorInfo {
    /// The size of a pending checkpoint.
    pub size: u64,
    /// The first entry that the mirror does not have.
    pub next_entry: u64,
    /// To be shown again with the next request.
    pub ticket: Vec<u8>,
}

/// Why a text does not say where a mirror stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the state of a mirror: expected the lines size, next entry and ticket")]
pub struct MirrorInfoError;

impl FromStr for MirrorInfo {
    type Err = MirrorInfoError;

    fn from_str(text: &str) -> Result<Self, MirrorInfoError> {
        if text.len() > INFO_BYTES_MAX {
            return Err(MirrorInfoError);
        }
        let body = text.strip_suffix('\n').ok_or(MirrorInfoError)?;
        let mut lines = body.split('\n');
        let mut line = || lines.next().ok_or(MirrorInfoError);
        let (size, next_entry, ticket) = (line()?, line()?, line()?);
        if lines.next().is_some() {
            return Err(MirrorInfoError);
        }
        let number = |text| {
            parse_decimal(text)
                .filter(|number| *number <= SIZE_MAX)
                .ok_or(MirrorInfoError)
        };
        let ticket = base64::decode(ticket).ok_or(MirrorInfoError)?;
        if ticket.len() > TICKET_BYTES_MAX {
            return Err(MirrorInfoError);
        }
        Ok(Self {
            size: number(size)?,
            next_entry: number(next_entry)?,
            ticket,
        })
    }
}

impl fmt::Display for MirrorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ticket = BASE64.encode(&self.ticket);
        write!(f, "{}\n{}\n{ticket}\n", self.size, self.next_entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_text_has_three_lines() {
        let info = MirrorInfo {
            size: 300,
            next_entry: 256,
            ticket: b"abc".to_vec(),
        };
        assert_eq!(info.to_string(), "300\n256\nYWJj\n");
        assert_eq!(MirrorInfo::default().to_string(), "0\n0\n\n");
        assert_eq!("0\n0\n\n".parse(), Ok(MirrorInfo::default()));
        for text in [
            "",
            "\n",
            "0\n0\n",
            "0\n0",
            "0\n0\n\n\n",
            "00\n0\n\n",
            "0\n-1\n\n",
            "0\n0\nYWI\n",
            "0\n0\nYWJj",
            "0\n0\nYWJj=\n",
            "0\n0\nYQ==YQ==\n",
            "0\n0\nYWI=\nx\n",
            "9223372036854775808\n0\n\n",
            "0 \n0\n\n",
            "0\r\n0\r\n\r\n",
        ] {
            assert_eq!(text.parse::<MirrorInfo>(), Err(MirrorInfoError), "{text:?}");
        }
        let largest = MirrorInfo {
            size: SIZE_MAX,
            next_entry: SIZE_MAX,
            ticket: vec![7; TICKET_BYTES_MAX],
        };
        assert_eq!(largest.to_string().parse(), Ok(largest.clone()));
        let longer = MirrorInfo {
            ticket: vec![7; TICKET_BYTES_MAX + 1],
            ..largest
        };
        assert_eq!(
            longer.to_string().parse::<MirrorInfo>(),
            Err(MirrorInfoError)
        );
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_writes_back(
            text in "[0-9]{0,20}\n[0-9]{0,20}\n[A-Za-z0-9+/]{0,12}={0,2}\n?|.{0,20}"
        ) {
            if let Ok(info) = text.parse::<MirrorInfo>() {
                prop_assert_eq!(info.to_string(), text);
            }
        }
    }
}
