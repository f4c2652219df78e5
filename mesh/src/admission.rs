//! Who may knock: bounds on connections that have not passed the gate.
//!
//! A node that knows the secret must get in while others hammer on the door. So connections that are
//! being set up are counted in all and per address, new ones per address are paced, and part of the
//! room is kept for addresses that the roster knows. Loopback counts as known: whoever can connect
//! from there is on this machine already.
//!
//! TCP and QUIC are two doors, each with places of its own. The address of a TCP connection is its
//! peer's, or the handshake would not have come about; that of a QUIC handshake's first packet can be
//! forged, a member's too. So what happens at the one says nothing about the other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;

use governor::clock::DefaultClock;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use libp2p::swarm::{ConnectionDenied, ConnectionId};
use openfang_id::Transport;

use crate::config::Limits;

/// How many different addresses the pace keeper remembers before it forgets those at rest.
const PACED_ADDRESSES_MAX: usize = 4_096;
/// How much more often a known address may knock.
const KNOWN_FACTOR: u32 = 16;

/// Why a connection was turned away before anything was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    /// The places for strangers are taken.
    #[error("too many connections are being set up")]
    Crowded,
    /// This address has too many connections that are being set up.
    #[error("too many connections from one address are being set up")]
    CrowdedAddress,
    /// This address knocks too often.
    #[error("connections from one address come too fast")]
    TooFast,
}

/// The counts.
pub(crate) struct Admission {
    known: BTreeSet<IpAddr>,
    tcp: Door,
    quic: Door,
}

/// Connections over one transport that are being set up.
struct Door {
    limits: Limits,
    pending: BTreeMap<ConnectionId, (IpAddr, bool)>,
    per_address: BTreeMap<IpAddr, u32>,
    strangers: u32,
    pace: RateLimiter<IpAddr, DashMapStateStore<IpAddr>, DefaultClock>,
    pace_known: RateLimiter<IpAddr, DashMapStateStore<IpAddr>, DefaultClock>,
}

impl Admission {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            known: BTreeSet::new(),
            tcp: Door::new(limits.clone()),
            quic: Door::new(limits),
        }
    }

    /// Sets the addresses of members.
    pub(crate) fn set_known(&mut self, known: BTreeSet<IpAddr>) {
        self.known = known;
    }

    /// A connection arrives.
    pub(crate) fn on_knock(
        &mut self,
        id: ConnectionId,
        transport: Transport,
        from: IpAddr,
    ) -> Result<(), Denied> {
        let known = from.is_loopback() || self.known.contains(&from);
        let door = match transport {
            Transport::Tcp => &mut self.tcp,
            Transport::Quic => &mut self.quic,
        };
        door.on_knock(id, from, known)
    }

    /// A connection that was being set up is done with it, well or not.
    pub(crate) fn on_settled(&mut self, id: ConnectionId) {
        self.tcp.on_settled(id);
        self.quic.on_settled(id);
    }
}

impl Door {
    fn new(limits: Limits) -> Self {
        let times = |rate: NonZeroU32| rate.saturating_mul(KNOWN_FACTOR_NZ);
        let quota = Quota::per_second(limits.knocks_per_second).allow_burst(limits.knock_burst);
        let known_quota = Quota::per_second(times(limits.knocks_per_second))
            .allow_burst(times(limits.knock_burst));
        Self {
            limits,
            pending: BTreeMap::new(),
            per_address: BTreeMap::new(),
            strangers: 0,
            pace: RateLimiter::dashmap(quota),
            pace_known: RateLimiter::dashmap(known_quota),
        }
    }

    fn on_knock(&mut self, id: ConnectionId, from: IpAddr, known: bool) -> Result<(), Denied> {
        let address = bucket(from);
        let all = u32::try_from(self.pending.len()).unwrap_or(u32::MAX);
        let no_place = !known && self.strangers >= self.limits.pending_strangers_max;
        if no_place || all >= self.limits.pending_incoming_max {
            return Err(Denied::Crowded);
        }
        let per_address_max = if known {
            self.limits
                .pending_per_address_max
                .saturating_mul(KNOWN_FACTOR)
        } else {
            self.limits.pending_per_address_max
        };
        let count = self.per_address.entry(address).or_insert(0);
        if *count >= per_address_max {
            return Err(Denied::CrowdedAddress);
        }
        let pace = if known { &self.pace_known } else { &self.pace };
        if pace.len() > PACED_ADDRESSES_MAX {
            pace.retain_recent();
        }
        if pace.check_key(&address).is_err() {
            if *count == 0 {
                self.per_address.remove(&address);
            }
            return Err(Denied::TooFast);
        }
        *count += 1;
        self.strangers += u32::from(!known);
        self.pending.insert(id, (address, known));
        Ok(())
    }

