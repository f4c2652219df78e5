//! The lines of a policy file.

use std::collections::{BTreeMap, BTreeSet};

use super::{Group, KnownLog, KnownWitness, Member, Policy, Quorum, Word};
use crate::checkpoint::parse_decimal;
use crate::cosign::CosignerKey;
use crate::note::{Verifier, VerifierError};

/// The longest policy that is parsed: some three hundred witnesses.
pub const POLICY_BYTES_MAX: usize = 64 * 1024;

/// The name that stands for no cosignature at all.
const NONE: &[u8] = b"none";

/// Why a file is not a policy, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the policy: {problem}")]
pub struct PolicyError {
    /// The number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    #[source]
    pub problem: PolicyProblem,
}

/// What is wrong with a line of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PolicyProblem {
    /// The file is longer than is parsed.
    #[error("the policy is longer than {POLICY_BYTES_MAX} bytes")]
    TooLong,
    /// A control character other than tab and line feed.
    #[error("control characters are not allowed")]
    Octets,
    /// No line feed at the end.
    #[error("the last line does not end in a line feed")]
    Unterminated,
    /// Not `log`, `witness`, `group` or `quorum`, or not with what belongs behind it.
    #[error(
        "expected log VKEY [URL], witness NAME VKEY [URL], group NAME K MEMBER... or quorum NAME"
    )]
    Words,
    /// Not the key of a log.
    #[error("the key of the log: {0}")]
    LogKey(#[source] VerifierError),
    /// Not the key of a witness.
    #[error("the key of the witness: {0}")]
    WitnessKey(#[source] VerifierError),
    /// A key that another line of the kind has.
    #[error("another line has the same key")]
    SameKey,
    /// A name that has a meaning already.
    #[error("the name is taken")]
    NameTaken,
    /// A name that no line before this one defines.
    #[error("no line before this one defines the name")]
    NameUnknown,
    /// A name that is a member already, here or elsewhere.
    #[error("a name can be a member once only")]
    SecondMembership,
    /// Not `any`, `all` or a number between 1 and the number of members.
    #[error("expected any, all or a number between 1 and the number of members")]
    Threshold,
    /// A quorum line behind another.
    #[error("there is a quorum line already")]
    SecondQuorum,
    /// No quorum line in the whole file.
    #[error("there is no quorum line")]
    NoQuorum,
}

/// What the lines so far have said.
#[derive(Default)]
struct Draft {
    logs: Vec<KnownLog>,
    witnesses: Vec<KnownWitness>,
    groups: Vec<Group>,
    names: BTreeMap<Vec<u8>, Member>,
    members: BTreeSet<Vec<u8>>,
    keys: BTreeSet<(bool, [u8; 32])>,
    quorum: Option<Quorum>,
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// When a line is not what it must be: which line, and what is wrong with it.
    pub fn parse(source: &[u8]) -> Result<Self, PolicyError> {
        if source.len() > POLICY_BYTES_MAX {
            return Err(PolicyError {
                line: 1,
                problem: PolicyProblem::TooLong,
            });
        }
        let mut draft = Draft::default();
        let mut line = 0;
        for bytes in source.split_inclusive(|byte| *byte == b'\n') {
            line += 1;
            let taken = match bytes.split_last() {
                Some((b'\n', body)) => draft.take(body),
                Some(_) | None => Err(PolicyProblem::Unterminated),
            };
            taken.map_err(|problem| PolicyError { line, problem })?;
        }
        let quorum = draft.quorum.ok_or(PolicyError {
            line: line + 1,
            problem: PolicyProblem::NoQuorum,
        })?;
        Ok(Self {
            source: source.into(),
            logs: draft.logs,
            witnesses: draft.witnesses,
            groups: draft.groups,
            quorum,
        })
    }
}

impl Draft {
    fn take(&mut self, line: &[u8]) -> Result<(), PolicyProblem> {
        let is_allowed = |byte: &u8| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f);
        if !line.iter().all(is_allowed) {
            return Err(PolicyProblem::Octets);
        }
        let words: Vec<&[u8]> = line
            .split(|byte| matches!(byte, b' ' | b'\t'))
            .filter(|word| !word.is_empty())
            .collect();
        match words.as_slice() {
            [] => Ok(()),
            [first, ..] if first.starts_with(b"#") => Ok(()),
            [b"log", vkey] => self.log(vkey, None),
            [b"log", vkey, url] => self.log(vkey, Some(url)),
            [b"witness", name, vkey] => self.witness(name, vkey, None),
            [b"witness", name, vkey, url] => self.witness(name, vkey, Some(url)),
            [b"group", name, needed, members @ ..] => self.group(name, needed, members),
            [b"quorum", name] => self.quorum(name),
            [_, ..] => Err(PolicyProblem::Words),
        }
    }

    fn log(&mut self, vkey: &[u8], url: Option<&[u8]>) -> Result<(), PolicyProblem> {
        let key: Verifier = text(vkey)
            .and_then(str::parse)
            .map_err(PolicyProblem::LogKey)?;
        self.claim_key(false, key.key().to_bytes())?;
        let url = url.map(word);
        self.logs.push(KnownLog { key, url });
        Ok(())
    }

    fn witness(
        &mut self,
        name: &[u8],
        vkey: &[u8],
        url: Option<&[u8]>,
    ) -> Result<(), PolicyProblem> {
        let key: CosignerKey = text(vkey)
            .and_then(str::parse)
            .map_err(PolicyProblem::WitnessKey)?;
        self.claim_key(true, key.key().to_bytes())?;
        self.define(name, Member::Witness(self.witnesses.len()))?;
        self.witnesses.push(KnownWitness {
            name: word(name),
            key,
            url: url.map(word),
        });
        Ok(())
    }

    fn group(
        &mut self,
        name: &[u8],
        needed: &[u8],
        members: &[&[u8]],
    ) -> Result<(), PolicyProblem> {
        let mut found = Vec::with_capacity(members.len());
        for member in members {
            found.push(self.lookup(member)?);
            if !self.members.insert(member.to_vec()) {
                return Err(PolicyProblem::SecondMembership);
            }
        }
        let needed = match needed {
            b"any" => 1,
            b"all" => found.len(),
            number => std::str::from_utf8(number)
                .ok()
                .and_then(parse_decimal)
                .and_then(|number| usize::try_from(number).ok())
                .ok_or(PolicyProblem::Threshold)?,
        };
        if !(1..=found.len()).contains(&needed) {
            return Err(PolicyProblem::Threshold);
        }
        self.define(name, Member::Group(self.groups.len()))?;
        self.groups.push(Group {
            needed,
            members: found,
        });
        Ok(())
    }

    fn quorum(&mut self, name: &[u8]) -> Result<(), PolicyProblem> {
        if self.quorum.is_some() {
            return Err(PolicyProblem::SecondQuorum);
        }
        self.quorum = Some(if name == NONE {
            Quorum::Nobody
        } else {
            Quorum::Of(self.lookup(name)?)
        });
        Ok(())
    }

    fn define(&mut self, name: &[u8], member: Member) -> Result<(), PolicyProblem> {
        if name == NONE || self.names.contains_key(name) {
            return Err(PolicyProblem::NameTaken);
        }
        self.names.insert(name.to_vec(), member);
        Ok(())
    }

    fn lookup(&self, name: &[u8]) -> Result<Member, PolicyProblem> {
        let found = self.names.get(name).copied();
        found.ok_or(PolicyProblem::NameUnknown)
    }

    fn claim_key(&mut self, of_witness: bool, key: [u8; 32]) -> Result<(), PolicyProblem> {
        if self.keys.insert((of_witness, key)) {
            Ok(())
        } else {
            Err(PolicyProblem::SameKey)
        }
    }
}

fn word(bytes: &[u8]) -> Word {
    Word(bytes.into())
}

fn text(bytes: &[u8]) -> Result<&str, VerifierError> {
    std::str::from_utf8(bytes).map_err(|_not_text| VerifierError::Form)
}
