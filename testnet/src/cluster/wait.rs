//! Waiting for a condition instead of for a time.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// Between two looks: short beside what is waited for, long beside what a look costs.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The condition did not hold in time.
#[derive(Debug, thiserror::Error)]
#[error("waited {waited:?} for {what}; last seen: {seen}")]
pub struct Expired {
    /// What was waited for.
    pub what: String,
    /// For how long.
    pub waited: Duration,
    /// What the last look showed.
    pub seen: String,
}

/// What a look saw instead of what it looked for.
#[derive(Debug, Clone)]
pub struct NotYet(pub String);

impl NotYet {
    /// Says what was seen.
    pub fn saw(what: impl std::fmt::Display) -> Self {
        Self(what.to_string())
    }
}

/// Looks again and again until `look` gives `Ok`, and returns its value and how long it took. Each
/// look that is not there yet says what it saw, so that a failure tells more than "timed out".
///
/// # Errors
/// [`Expired`] when it does not within `limit`.
pub async fn until<T, F, L>(
    what: &str,
    limit: Duration,
    mut look: L,
) -> Result<(T, Duration), Expired>
where
    L: FnMut() -> F,
    F: Future<Output = Result<T, NotYet>>,
{
    let started = Instant::now();
    let deadline = started + limit;
    let mut seen = "nothing yet".to_owned();
    loop {
        match timeout_at(deadline, look()).await {
            Ok(Ok(value)) => return Ok((value, started.elapsed())),
            Ok(Err(NotYet(what))) => seen = what,
            Err(_too_late) => {
                return Err(Expired {
                    what: what.to_owned(),
                    waited: limit,
                    seen,
                });
            }
        }
        sleep(LOOK_EVERY).await;
    }
}
