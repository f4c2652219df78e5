//! Failures: what went wrong, what mends it, and the exit code.

use std::fmt;
use std::io;
use std::process::ExitCode;

use openfang_node::config::ConfigErrors;
use openfang_node::home::HomeError;
use openfang_schema::{ErrorBody, ErrorCode};

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
}

impl Failure {
    /// Says what went wrong and where.
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
            mend: None,
            closed_pipe: false,
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

    /// Returns how the program ends.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// An answer of the API that is not a success.
    pub(crate) fn of_api(body: &ErrorBody) -> Self {
        let mut what = body.error.clone();
        if !body.candidates.is_empty() {
            what = format!("{what}: {}", body.candidates.join(", "));
        }
        let what = what.trim_end_matches('.');
        let failure = Self::new(exit_of(body.code), format!("{what} ({})", body.code));
        match mend_of(body.code).or(body.hint.as_deref()) {
            Some(mend) => failure.mend(mend),
            None => failure,
        }
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

const MEND_KEY: &str = "set api_key in config.toml to the key of the running node, or OPENFANG_API_KEY; after a change: openfang restart";
const MEND_ASLEEP: &str = "openfang join TICKET, or put what `openfang keygen --network` prints into network.shared_secret and: openfang restart";

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
            Some(mend) => write!(f, "\n    mend: {mend}"),
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
        Self::new(Exit::Failure, why.to_string())
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
    fn a_failure_says_what_mends_it() {
        let failure = Failure::of_api(&ErrorBody::new(
            ErrorCode::UnknownAgent,
            "there is no agent x",
        ));
        assert_eq!(
            failure.to_string(),
            "error: there is no agent x (unknown_agent)\n    mend: openfang agent list"
        );
    }
}
