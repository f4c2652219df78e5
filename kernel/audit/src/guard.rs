//! What stands between whoever writes an entry and the queue of the log.
//!
//! Every text of an entry passes a filter: known secrets of the node, and what looks like one, become
//! `[redacted:KIND]`. A text about a person is sealed in the [vault](crate::vault), and the line commits to it; a
//! secret is committed to and forgotten. Nothing here waits for the disk.

mod filter;
mod known;
mod plain;

use std::borrow::Cow;

use zeroize::Zeroizing;

use crate::Event;
use crate::event::{Hidden, Kind, Slot, cut};
use crate::value::Field;
use crate::vault::{Opening, Vault};

pub use known::{KNOWN_BYTES_MIN, Known};

/// What stands in the place of a text about a person, in a log that has no vault.
const NO_VAULT_PERSONAL: &str = "[redacted:personal]";
/// The same for a secret.
const NO_VAULT_SECRET: &str = "[redacted:secret]";

/// What a log takes secrets and personal texts out of its entries with. The default knows no secret of the node,
/// only what secrets look like, and has no vault: a personal text is lost.
#[derive(Debug, Default)]
pub struct Guard {
    known: Known,
    vault: Option<Vault>,
}

/// An entry that may be queued, and the openings of what it commits to.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) event: Event,
    pub(crate) openings: Box<[Opening]>,
}

impl Guard {
    /// Knows these secrets, and seals in this vault.
    #[must_use]
    pub fn new(known: Known, vault: Option<Vault>) -> Self {
        Self { known, vault }
    }

    pub(crate) fn vault(&self) -> Option<&Vault> {
        self.vault.as_ref()
    }

    /// Takes out what must not stand in a line.
    pub(crate) fn admit(&self, mut event: Event) -> Admitted {
        let mut openings = Vec::new();
        if let Some(act) = &mut event.act {
            self.clean(act);
        }
        self.clean(&mut event.outcome);
        // Numbers that were numbers when they were put together, and more than another field holds.
        let numbers = event.kind == Kind::Redact;
        let slots = [
            (Field::Session, event.session.as_mut(), false),
            (Field::Target, event.target.as_mut(), numbers),
            (Field::User, event.user.as_mut(), false),
            (Field::Value, event.value.as_deref_mut(), false),
        ];
        for (field, slot, as_it_is) in slots {
            let Some(slot) = slot else { continue };
            match slot {
                Slot::Committed(_) => {}
                Slot::Open(_) if as_it_is => {}
                Slot::Open(text) => self.clean(text),
                Slot::Personal(hidden) => *slot = self.hide(field, hidden, &mut openings),
                Slot::Secret(secret) => {
                    *slot = match &self.vault {
                        Some(vault) => vault.commit_to(field, secret.bytes()).into(),
                        None => Slot::Open(NO_VAULT_SECRET.into()),
                    };
                }
            }
        }
        Admitted {
            event,
            openings: openings.into(),
        }
    }

    /// Takes secrets out of a text that stands in no entry.
    #[must_use]
    pub fn clean_text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        filter::clean(&self.known, text)
    }

    fn clean(&self, text: &mut Box<str>) {
        let cleaned = match filter::clean(&self.known, text) {
            Cow::Borrowed(same) if cut(same).len() == same.len() => return,
            changed @ (Cow::Borrowed(_) | Cow::Owned(_)) => cut(&changed).into(),
        };
        *text = cleaned;
    }

    fn hide(&self, field: Field, hidden: &Hidden, openings: &mut Vec<Opening>) -> Slot {
        let Some(vault) = &self.vault else {
            return Slot::Open(NO_VAULT_PERSONAL.into());
        };
        let cleaned = Zeroizing::new(filter::clean(&self.known, &hidden.value).into_owned());
        let hidden = Hidden {
            subject: hidden.subject.clone(),
            value: Zeroizing::new(cut(&cleaned).to_owned()),
        };
        let opening = vault.seal(field, &hidden);
        let commitment = opening.commitment();
        openings.push(opening);
        commitment.into()
    }
}

#[cfg(test)]
mod tests;
