//! Failures: what went wrong, what mends it, and the exit code.

use std::fmt;
use std::io;
use std::process::ExitCode;

use openfang_node::config::{ConfigErrors, NotText};
use openfang_node::home::HomeError;
use openfang_schema::{ErrorBody, ErrorCode};
use serde_json::{Value, json};

use crate::render;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what it was asked to.
    Ok = 0,
    /// It failed; for `audit verify`: the log was tampered with.
    Failure = 1,
    /// It was asked wrongly; for `audit`: the log cannot be read.
    Usage = 2,
    /// What was named does not exist.
    NotFound = 3,
    /// Not allowed.
    Denied = 4,
    /// The daemon does not run, or the node of the agent cannot be reached.
    Unreachable = 5,
    /// No answer in time.
    Timeout = 6,
    /// The configuration is wrong (`EX_USAGE` of sysexits, as the guides have it).
    Config = 64,
}

impl Exit {
    /// For `audit verify`: the log is intact, and stale or below the quorum of its witnesses.
    pub(crate) const STALE: Self = Self::NotFound;
    /// For `audit verify`: there is evidence that a log or a cosigner has contradicted itself.
    pub(crate) const EVIDENCE: Self = Self::Denied;
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    what: String,
    mend: Option<String>,
    closed_pipe: bool,
    answer: Option<Box<ErrorBody>>,
}

impl Failure {
    /// Says what went wrong and where.
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
            mend: None,
            closed_pipe: false,
            answer: None,
        }
    }

    /// Says what to do about it.
    pub(crate) fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }

    /// The reader of our output went away: `openfang audit show | head`.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        self.closed_pipe
    }

    /// Returns what went wrong, without what mends it.
    pub(crate) fn what(&self) -> &str {
        self.what.lines().next().unwrap_or_default()
    }

    /// Returns how the program ends.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// An answer of the API that is not a success.
    pub(crate) fn of_api(body: ErrorBody) -> Self {
        // It may hold what another node said.
        let mut what = render::cell(body.error.trim_end_matches('.'));
        if !body.candidates.is_empty() {
            let candidates = render::cell(&body.candidates.join(", "));
            what = format!("{what}: {candidates}");
        }
        let hint = body.hint.as_deref().map(render::cell);
        let mend = mend_of(body.code).map(str::to_owned).or(hint);
        Self {
            mend,
            ..Self::new(exit_of(body.code), format!("{what} ({})", body.code))
        }
        .answered(body)
    }

    fn answered(mut self, body: ErrorBody) -> Self {
        self.answer = Some(Box::new(body));
        self
    }

    /// Ends the program in another way.
    pub(crate) fn ends_with(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Gives it, for programs, the form in which the API would have said it.
    pub(crate) fn coded(mut self, code: ErrorCode, reason: Option<&str>) -> Self {
        let (what, mend) = match self.what.split_once(MEND) {
            Some((what, mend)) => (what.to_owned(), Some(mend.to_owned())),
            None => (self.what.clone(), self.mend.clone()),
        };
        let mut body = ErrorBody::new(code, what);
        body.reason = reason.map(str::to_owned);
        body.hint = mend;
        self.answer = Some(Box::new(body));
        self
    }

    /// Returns the code of the API's answer, when it was the API that said no.
    pub(crate) fn code(&self) -> Option<ErrorCode> {
        self.answer.as_ref().map(|body| body.code)
    }

    /// Returns the finer word of the API's answer, where there is one.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.answer.as_ref()?.reason.as_deref()
    }

    /// Returns it for programs: what the API answered, or what went wrong before it could.
    pub(crate) fn to_json(&self) -> Value {
        let answer = self.answer.as_ref();
        answer
            .and_then(|body| serde_json::to_value(body).ok())
            .unwrap_or_else(|| {
                // What the node says ends with what mends it.
                let (what, own) = match self.what.split_once(MEND) {
                    Some((what, mend)) => (what, Some(mend)),
                    None => (self.what.as_str(), None),
                };
                let hint = self.mend.as_deref().or(own);
                json!({ "error": what, "hint": hint })
            })
    }
}

/// Returns the command that mends it, where there is one: the API says what a program would do.
fn mend_of(code: ErrorCode) -> Option<&'static str> {
    const MENDS: &[(ErrorCode, &str)] = &[
        (ErrorCode::KeyRequired, MEND_KEY),
        (ErrorCode::InvalidKey, MEND_KEY),
        (ErrorCode::UnknownAgent, "openfang agent list"),
        (ErrorCode::Unreachable, "openfang peers"),
        (ErrorCode::UnknownNode, "openfang peers"),
        (ErrorCode::NetworkAsleep, MEND_ASLEEP),
    ];
    let found = MENDS.iter().find(|(known, _mend)| *known == code);
    found.map(|(_code, mend)| *mend)
}

/// What stands between what went wrong and what mends it.
const MEND: &str = "\n    mend: ";
const MEND_KEY: &str = "set api_key in config.toml to the key of the running node, or OPENFANG_API_KEY; after a change: openfang restart";
const MEND_ASLEEP: &str = "openfang join - with a ticket of another node on stdin, or put what `openfang keygen --network` prints into network.shared_secret and: openfang restart";

