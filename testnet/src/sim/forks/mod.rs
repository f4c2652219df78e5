//! Logs that contradict themselves, among logs of machines that crash.
//!
//! Meshes of a few real states; in each, some nodes fork, roll back or truncate their log, and show it
//! so that nobody sees both sides from them; the others crash, lose what they never showed, restart
//! with their roster or without, and set their clocks. All that contradict themselves must be convicted
//! by all, by evidence, and nobody else by anyone. Everything follows from the seed.

mod log;
mod mesh;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use openfang_ofp::roster::Rng;
use serde::Serialize;

use self::mesh::{Excuse, Lie, Mesh};

/// How many nodes a mesh has.
const NODES: usize = 8;
/// How many of them contradict themselves.
const LIARS: usize = 4;
/// How long it may take until all know, in simulated time: a question that is not answered is asked for
/// half a minute.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long each mesh runs: crashes are to be no evidence.
const AT_LEAST: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What to run.
#[derive(Debug, Clone)]
pub struct ForkOptions {
    /// How many logs contradict themselves, at least.
    pub injected: u64,
    /// The seed of everything.
    pub seed: u64,
}

/// What a run has shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ForkReport {
    /// What did not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The seed.
    pub seed: u64,
    /// How many logs contradicted themselves.
    pub injected: u64,
    /// The same by what they did.
    pub kinds: BTreeMap<&'static str, u64>,
    /// By what evidence they were convicted.
    pub evidence: BTreeMap<String, u64>,
    /// How often an honest node crashed and came back.
    pub crashes: u64,
    /// Simulated time until all knew, in milliseconds: half of all, 99 in a hundred, the worst.
    pub known_ms: [u64; 3],
}

/// How a log contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Two histories of one size, each shown to half of the others.
    Split,
    /// Two histories of different sizes, each shown to half of the others.
    Fork,
    /// An earlier head, later.
    Rollback,
    /// Entries are cut off, and others take their place.
    Truncation,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Split, Self::Fork, Self::Rollback, Self::Truncation];

    fn as_str(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::Fork => "fork",
            Self::Rollback => "rollback",
            Self::Truncation => "truncation",
        }
    }
}

/// Runs until so many logs have contradicted themselves, or something does not hold.
#[must_use]
pub fn simulate_forks(options: &ForkOptions) -> ForkReport {
    let mut rng = Rng::from_number(options.seed);
    let mut report = ForkReport {
        failure: None,
        seed: options.seed,
        injected: 0,
        kinds: BTreeMap::new(),
        evidence: BTreeMap::new(),
        crashes: 0,
        known_ms: [0; 3],
    };
    let mut times = Vec::new();
    while report.injected < options.injected && report.failure.is_none() {
        let outcome = one_mesh(Rng::new(rng.seed()), &mut report, &mut times);
        report.failure = outcome.err().map(|why| why.to_string());
    }
    times.sort_unstable();
    let at = |percent: usize| {
        let place = times.len() * percent / 100;
        let last = times.len().saturating_sub(1);
        times.get(place.min(last)).copied().unwrap_or_default()
    };
    report.known_ms = [at(50), at(99), at(100)];
    report
}

/// What does not hold.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error("mesh {mesh}: a {kind} of node {of} is not known to node {at} after {seconds} s")]
    Missed {
        mesh: u64,
        kind: &'static str,
        of: usize,
        at: usize,
        seconds: u64,
    },
    #[error("mesh {mesh}: node {at} convicts node {of}, which is honest")]
    Convicted { mesh: u64, at: usize, of: usize },
    #[error("mesh {mesh}: node {at} holds the log of node {of} for inconsistent, which is honest")]
    Accused { mesh: u64, at: usize, of: usize },
    #[error("mesh {mesh}: what node {at} has written is no evidence")]
    NoEvidence { mesh: u64, at: usize },
}

/// Runs one mesh: the first nodes lie, the others crash.
fn one_mesh(mut rng: Rng, report: &mut ForkReport, times: &mut Vec<u64>) -> Result<(), Wrong> {
    let number = report.injected / u64::try_from(LIARS).unwrap_or(1);
    let mut mesh = Mesh::new(NODES, Rng::new(rng.seed()));
    settle(&mut mesh, &mut rng);
    let mut told = [(Kind::Split, 0); LIARS];
    for (at, told) in told.iter_mut().enumerate() {
        let kind = Kind::ALL[rng.index(Kind::ALL.len())];
        contradict(&mut mesh, (at, kind), &mut rng);
        *told = (kind, mesh.now.0);
        *report.kinds.entry(kind.as_str()).or_default() += 1;
        report.injected += 1;
    }
    let mut known = [None; LIARS];
    let end = mesh.now + PATIENCE;
    let least = mesh.now + AT_LEAST;
    while mesh.now < least || (known.iter().any(Option::is_none) && mesh.now < end) {
        report.crashes += u64::from(disturb(&mut mesh, &mut rng));
        mesh.pass(LOOK_EVERY);
        for (of, known) in known.iter_mut().enumerate() {
            let all = (LIARS..NODES).all(|at| mesh.convicts(at, of) == Some(true));
            if all {
                known.get_or_insert(mesh.now.0);
            }
        }
    }
    for (of, known) in known.into_iter().enumerate() {
        let (kind, since) = told[of];
        let Some(at) = known else {
            let unaware = |at: &usize| mesh.convicts(*at, of) != Some(true);
            return Err(Wrong::Missed {
                mesh: number,
                kind: kind.as_str(),
                of,
                at: (LIARS..NODES).find(unaware).unwrap_or_default(),
                seconds: PATIENCE.as_secs(),
            });
        };
        times.push(at - since);
    }
    check(&mesh, number, report)
}

