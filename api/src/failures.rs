//! What failed attempts cost: a client that fails often is told to wait, and the audit log gets
//! one entry for many failures instead of many entries.
//!
//! The right key is always let through. A key has at least 128 bits, so that slowing guesses down
//! protects nothing; what is bounded here is the work and the log space that a flood can cause,
//! and a stranger who shares an address with the operator (behind a proxy, all do) must not be
//! able to lock the operator out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};

use crate::auth::Denial;
use crate::rate::{Allowance, Rate};

/// How often a client may fail.
pub(crate) const ALLOWED: Allowance = Allowance {
    burst: NonZeroU32::new(20).expect("20 is not zero"),
    refill: Duration::from_secs(3),
    shared_burst: NonZeroU32::new(200).expect("200 is not zero"),
    shared_refill: Duration::from_millis(300),
};
/// How long failures of one client are gathered into one entry.
const GATHER: Duration = Duration::from_secs(60);
/// Clients that get an entry of their own per [`GATHER`]; the rest is counted together.
const ENTRIES_MAX: usize = 32;

/// A client as far as its address tells: an IPv4 address, or the /64 that one IPv6 host owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Client(IpAddr);

impl Client {
    pub(crate) fn of(peer: Option<IpAddr>) -> Self {
        let peer = peer.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        Self(match peer.to_canonical() {
            IpAddr::V4(ip) => IpAddr::V4(ip),
            IpAddr::V6(ip) if ip.is_loopback() => IpAddr::V6(ip),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        })
    }
}

impl Client {
    /// Whether it is a program on this machine, or something that passes on what others say.
    pub(crate) fn is_loopback(self) -> bool {
        self.0.is_loopback()
    }
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            IpAddr::V6(ip) if !ip.is_loopback() && !ip.is_unspecified() => write!(f, "{ip}/64"),
            IpAddr::V4(_) | IpAddr::V6(_) => self.0.fmt(f),
        }
    }
}

/// What is to be written into the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where the failures came from.
    pub(crate) from: String,
    /// Why the last of them failed.
    pub(crate) denial: Denial,
    /// How many there were.
    pub(crate) count: u64,
}

/// The memory of failed attempts. Its size does not grow with the number of clients.
pub(crate) struct Failures<C: Clock = DefaultClock> {
    rate: Rate<C>,
    gathered: Mutex<Gathered>,
}

/// Pure: failures of the current window.
#[derive(Debug, Default)]
struct Gathered {
    since: Duration,
    clients: BTreeMap<Client, Pending>,
    others: Option<Pending>,
}

/// Failures that no entry tells of yet.
#[derive(Debug, Clone, Copy)]
struct Pending {
    denial: Denial,
    count: u64,
}

impl Failures<DefaultClock> {
    pub(crate) fn new() -> Self {
        Self::with_clock(DefaultClock::default())
    }
}

impl<C: Clock + Clone> Failures<C> {
    pub(crate) fn with_clock(clock: C) -> Self {
        Self {
            rate: Rate::with_clock(ALLOWED, clock),
            gathered: Mutex::default(),
        }
    }

    /// Counts a failure. `Err` says for how long the client should wait.
    pub(crate) fn charge(&self, client: Client) -> Result<(), Duration> {
        self.rate.charge(client)
    }

    /// Notes a failure at `now`, a time since any fixed start, and returns what is to be logged.
    pub(crate) fn note(&self, client: Client, denial: Denial, now: Duration) -> Vec<Entry> {
        let mut gathered = self.lock();
        let mut entries = gathered.close_window(now);
        entries.extend(gathered.add(client, denial));
        entries
    }

    /// Returns what is to be logged now that the window may have ended.
    pub(crate) fn flush(&self, now: Duration) -> Vec<Entry> {
        self.lock().close_window(now)
    }