fn exit_of(code: ErrorCode) -> Exit {
    const NOT_FOUND: &[ErrorCode] = &[
        ErrorCode::UnknownAgent,
        ErrorCode::UnknownNode,
        ErrorCode::NoRoute,
    ];
    const DENIED: &[ErrorCode] = &[
        ErrorCode::KeyRequired,
        ErrorCode::InvalidKey,
        ErrorCode::LocalOnly,
        ErrorCode::OriginRefused,
        ErrorCode::ForeignHost,
        ErrorCode::Refused,
        ErrorCode::WrongSecret,
        ErrorCode::TooManyFailures,
    ];
    const USAGE: &[ErrorCode] = &[
        ErrorCode::InvalidParameter,
        ErrorCode::InvalidAgent,
        ErrorCode::InvalidManifest,
        ErrorCode::InvalidTicket,
        ErrorCode::InvalidSecret,
        ErrorCode::Ambiguous,
        ErrorCode::TooLarge,
    ];
    const TIMEOUT: &[ErrorCode] = &[ErrorCode::TimedOut, ErrorCode::BodyTimeout];
    for (codes, exit) in [
        (NOT_FOUND, Exit::NotFound),
        (DENIED, Exit::Denied),
        (USAGE, Exit::Usage),
        (TIMEOUT, Exit::Timeout),
        (&[ErrorCode::Unreachable], Exit::Unreachable),
    ] {
        if codes.contains(&code) {
            return exit;
        }
    }
    Exit::Failure
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        match &self.mend {
            Some(mend) => write!(f, "{MEND}{mend}"),
            None => Ok(()),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(why: io::Error) -> Self {
        Self {
            closed_pipe: why.kind() == io::ErrorKind::BrokenPipe,
            ..Self::new(Exit::Failure, why.to_string())
        }
    }
}

impl From<ConfigErrors> for Failure {
    fn from(why: ConfigErrors) -> Self {
        Self::new(Exit::Config, why.to_string())
    }
}

impl From<HomeError> for Failure {
    fn from(why: HomeError) -> Self {
        let exit = match why {
            HomeError::NotText(_) => Exit::Config,
            HomeError::NotReadable { .. } => Exit::Denied,
            HomeError::Unnamed
            | HomeError::Missing { .. }
            | HomeError::Exposed { .. }
            | HomeError::NotWritable { .. }
            | HomeError::Held { .. } => Exit::Failure,
        };
        Self::new(exit, why.to_string())
    }
}

impl From<NotText> for Failure {
    fn from(why: NotText) -> Self {
        Self::new(Exit::Config, why.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(why: serde_json::Error) -> Self {
        if let Some(kind) = why.io_error_kind() {
            return io::Error::from(kind).into();
        }
        Self::new(
            Exit::Failure,
            format!("not the JSON that was expected: {why}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_api_has_an_exit_code() {
        for code in ErrorCode::ALL {
            assert_ne!(exit_of(*code), Exit::Ok, "{code}");
            assert_ne!(exit_of(*code), Exit::Config, "{code}");
        }
        assert_eq!(exit_of(ErrorCode::UnknownAgent), Exit::NotFound);
        assert_eq!(exit_of(ErrorCode::InvalidKey), Exit::Denied);
        assert_eq!(exit_of(ErrorCode::TimedOut), Exit::Timeout);
        assert_eq!(exit_of(ErrorCode::Internal), Exit::Failure);
    }

    #[test]
    fn the_documentation_has_the_exit_code_of_every_answer() {
        let text = include_str!("../../docs/CONFIG.md");
        let (_, table) = text.split_once("## Exit codes").expect("its table");
        for code in ErrorCode::ALL {
            let word = format!("`{code}`");
            let row = table.lines().find(|line| line.contains(&word));
            let exit = exit_of(*code);
            let expected = format!("| {} |", exit as u8);
            match row {
                Some(row) => assert!(row.starts_with(&expected), "{code}: {row}"),
                None => assert_eq!(exit, Exit::Failure, "{code} is not documented"),
            }
        }
    }

    #[test]
    fn a_failure_says_what_mends_it() {
        let failure = Failure::of_api(ErrorBody::new(
            ErrorCode::UnknownAgent,
            "there is no agent x",
        ));
        assert_eq!(
            failure.to_string(),
            "error: there is no agent x (unknown_agent)\n    mend: openfang agent list"
        );
        assert_eq!(failure.to_json()["code"], "unknown_agent");
    }

    #[test]
    fn what_the_api_says_stays_one_line_and_one_sentence() {
        let mut body = ErrorBody::new(ErrorCode::DuplicateName, "There is a\nb already.");
        body.candidates = vec!["1".to_owned(), "2".to_owned()];
        body.hint = Some("Choose\u{1b} another.".to_owned());
        assert_eq!(
            Failure::of_api(body).to_string(),
            "error: There is a\u{fffd}b already: 1, 2 (duplicate_name)\n    mend: Choose\u{fffd} another."
        );
    }
}
