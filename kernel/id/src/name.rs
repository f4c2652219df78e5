//! Names that people give to agents and nodes.

use std::fmt;
use std::str::FromStr;

/// The longest name, in bytes: it must fit a DNS label and one line of a terminal table.
const NAME_BYTES_MAX: usize = 64;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a name must not be empty")]
    Empty,
    /// The text is longer than 64 bytes.
    #[error("a name has at most {NAME_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// The text holds a character outside `A-Z a-z 0-9 . _ -`, or starts with a punctuation mark.
    #[error(
        "{0:?} is not allowed in a name here: use letters, digits, '.', '_' and '-', and start with a letter or digit"
    )]
    Character(char),
    /// The text has the form of an id, and would be taken for one.
    #[error("a name must not have the form of an id")]
    LooksLikeId,
}

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong(text.len()));
    }
    for (at, c) in text.chars().enumerate() {
        let inner = matches!(c, '.' | '_' | '-') && at > 0;
        if !(c.is_ascii_alphanumeric() || inner) {
            return Err(NameError::Character(c));
        }
    }
    if uuid::Uuid::try_parse(text).is_ok() || text.parse::<crate::NodeId>().is_ok() {
        return Err(NameError::LooksLikeId);
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Box<str>);

        impl $type {
            /// Returns the name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name! {
    /// What people call an agent; unique on its node. 1 to 64 bytes of `A-Z a-z 0-9 . _ -`,
    /// starting with a letter or digit; never in the form of an id.
    AgentName
}

name! {
    /// What people call a node. Same form as [`AgentName`]; a label, not an identity: two nodes
    /// may carry the same name, and are then told apart by [`NodeId`](crate::NodeId).
    NodeName
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_letters_digits_and_inner_marks() {
        let check = |text: &str, ok: bool| {
            assert_eq!(text.parse::<AgentName>().is_ok(), ok, "{text:?}");
        };
        check("assistant", true);
        check("coder-2.beta_x", true);
        check("7", true);
        check("", false);
        check("-x", false);
        check("a b", false);
        check("a@b", false);
        check("ü", false);
        check(&"x".repeat(64), true);
        check(&"x".repeat(65), false);
        check("67e55044-10b1-426f-9247-bb680e5fe0c8", false);
        check("67e5504410b1426f9247bb680e5fe0c8", false);
    }
}