    /// Returns the end of the current window, when something waits for it.
    pub(crate) fn window_end(&self) -> Option<Duration> {
        let gathered = self.lock();
        gathered
            .clients
            .values()
            .any(|pending| pending.count > 0)
            .then_some(gathered.since + GATHER)
            .or(gathered.others.map(|_| gathered.since + GATHER))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gathered {
    /// The first failure of a client is told at once, later ones of the window together.
    fn add(&mut self, client: Client, denial: Denial) -> Option<Entry> {
        if let Some(pending) = self.clients.get_mut(&client) {
            pending.count += 1;
            pending.denial = denial;
            return None;
        }
        if self.clients.len() < ENTRIES_MAX {
            self.clients.insert(client, Pending { denial, count: 0 });
            return Some(Entry {
                from: client.to_string(),
                denial,
                count: 1,
            });
        }
        let count = self.others.map_or(0, |pending| pending.count) + 1;
        self.others = Some(Pending { denial, count });
        None
    }

    fn close_window(&mut self, now: Duration) -> Vec<Entry> {
        if now < self.since + GATHER {
            return Vec::new();
        }
        self.since = now;
        let told = |from: String, pending: Pending| Entry {
            from,
            denial: pending.denial,
            count: pending.count,
        };
        std::mem::take(&mut self.clients)
            .into_iter()
            .filter(|(_, pending)| pending.count > 0)
            .map(|(client, pending)| told(client.to_string(), pending))
            .chain(
                self.others
                    .take()
                    .map(|pending| told("several addresses".to_owned(), pending)),
            )
            .collect()
    }
}

impl<C: Clock> std::fmt::Debug for Failures<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Failures").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    fn client(last: u8) -> Client {
        Client::of(Some(IpAddr::from([192, 0, 2, last])))
    }

    fn numbered(number: u16) -> Client {
        Client::of(Some(IpAddr::from([0x2001, 0xdb8, 0, number, 0, 0, 0, 1])))
    }

    #[test]
    fn a_client_that_fails_often_waits_and_another_does_not() {
        let clock = FakeRelativeClock::default();
        let failures = Failures::with_clock(clock.clone());
        for _ in 0..ALLOWED.burst.get() {
            assert_eq!(failures.charge(client(1)), Ok(()));
        }
        assert_eq!(failures.charge(client(1)), Err(ALLOWED.refill));
        assert_eq!(failures.charge(client(2)), Ok(()));
        clock.advance(ALLOWED.refill);
        assert_eq!(failures.charge(client(1)), Ok(()));
        assert!(failures.charge(client(1)).is_err());
    }

    #[test]
    fn many_clients_share_one_allowance() {
        let failures = Failures::with_clock(FakeRelativeClock::default());
        let mut refused = 0;
        for number in 0..6000 {
            refused += u32::from(failures.charge(numbered(number)).is_err());
        }
        assert_eq!(refused, 6000 - 4096 - ALLOWED.shared_burst.get());
    }

    #[test]
    fn addresses_of_one_host_are_one_client() {
        let of = |text: &str| Client::of(Some(text.parse().expect("an address")));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_eq!(of("2001:db8::1").to_string(), "2001:db8::/64");
        assert_eq!(of("::1").to_string(), "::1");
    }

    #[test]
    fn a_flood_of_one_client_is_two_entries() {
        let failures = Failures::with_clock(FakeRelativeClock::default());
        let start = GATHER * 5;
        let entry = |count| Entry {
            from: "192.0.2.1".to_owned(),
            denial: Denial::InvalidKey,
            count,
        };
        let mut told = Vec::new();
        for _ in 0..1000 {
            told.extend(failures.note(client(1), Denial::InvalidKey, start));
        }
        assert_eq!(told, vec![entry(1)]);
        assert_eq!(failures.window_end(), Some(start + GATHER));
        assert_eq!(failures.flush(start + GATHER / 2), vec![]);
        assert_eq!(failures.flush(start + GATHER), vec![entry(999)]);
        assert_eq!(failures.flush(start + GATHER * 2), vec![]);
        assert_eq!(failures.window_end(), None);
    }

    #[test]
    fn a_flood_of_many_clients_is_a_bounded_number_of_entries() {
        let failures = Failures::with_clock(FakeRelativeClock::default());
        let start = GATHER * 5;
        let mut told = Vec::new();
        for number in 0..5000 {
            told.extend(failures.note(numbered(number), Denial::KeyRequired, start));
        }
        assert_eq!(told.len(), ENTRIES_MAX);
        let rest = failures.flush(start + GATHER);
        assert_eq!(
            rest,
            vec![Entry {
                from: "several addresses".to_owned(),
                denial: Denial::KeyRequired,
                count: 5000 - 32,
            }]
        );
    }
}
