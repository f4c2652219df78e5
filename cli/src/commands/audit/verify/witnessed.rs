//! How the log stands to its witnesses, from the cosigned head and the policy that were kept.

use openfang_audit::note::{Note, NoteError};
use openfang_audit::policy::{EvaluateError, Evaluation, Policy};
use openfang_audit::survey::{Compared, Survey};
use openfang_audit::{Checkpoint, rfc3339};
use serde_json::{Value, json};

use super::super::files::{Files, Kept, MEND_KEPT};
use super::super::since;
use super::own::Failing;
use super::said;

/// A head follows an entry within a second; a slow disk may need longer.
const UNSIGNED_MICROS_MAX: u64 = 60 * 1_000_000;
/// Witnesses answer within a second; they may be restarted, all at once.
const UNCOSIGNED_MICROS_MAX: u64 = 600 * 1_000_000;
/// How long there may be witnesses before a first head is cosigned by enough of them.
const FIRST_MICROS_MAX: u64 = 60 * 1_000_000;

/// What was kept of the witnesses.
pub(super) enum Witnessed {
    /// There were never any.
    NoPeers,
    /// The network of this node is off.
    NetworkOff,
    /// There are some, and no head is kept that has found their quorum.
    NoneKept {
        of: usize,
        /// Since when there are some: microseconds since 1970, where that is known.
        since: Option<u64>,
        /// How many entries enough of them have cosigned all the same, as the running node says.
        complete: Option<u64>,
        /// Whether mirrors have cosigned a head: then the log is not one whose witnesses were just met.
        mirrored: bool,
    },
    /// What was kept tells nothing of who has cosigned; why. The cosigned head, if there is one of this log.
    Damaged {
        head: Option<Checkpoint>,
        why: String,
    },
    /// A file that tells it cannot be read; why. The cosigned head, if that can be.
    Unread {
        head: Option<Checkpoint>,
        why: String,
    },
    /// A head, and who has cosigned it.
    By {
        head: Checkpoint,
        found: Evaluation,
        of: usize,
        /// Whether this node still has peers to ask.
        network_on: bool,
    },
}

/// Something that keeps an intact log from being fresh and witnessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lack {
    pub(super) word: &'static str,
    pub(super) text: String,
}

/// Where the log has stopped: what is on the disk is not known before it is read again.
pub(crate) const MEND_POISONED: &str = "the log has stopped, and does not go on by itself, whatever room there is: openfang restart reads what is on the disk and goes on from there. When it comes again: dmesg, and look at the disk";

impl Lack {
    /// What a running node that cannot write its log lacks: new entries.
    pub(super) fn failing(failing: Option<&Failing>, files: &Files) -> Option<Self> {
        let failing = failing?;
        let folder = files.dir.display();
        let (why, mend) = match failing {
            Failing::ForNow(why) => (
                why,
                format!(
                    "df -h {folder}; when there is room it goes on by itself, or: openfang restart"
                ),
            ),
            Failing::ForGood(why) => (why, MEND_POISONED.to_owned()),
        };
        Some(Self {
            word: "failing",
            text: format!(
                "FAILING: the running node cannot write its log, and does nothing that must be logged: {why}\n    mend: {mend}"
            ),
        })
    }
}

impl Witnessed {
    /// Reads it. `complete`: how many entries enough witnesses have cosigned, as the running node says.
    pub(super) fn load(files: &Files, complete: Option<u64>) -> Self {
        let head = match files.cosigned() {
            Ok(head) => head,
            Err(why) => {
                let why = said(&why);
                return Self::Unread { head: None, why };
            }
        };
        let policy = match (files.kept_policy(), &head) {
            (Ok(policy), _) => policy,
            // The entries are compared with the head all the same.
            (Err(why), Kept::Head(head)) => {
                let (head, why) = (Some(head.checkpoint.clone()), said(&why));
                return Self::Unread { head, why };
            }
            (Err(why), Kept::Nothing | Kept::Bad(_)) => {
                let why = said(&why);
                return Self::Unread { head: None, why };
            }
        };
        let of = policy.as_ref().map_or(0, |policy| policy.witnesses().len());
        let head = match (head, &policy) {
            (Kept::Bad(why), _) => return Self::Damaged { head: None, why },
            (Kept::Nothing, _) if of > 0 && files.network_on => {
                return Self::NoneKept {
                    of,
                    since: files.witnessed_since(),
                    complete,
                    mirrored: files.mirrored().is_ok_and(|heads| !heads.is_empty()),
                };
            }
            (Kept::Nothing, _) if of > 0 => return Self::NetworkOff,
            (Kept::Nothing, _) => {
                return match files.missing_policy() {
                    Some(why) => Self::Damaged { head: None, why },
                    None => Self::NoPeers,
                };
            }
            (Kept::Head(head), None) => {
                return Self::Damaged {
                    head: Some(head.checkpoint),
                    why: files.missing_policy().unwrap_or_default(),
                };
            }
            (Kept::Head(head), Some(_)) => head,
        };
        let evaluated = head
            .note
            .parse::<Note>()
            .map_err(Unjudged::Note)
            .and_then(|note| evaluate(policy.as_ref(), &note));
        match evaluated {
            Ok(found) => Self::By {
                head: head.checkpoint,
                found,
                of,
                network_on: files.network_on,
            },
            Err(why) => Self::Damaged {
                head: Some(head.checkpoint),
                why: why.to_string(),
            },
        }
    }

