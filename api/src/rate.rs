//! How often something may be done, by address, with a bound on the addresses that are told apart.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::failures::Client;

/// What the public witness allows: a burst for a log and its mirrors after a restart, and then more than
/// the head that a log hands in every second at most.
pub(crate) const OF_WITNESS: Allowance = Allowance {
    burst: NonZeroU32::new(60).expect("60 is not zero"),
    refill: Duration::from_millis(100),
    shared_burst: NonZeroU32::new(200).expect("200 is not zero"),
    shared_refill: Duration::from_millis(10),
};
/// Addresses with a state of their own: about 100 bytes each. Later ones share one.
const CLIENTS_MAX: usize = 4096;
/// Every so many requests without room, the addresses that have recovered are forgotten.
const SWEEP_EVERY: u32 = 256;

/// How often something may be done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    /// How often an address may do it at once.
    pub(crate) burst: NonZeroU32,
    /// After which time it may do it once more.
    pub(crate) refill: Duration,
    /// The same for all addresses together that have no state of their own.
    pub(crate) shared_burst: NonZeroU32,
    /// See [`Self::refill`].
    pub(crate) shared_refill: Duration,
}

/// A limit. Its size does not grow with the number of addresses.
pub(crate) struct Rate<C: Clock = DefaultClock> {
    own: RateLimiter<Client, DashMapStateStore<Client>, C, NoOpMiddleware<C::Instant>>,
    shared: RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>,
    clock: C,
    /// Requests met while there was no room for another address.
    crowded: AtomicU32,
}

impl Rate<DefaultClock> {
    pub(crate) fn new(allowance: Allowance) -> Self {
        Self::with_clock(allowance, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Rate<C> {
    pub(crate) fn with_clock(allowance: Allowance, clock: C) -> Self {
        let quota = |period, burst| {
            Quota::with_period(period)
                .expect("the periods of the allowances are not zero")
                .allow_burst(burst)
        };
        Self {
            own: RateLimiter::new(
                quota(allowance.refill, allowance.burst),
                DashMapStateStore::default(),
                clock.clone(),
            ),
            shared: RateLimiter::direct_with_clock(
                quota(allowance.shared_refill, allowance.shared_burst),
                clock.clone(),
            ),
            clock,
            crowded: AtomicU32::new(0),
        }
    }

    /// Counts a request. `Err` says for how long the client should wait.
    pub(crate) fn charge(&self, client: Client) -> Result<(), Duration> {
        let is_full = || self.own.len() >= CLIENTS_MAX;
        if is_full() {
            let count = self.crowded.fetch_add(1, Ordering::Relaxed);
            if count.is_multiple_of(SWEEP_EVERY) {
                self.own.retain_recent();
            }
        }
        let verdict = if is_full() {
            self.shared.check()
        } else {
            self.own.check_key(&client)
        };
        verdict.map_err(|until| until.wait_time_from(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    use governor::clock::FakeRelativeClock;

    fn client(last: u8) -> Client {
        Client::of(Some(IpAddr::from([192, 0, 2, last])))
    }

    fn numbered(number: u16) -> Client {
        Client::of(Some(IpAddr::from([0x2001, 0xdb8, 0, number, 0, 0, 0, 1])))
    }

    #[test]
    fn one_address_is_slowed_down_and_another_is_not() {
        let clock = FakeRelativeClock::default();
        let rate = Rate::with_clock(OF_WITNESS, clock.clone());
        for _ in 0..OF_WITNESS.burst.get() {
            assert_eq!(rate.charge(client(1)), Ok(()));
        }
        assert_eq!(rate.charge(client(1)), Err(OF_WITNESS.refill));
        assert_eq!(rate.charge(client(2)), Ok(()));
        clock.advance(OF_WITNESS.refill);
        assert_eq!(rate.charge(client(1)), Ok(()));
    }

    #[test]
    fn many_addresses_do_not_grow_the_state_and_share_one_allowance() {
        let rate = Rate::with_clock(OF_WITNESS, FakeRelativeClock::default());
        let mut refused = 0;
        for number in 0..6000 {
            refused += u32::from(rate.charge(numbered(number)).is_err());
        }
        assert!(rate.own.len() <= CLIENTS_MAX);
        assert_eq!(refused, 6000 - 4096 - OF_WITNESS.shared_burst.get());
    }
}
