//! What a failed request means, and whether to try again.

use std::time::Duration;

use super::wire::Reported;
use crate::ModelError;
use crate::config::ModelLimits;

/// The most characters of a server's own words that are kept.
const MESSAGE_CHARS_MAX: usize = 256;

/// A failed attempt.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: ModelError,
    pub(super) retry: Retry,
}

/// Whether another attempt is worth it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    Never,
    Soon,
    After(Duration),
}

impl Failure {
    pub(super) fn fatal(error: ModelError) -> Self {
        Self {
            error,
            retry: Retry::Never,
        }
    }

    pub(super) fn retryable(error: ModelError) -> Self {
        Self {
            error,
            retry: Retry::Soon,
        }
    }

    /// What a server says in the middle of a stream that began well.
    pub(super) fn reported(reported: &Reported) -> Self {
        if reported.is_context_too_long() {
            return Self::fatal(ModelError::ContextTooLong);
        }
        let message = clean(&reported.message, MESSAGE_CHARS_MAX);
        let error = ModelError::Reported { message };
        match reported.code.parse::<u16>() {
            Ok(status) if !is_retryable(status) => Self::fatal(error),
            Ok(_) | Err(_) => Self::retryable(error),
        }
    }

    /// What an HTTP status other than 200 says.
    pub(super) fn of_status(
        status: u16,
        retry_after: Option<Duration>,
        body: &[u8],
        model: &str,
    ) -> Self {
        let reported = Reported::of(body);
        let error = match status {
            401 | 403 => ModelError::Unauthorized { status },
            404 => ModelError::NotFound {
                model: clean(model, MESSAGE_CHARS_MAX),
            },
            413 => ModelError::ContextTooLong,
            429 => ModelError::RateLimited { retry_after },
            500.. => ModelError::Server { status },
            _ if reported.is_context_too_long() => ModelError::ContextTooLong,
            _ => ModelError::Rejected {
                status,
                message: clean(&reported.message, MESSAGE_CHARS_MAX),
            },
        };
        let retry = match (is_retryable(status), retry_after) {
            (false, _) => Retry::Never,
            (true, Some(pause)) => Retry::After(pause),
            (true, None) => Retry::Soon,
        };
        Self { error, retry }
    }

    /// Returns the pause before attempt number `next` (from 2), or `None` when it is not worth it.
    /// `unit` is drawn from 0 to 1.
    pub(super) fn pause(&self, next: u32, limits: &ModelLimits, unit: f64) -> Option<Duration> {
        if next > limits.attempts {
            return None;
        }
        match self.retry {
            Retry::Never => None,
            Retry::After(pause) => (pause <= RETRY_AFTER_MAX).then_some(pause),
            Retry::Soon => {
                let doublings = next.saturating_sub(2).min(20);
                let bound = limits.backoff_base.saturating_mul(1 << doublings);
                Some(bound.min(limits.backoff_max).mul_f64(unit.clamp(0.0, 1.0)))
            }
        }
    }
}

/// A server that asks for a longer pause is not waited for: its answer is passed on instead.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

fn is_retryable(status: u16) -> bool {
    matches!(status, 408 | 409 | 425 | 429 | 500..)
}

/// Reads `retry-after-ms` and `retry-after` in seconds. A date is not read.
pub(super) fn retry_after(millis: Option<&str>, seconds: Option<&str>) -> Option<Duration> {
    let number = |text: Option<&str>| text?.trim().parse::<f64>().ok();
    let millis = number(millis).or_else(|| number(seconds).map(|seconds| seconds * 1000.0))?;
    let sound = millis.is_finite() && (0.0..=86_400_000.0).contains(&millis);
    sound.then(|| Duration::from_secs_f64(millis / 1000.0))
}

/// Makes a text of a server fit for a log line: no control characters, at most so many characters.
pub(super) fn clean(text: &str, chars_max: usize) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(chars_max).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_meaning() {
        let check = |status: u16, body: &str, expected: ModelError, retry: Retry| {
            let failure = Failure::of_status(status, None, body.as_bytes(), "m");
            assert_eq!(
                (failure.error, failure.retry),
                (expected, retry),
                "{status}"
            );
        };
        check(
            401,
            "",
            ModelError::Unauthorized { status: 401 },
            Retry::Never,
        );
        check(
            403,
            "",
            ModelError::Unauthorized { status: 403 },
            Retry::Never,
        );
        check(
            404,
            "",
            ModelError::NotFound { model: "m".into() },
            Retry::Never,
        );
        check(
            429,
            "",
            ModelError::RateLimited { retry_after: None },
            Retry::Soon,
        );
        check(500, "", ModelError::Server { status: 500 }, Retry::Soon);
        check(529, "", ModelError::Server { status: 529 }, Retry::Soon);
        check(413, "", ModelError::ContextTooLong, Retry::Never);
        check(
            400,
            r#"{"error":{"code":"context_length_exceeded"}}"#,
            ModelError::ContextTooLong,
            Retry::Never,
        );
        check(
            400,
            r#"{"error":{"type":"exceed_context_size_error","code":400}}"#,
            ModelError::ContextTooLong,
            Retry::Never,
        );
        let rejected = |message: &str| ModelError::Rejected {
            status: 422,
            message: message.into(),
        };
        check(
            422,
            r#"{"error":"no\u0007"}"#,
            rejected("no "),
            Retry::Never,
        );
        check(422, r#"{"message":"why"}"#, rejected("why"), Retry::Never);
        check(422, "<html>", rejected(""), Retry::Never);
        let rejected = |status| ModelError::Rejected {
            status,
            message: String::new(),
        };
        check(408, "", rejected(408), Retry::Soon);
        check(409, "", rejected(409), Retry::Soon);
        check(425, "", rejected(425), Retry::Soon);
    }

    #[test]
    fn pauses_grow_within_bounds_and_heed_the_server() {
        let limits = ModelLimits {
            attempts: 4,
            backoff_base: Duration::from_millis(100),
            backoff_max: Duration::from_millis(300),
            ..ModelLimits::default()
        };
        let soon = Failure::retryable(ModelError::Cut);
        let check = |next: u32, unit: f64, expected: Option<u64>| {
            assert_eq!(
                soon.pause(next, &limits, unit),
                expected.map(Duration::from_millis),
                "{next}"
            );
        };
        check(2, 1.0, Some(100));
        check(2, 0.5, Some(50));
        check(3, 1.0, Some(200));
        check(4, 1.0, Some(300));
        check(5, 1.0, None);
        let after = |seconds| Failure {
            error: ModelError::Cut,
            retry: Retry::After(Duration::from_secs(seconds)),
        };
        assert_eq!(
            after(7).pause(2, &limits, 0.0),
            Some(Duration::from_secs(7))
        );
        assert_eq!(after(61).pause(2, &limits, 0.0), None);
        assert_eq!(Failure::fatal(ModelError::Cut).pause(2, &limits, 0.0), None);
    }

    #[test]
    fn the_wished_pause_is_read_in_both_units() {
        let check = |millis: Option<&str>, seconds: Option<&str>, expected: Option<u64>| {
            assert_eq!(
                retry_after(millis, seconds),
                expected.map(Duration::from_millis)
            );
        };
        check(Some("250"), Some("9"), Some(250));
        check(None, Some("1.5"), Some(1500));
        check(None, Some("Wed, 21 Oct 2015 07:28:00 GMT"), None);
        check(None, Some("-1"), None);
        check(None, Some("1e99"), None);
        check(None, Some("NaN"), None);
        check(None, None, None);
    }
}
