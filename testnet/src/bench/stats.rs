//! Figures of a measurement: medians and rates, never a single time.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Times of single operations, and how long they took together.
#[derive(Debug, Clone)]
pub(super) struct Samples {
    times: Vec<Duration>,
    wall: Duration,
}

impl Samples {
    /// Takes the times of all callers, and the wall time of the run.
    pub(super) fn new(mut times: Vec<Duration>, wall: Duration) -> Self {
        times.sort_unstable();
        Self { times, wall }
    }

    /// The time that `part` (0 to 1) of the operations stayed below.
    pub(super) fn quantile(&self, part: f64) -> Duration {
        if self.times.is_empty() {
            return Duration::ZERO;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into a list of samples"
        )]
        let at = ((self.times.len() - 1) as f64 * part).round() as usize;
        self.times[at]
    }

    /// Operations a second.
    pub(super) fn rate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a count of samples")]
        let count = self.times.len() as f64;
        count / self.wall.as_secs_f64().max(f64::EPSILON)
    }

    /// As JSON: microseconds and operations a second.
    pub(super) fn to_json(&self) -> Value {
        let micros = |part| self.quantile(part).as_micros();
        json!({
            "count": self.times.len(),
            "p50_us": micros(0.5),
            "p99_us": micros(0.99),
            "per_second": self.rate().round(),
        })
    }
}

/// Reads the clock that measurements are made with.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Runs `callers` loops of `each` operations side by side and collects their times.
pub(super) async fn side_by_side<F, Fut, E>(
    callers: usize,
    each: usize,
    make: F,
) -> Result<Samples, E>
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<Vec<Duration>, E>> + Send + 'static,
    E: Send + 'static,
{
    let mut tasks = tokio::task::JoinSet::new();
    let started = now();
    for caller in 0..callers {
        tasks.spawn(make(caller));
    }
    let mut times = Vec::with_capacity(callers * each);
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok(result) => times.extend(result?),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
    Ok(Samples::new(times, started.elapsed()))
}