    fn on_settled(&mut self, id: ConnectionId) {
        let Some((address, known)) = self.pending.remove(&id) else {
            return;
        };
        self.strangers -= u32::from(!known);
        if let Some(count) = self.per_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&address);
            }
        }
    }
}

impl From<Denied> for ConnectionDenied {
    fn from(denied: Denied) -> Self {
        Self::new(denied)
    }
}

const KNOWN_FACTOR_NZ: NonZeroU32 = match NonZeroU32::new(KNOWN_FACTOR) {
    Some(factor) => factor,
    None => NonZeroU32::MIN,
};

/// One subscriber of IPv6 has a whole /64: it counts as one address (RFC 6177).
fn bucket(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => {
                let s = ip.segments();
                Ipv6Addr::new(s[0], s[1], s[2], s[3], 0, 0, 0, 0).into()
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(admission: &mut Admission, n: usize, from: IpAddr) -> Result<(), Denied> {
        admission.on_knock(id(n), Transport::Tcp, from)
    }

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn strangers_cannot_take_the_places_of_members() {
        let limits = Limits {
            pending_strangers_max: 8,
            ..Limits::default()
        };
        let mut admission = Admission::new(limits);
        admission.set_known(BTreeSet::from([ip("192.0.2.200")]));
        for n in 0..8 {
            let from = ip(&format!("198.51.100.{n}"));
            assert_eq!(tcp(&mut admission, n, from), Ok(()));
        }
        assert_eq!(
            tcp(&mut admission, 8, ip("198.51.100.99")),
            Err(Denied::Crowded)
        );
        assert_eq!(tcp(&mut admission, 9, ip("192.0.2.200")), Ok(()));
        admission.on_settled(id(3));
        assert_eq!(tcp(&mut admission, 10, ip("198.51.100.99")), Ok(()));
    }

    #[test]
    fn what_knocks_over_quic_takes_no_place_of_tcp() {
        let limits = Limits {
            pending_incoming_max: 10,
            pending_strangers_max: 8,
            ..Limits::default()
        };
        let mut admission = Admission::new(limits);
        let member = ip("192.0.2.200");
        admission.set_known(BTreeSet::from([member]));
        let mut n = 0;
        let mut forge = |admission: &mut Admission, from| {
            n += 1;
            admission.on_knock(id(n), Transport::Quic, from)
        };
        for last in 0..8 {
            let from = ip(&format!("198.51.100.{last}"));
            assert_eq!(forge(&mut admission, from), Ok(()));
        }
        assert_eq!(
            forge(&mut admission, ip("198.51.100.99")),
            Err(Denied::Crowded)
        );
        // The member's own address is forged, too, until its reserve is used up.
        while forge(&mut admission, member).is_ok() {}
        for n in 100..110 {
            assert_eq!(tcp(&mut admission, n, member), Ok(()));
        }
        assert_eq!(tcp(&mut admission, 110, member), Err(Denied::Crowded));
        admission.on_settled(id(100));
        assert_eq!(tcp(&mut admission, 111, ip("198.51.100.1")), Ok(()));
    }

    #[test]
    fn one_address_has_few_places_and_an_ipv6_subscriber_is_one_address() {
        let mut admission = Admission::new(Limits::default());
        let max = usize::try_from(Limits::default().pending_per_address_max).expect("small");
        for n in 0..max {
            let from = ip(&format!("2001:db8:1:2::{n}"));
            assert_eq!(tcp(&mut admission, n, from), Ok(()));
        }
        assert_eq!(
            tcp(&mut admission, max, ip("2001:db8:1:2:ffff::1")),
            Err(Denied::CrowdedAddress)
        );
        assert_eq!(tcp(&mut admission, max, ip("2001:db8:1:3::1")), Ok(()));
    }

    #[test]
    fn an_address_that_knocks_too_often_is_turned_away() {
        let mut admission = Admission::new(Limits::default());
        let burst = usize::try_from(Limits::default().knock_burst.get()).expect("small");
        let from = ip("203.0.113.7");
        for n in 0..burst {
            assert_eq!(tcp(&mut admission, n, from), Ok(()));
            admission.on_settled(id(n));
        }
        assert_eq!(tcp(&mut admission, burst, from), Err(Denied::TooFast));
        assert!(admission.tcp.per_address.is_empty());
    }
}