/// Checks that nobody was accused who did nothing, and that what was written is what it says.
fn check(mesh: &Mesh, number: u64, report: &mut ForkReport) -> Result<(), Wrong> {
    for at in 0..NODES {
        for of in (LIARS..NODES).filter(|of| *of != at) {
            if mesh.convicts(at, of) == Some(true) {
                return Err(Wrong::Convicted {
                    mesh: number,
                    at,
                    of,
                });
            }
            let verdict = (at, mesh.nodes[of].id);
            if mesh.verdicts.contains(&verdict) {
                return Err(Wrong::Accused {
                    mesh: number,
                    at,
                    of,
                });
            }
        }
        for file in &mesh.nodes[at].files {
            let evidence = openfang_audit::evidence::Evidence::open(file);
            let evidence = evidence.map_err(|_none| Wrong::NoEvidence { mesh: number, at })?;
            if at == NODES - 1 {
                *report
                    .evidence
                    .entry(evidence.kind().to_string())
                    .or_default() += 1;
            }
        }
    }
    Ok(())
}

/// Lets all logs grow a little, and all heads be proved.
fn settle(mesh: &mut Mesh, rng: &mut Rng) {
    for _round in 0..2 {
        mesh.pass(Duration::from_secs(2));
        for at in 0..NODES {
            let more = 1 + rng.index(30);
            mesh.nodes[at].history.grow(more, rng);
            mesh.announce(at);
        }
    }
    mesh.pass(Duration::from_secs(3));
}

/// Has a node contradict itself.
fn contradict(mesh: &mut Mesh, (at, kind): (usize, Kind), rng: &mut Rng) {
    let clock = mesh.clock();
    let honest = mesh.nodes[at].history.clone();
    let size = honest.size();
    let mut other = honest.cut(rng.index(size));
    let mut one = honest.clone();
    let time = |rng: &mut Rng| (rng.index(3) > 0).then_some(clock);
    // Where the log goes back without entries of another history, only a time shows it.
    let (sizes, times) = match kind {
        Kind::Split => {
            let to = size + 1 + rng.index(20);
            one.grow(to - size, rng);
            other.grow(to - other.size(), rng);
            ((to, to), (time(rng), time(rng)))
        }
        Kind::Fork => {
            let to = size + 1 + rng.index(20);
            one.grow(rng.index(10), rng);
            other.grow(to - other.size(), rng);
            ((one.size(), to), (time(rng), time(rng)))
        }
        Kind::Rollback => {
            let back = other.size();
            ((size, back), (Some(clock), Some(clock + 1)))
        }
        Kind::Truncation => {
            let to = size + rng.index(20);
            other.grow(to - other.size(), rng);
            ((size, to), (time(rng), time(rng)))
        }
    };
    let keys = mesh.nodes[at].keys.clone();
    let ones = (one.head(&keys, sizes.0, times.0), one.clone());
    let others = (other.head(&keys, sizes.1, times.1), other.clone());
    let excuses = [Excuse::Silence, Excuse::Refusal, Excuse::Nonsense];
    let excuse = excuses[rng.index(excuses.len())];
    // Each side is shown to one honest node at least.
    let border = LIARS + 1 + rng.index(NODES - LIARS - 1);
    let shown = (0..NODES).filter(|to| *to != at).map(|to| {
        let side = if to < border { &ones } else { &others };
        (to, side.clone())
    });
    let shown = shown.collect();
    let node = &mut mesh.nodes[at];
    node.copies = vec![honest, one, other];
    node.lie = Some(Lie { shown, excuse });
    // Whatever the state says, the neighbours get what was chosen for them.
    mesh.announce(at);
}

/// Something happens to an honest node, now and then. Returns whether it crashed.
fn disturb(mesh: &mut Mesh, rng: &mut Rng) -> bool {
    let at = LIARS + rng.index(NODES - LIARS);
    match rng.index(12) {
        0..=2 => {
            mesh.crash(at);
            let node = &mut mesh.nodes[at];
            // What no head has covered may be lost.
            node.history.grow(rng.index(5), rng);
            let floor = node.floor;
            node.history = node.history.cut(floor);
            node.history.grow(rng.index(5), rng);
            mesh.pass(Duration::from_millis(rng.below(1_500)));
            mesh.start(at);
            true
        }
        3..=6 => {
            let more = rng.index(20);
            mesh.nodes[at].history.grow(more, rng);
            mesh.announce(at);
            false
        }
        7 => {
            mesh.clock_was_ahead(at, rng.below(20));
            false
        }
        _quiet => false,
    }
}

impl fmt::Display for ForkReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [half, most, all] = self.known_ms;
        writeln!(
            f,
            "seed {}: {} logs contradicted themselves, {} honest crashes",
            self.seed, self.injected, self.crashes
        )?;
        let list = |counts: Vec<String>| counts.join(", ");
        let kinds = self
            .kinds
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"));
        let by = self
            .evidence
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"));
        writeln!(f, "  done      {}", list(kinds.collect()))?;
        writeln!(f, "  proved    {}", list(by.collect()))?;
        write!(
            f,
            "  known to all after   p50 {half} ms   p99 {most} ms   max {all} ms"
        )?;
        match &self.failure {
            None => write!(f, "\n  all found, nobody else accused"),
            Some(why) => write!(f, "\n  FAILED with seed {}: {why}", self.seed),
        }
    }
}