    /// Why it is not known who has cosigned, when a file cannot be read.
    pub(super) fn unread(&self) -> Option<String> {
        match self {
            Self::Unread { why, .. } => Some(format!("who has cosigned this log: {why}")),
            Self::NoPeers
            | Self::NetworkOff
            | Self::NoneKept { .. }
            | Self::Damaged { .. }
            | Self::By { .. } => None,
        }
    }

    /// The head that is compared with the entries.
    pub(super) fn head(&self) -> Option<&Checkpoint> {
        match self {
            Self::By { head, .. } => Some(head),
            Self::Unread { head, .. } | Self::Damaged { head, .. } => head.as_ref(),
            Self::NoPeers | Self::NetworkOff | Self::NoneKept { .. } => None,
        }
    }

    /// Says what the log lacks: signatures of its own or of its witnesses. `now` is the present of a node
    /// that runs; one that was stopped has nothing to sign since its last entry.
    pub(super) fn lacks(
        &self,
        survey: &Survey,
        own: Option<&Compared>,
        now: Option<u64>,
    ) -> Vec<Lack> {
        let last = survey.last_entry.as_deref().and_then(since::moment);
        let now = now.or(last).unwrap_or_default();
        let older = |time: &Option<String>, most: u64| {
            let at = time.as_deref().and_then(since::moment)?;
            (now.saturating_sub(at) > most).then(|| rfc3339(at))
        };
        let mut lacks = Vec::new();
        if let Some(at) = older(&survey.first_unsigned, UNSIGNED_MICROS_MAX) {
            lacks.push(Lack {
                word: "stale",
                text: format!("STALE: no head was signed for the entries since {at}"),
            });
        }
        match self {
            Self::NoPeers | Self::NetworkOff | Self::Unread { .. } => {}
            Self::NoneKept {
                of,
                since,
                complete,
                mirrored,
            } => {
                // Who has just joined is given the time that a first head takes.
                let just = since.is_some_and(|at| now.saturating_sub(at) <= FIRST_MICROS_MAX);
                let just = just && !mirrored;
                if !just && complete.is_none() {
                    lacks.push(Lack {
                        word: "below_quorum",
                        text: format!(
                            "BELOW QUORUM: there are {of} witnesses, and no head that enough of them have cosigned is there: none ever was, or audit.d/cosigned was removed\n    mend: {MEND_KEPT}"
                        ),
                    });
                }
            }
            Self::Damaged { why, .. } => lacks.push(Lack {
                word: "below_quorum",
                text: format!(
                    "BELOW QUORUM: who has cosigned this log is not known: {why}\n    mend: {MEND_KEPT}"
                ),
            }),
            Self::By {
                found,
                of,
                network_on,
                ..
            } => {
                if !found.reached {
                    lacks.push(Lack {
                        word: "below_quorum",
                        text: format!(
                            "BELOW QUORUM: of {of} witnesses {} have cosigned, and the policy asks for more",
                            found.cosignatures.len()
                        ),
                    });
                }
                let next = own.filter(|_| *network_on);
                let next = next.and_then(|own| own.next_entry.clone());
                if let Some(at) = older(&next, UNCOSIGNED_MICROS_MAX) {
                    lacks.push(Lack {
                        word: "stale",
                        text: format!("STALE: no quorum has cosigned the entries since {at}"),
                    });
                }
            }
        }
        lacks
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::NoPeers => "not witnessed: no peers".to_owned(),
            Self::NetworkOff => "not witnessed: the network of this node is off".to_owned(),
            Self::NoneKept { of, complete, .. } => match complete {
                Some(size) => format!(
                    "not shown to be witnessed: audit.d/cosigned is missing. The running node says that enough of {of} have cosigned {size} entries; it writes the file again with the next head"
                ),
                None => format!(
                    "not shown to be witnessed: there is no audit.d/cosigned. Enough of {of} have not cosigned yet, or the file was removed"
                ),
            },
            Self::Damaged { .. } | Self::Unread { .. } => "not known to be witnessed".to_owned(),
            Self::By {
                head, found, of, ..
            } => {
                let last = found.newest().map_or_else(String::new, |seconds| {
                    format!(", last at {}", rfc3339(seconds.saturating_mul(1_000_000)))
                });
                format!(
                    "witnessed: the first {} entries, by {} of {of}{last}",
                    head.size,
                    found.cosignatures.len()
                )
            }
        }
    }

    pub(super) fn as_json(&self) -> Value {
        match self {
            Self::NoPeers => json!({ "state": "no_peers" }),
            Self::NetworkOff => json!({ "state": "network_off" }),
            Self::NoneKept { of, complete, .. } => {
                json!({ "state": "none_kept", "witnesses": of, "complete": complete })
            }
            Self::Damaged { why, .. } | Self::Unread { why, .. } => {
                json!({ "state": "unknown", "reason": why })
            }
            Self::By {
                head, found, of, ..
            } => json!({
                "state": if found.reached { "quorum" } else { "below_quorum" },
                "size": head.size,
                "cosigned": found.cosignatures.len(),
                "witnesses": of,
                "newest": found.newest().map(|time| rfc3339(time.saturating_mul(1_000_000))),
            }),
        }
    }
}

/// Why a cosigned head cannot be judged.
#[derive(Debug, thiserror::Error)]
enum Unjudged {
    #[error("the cosigned head: {0}")]
    Note(#[source] NoteError),
    #[error("the cosigned head: {0}")]
    Policy(#[source] EvaluateError),
    #[error("there is no policy")]
    NoPolicy,
}

fn evaluate(policy: Option<&Policy>, note: &Note) -> Result<Evaluation, Unjudged> {
    let policy = policy.ok_or(Unjudged::NoPolicy)?;
    policy.evaluate(note).map_err(Unjudged::Policy)
}
