//! What is done to the nodes, and when.

use std::time::Duration;

use openfang_ofp::roster::Rng;

/// One thing that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// A node starts, for the first time or again.
    Start(usize),
    /// A node spawns an agent, and everyone is watched until they know.
    Spawn(usize),
    /// A process ends without a word; the machine closes its connections.
    Kill(usize),
    /// A machine vanishes; its connections stay open.
    Hang(usize),
    /// A machine that vanished goes on.
    Resume(usize),
    /// A process ends and its disk is lost, all but the key.
    LoseDisk(usize),
    /// A node leaves with a farewell.
    Leave(usize),
    /// Nodes below this number no longer hear the others.
    Partition(usize),
    /// A member makes up that many nodes, and tells everyone from now on.
    MakeUp(usize, usize),
    /// All nodes hear each other again, and are watched until they agree.
    Heal,
    /// Traffic is counted from here, as that of a mesh in which nothing happens.
    QuietBegins,
    /// Up to here.
    QuietEnds,
}

/// A run: what happens when, and what must hold.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    /// What is done, and how long after the beginning.
    pub(super) actions: Vec<(Duration, Action)>,
    /// How long it lasts; afterwards all nodes must agree.
    pub(super) length: Duration,
    /// Whether holding a steady node for dead fails the run.
    pub(super) no_false_deaths: bool,
}

/// The scenarios by name.
pub const NAMES: [&str; 9] = [
    "mixed",
    "brief",
    "spawns",
    "losses",
    "partition",
    "restarts",
    "steady",
    "disk-lost",
    "sybil",
];

/// Builds a scenario for a number of nodes. `None` for a name that is not one.
#[must_use]
pub(super) fn build(name: &str, nodes: usize, seconds: u64, rng: &mut Rng) -> Option<Scenario> {
    let name = NAMES.into_iter().find(|known| *known == name)?;
    // The last node comes when the lies are told.
    let late = usize::from(name == "sybil" && nodes > 1);
    let mut plan = Plan::joined(nodes - late, rng);
    match name {
        "mixed" => {
            plan.quiet(4);
            plan.spawns(40);
            plan.kills(3);
            plan.hangs(1);
            plan.partition();
            plan.pause(2);
            plan.spawns(5);
        }
        "brief" => {
            plan.quiet(1);
            plan.spawns(10);
            plan.kills(1);
            plan.hangs(1);
        }
        "spawns" => {
            plan.quiet(4);
            plan.spawns(100);
        }
        "losses" => {
            plan.kills(5);
            plan.hangs(2);
        }
        "partition" => plan.partition(),
        "restarts" => plan.restarts(),
        "disk-lost" => plan.disk_lost(),
        "sybil" => plan.sybil(late),
        _steady => plan.quiet(seconds.saturating_sub(plan.at.as_secs())),
    }
    let length = plan.at.max(Duration::from_secs(seconds));
    Some(Scenario {
        actions: plan.actions,
        length,
        no_false_deaths: true,
    })
}

/// Lines up actions one after another.
struct Plan<'a> {
    nodes: usize,
    rng: &'a mut Rng,
    at: Duration,
    actions: Vec<(Duration, Action)>,
}

/// Between two nodes that start: a thousand within ten seconds.
const START_EVERY: Duration = Duration::from_millis(10);
/// How long a mesh has to come together.
const SETTLE: Duration = Duration::from_secs(8);
/// How long a hung node is watched: until it is dead for everyone.
const HANG: Duration = Duration::from_secs(10);
/// How long a partition lasts: until each side has buried the other.
const PARTITION: Duration = Duration::from_secs(8);

impl<'a> Plan<'a> {
    fn joined(nodes: usize, rng: &'a mut Rng) -> Self {
        let mut plan = Self {
            nodes,
            rng,
            at: Duration::ZERO,
            actions: Vec::new(),
        };
        for node in 0..nodes {
            plan.step(Action::Start(node), START_EVERY);
        }
        plan.at += SETTLE;
        plan
    }

    fn step(&mut self, action: Action, pause: Duration) {
        self.actions.push((self.at, action));
        self.at += pause;
    }

    fn pause(&mut self, seconds: u64) {
        self.at += Duration::from_secs(seconds);
    }

    fn any(&mut self) -> usize {
        self.rng.index(self.nodes)
    }

    fn quiet(&mut self, seconds: u64) {
        self.step(Action::QuietBegins, Duration::from_secs(seconds));
        self.step(Action::QuietEnds, Duration::ZERO);
    }

    fn spawns(&mut self, count: usize) {
        for _nth in 0..count {
            let node = self.any();
            let pause = self
                .rng
                .between(Duration::from_millis(20), Duration::from_millis(180));
            self.step(Action::Spawn(node), pause);
        }
        self.pause(1);
    }

    fn kills(&mut self, count: usize) {
        for _nth in 0..count {
            let node = self.any();
            self.step(Action::Kill(node), Duration::from_secs(3));
            self.step(Action::Start(node), Duration::from_secs(2));
        }
    }

    fn hangs(&mut self, count: usize) {
        for _nth in 0..count {
            let node = self.any();
            self.step(Action::Hang(node), HANG);
            self.step(Action::Resume(node), Duration::from_secs(3));
        }
    }

    fn partition(&mut self) {
        let half = self.nodes / 2;
        self.step(Action::Partition(half), PARTITION / 2);
        if half > 0 {
            self.step(Action::Spawn(0), Duration::from_millis(100));
        }
        self.step(Action::Spawn(self.nodes - 1), PARTITION / 2);
        self.step(Action::Heal, Duration::from_secs(5));
    }

    fn restarts(&mut self) {
        for _nth in 0..5 {
            let node = self.any();
            self.step(Action::Kill(node), Duration::from_millis(200));
            self.step(Action::Start(node), Duration::from_secs(2));
        }
        let node = self.any();
        self.step(Action::Leave(node), Duration::from_secs(3));
        self.step(Action::Start(node), Duration::from_secs(3));
        for node in 0..self.nodes {
            self.step(Action::Kill(node), Duration::ZERO);
        }
        self.pause(1);
        for node in 0..self.nodes {
            self.step(Action::Start(node), START_EVERY);
        }
        self.pause(8);
    }

    fn disk_lost(&mut self) {
        for _nth in 0..3 {
            let node = self.any();
            self.step(Action::Spawn(node), Duration::from_millis(500));
            self.step(Action::LoseDisk(node), Duration::from_secs(2));
            self.step(Action::Start(node), Duration::from_secs(3));
        }
    }

    /// The last node that has started lies: first as many nodes as leave a full mesh, then as many as a
    /// roster holds. Honest nodes end and come back meanwhile, and one joins.
    fn sybil(&mut self, late: usize) {
        let liar = self.nodes - 1;
        self.step(Action::MakeUp(liar, 100), Duration::from_secs(15));
        self.lose_one_of(liar);
        self.step(Action::MakeUp(liar, 3_900), Duration::from_secs(20));
        self.lose_one_of(liar);
        self.step(Action::Start(liar + late), Duration::from_secs(10));
        self.lose_one_of(liar);
    }

    /// One of the first nodes ends and comes back, then the machine of one vanishes for a while.
    fn lose_one_of(&mut self, honest: usize) {
        if honest > 0 {
            let node = self.rng.index(honest);
            self.step(Action::Kill(node), Duration::from_secs(3));
            self.step(Action::Start(node), Duration::from_secs(5));
            let node = self.rng.index(honest);
            self.step(Action::Hang(node), HANG);
            self.step(Action::Resume(node), Duration::from_secs(3));
        }
    }
}
