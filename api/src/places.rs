//! Who may hold a connection, and for how long.
//!
//! A connection belongs to a *stranger* until one of its requests was let in, by the key or by its
//! place. Strangers have part of the room, each address has part of that, and the room of this
//! machine is not taken by others. Where there is none left the stranger that has been idle for
//! longest goes: whoever has something to ask gets its answer, whoever only holds on does not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::failures::Client;

/// Open connections: a few per local program and a few hundred behind a proxy; each costs about
/// 20 KiB.
const CONNECTIONS_MAX: usize = 1024;
/// Of these, how many are kept for programs on this machine.
const LOOPBACK_RESERVE: usize = 128;
/// Connections of strangers.
const STRANGERS_MAX: usize = 512;
/// Connections of strangers from one address (IPv6: one /64).
const STRANGERS_PER_ADDRESS: usize = 64;
/// The same for this machine, where a proxy may stand in for many.
const STRANGERS_ON_LOOPBACK: usize = 256;
/// How long a stranger may be silent: before its first request, and after each answer.
pub(crate) const STRANGER_IDLE: Duration = Duration::from_secs(5);

/// The connections of one server.
#[derive(Debug)]
pub(crate) struct Places {
    started: Instant,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    taken: u64,
    /// By age: the oldest first.
    seats: BTreeMap<u64, Arc<Seat>>,
}

/// What is known of one connection.
#[derive(Debug)]
struct Seat {
    client: Client,
    /// One of its requests was let in.
    trusted: AtomicBool,
    /// Requests that are being answered.
    busy: AtomicU32,
    /// Since when it is not busy, in milliseconds of the server.
    idle_since_ms: AtomicU64,
    evicted: CancellationToken,
}

impl Seat {
    fn is_stranger(&self) -> bool {
        !self.trusted.load(Ordering::Relaxed)
    }

    fn is_idle_stranger(&self) -> bool {
        self.is_stranger() && self.busy.load(Ordering::Relaxed) == 0
    }
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    number: u64,
    seat: Arc<Seat>,
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct Answering(Arc<Place>);

impl Places {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            open: Mutex::default(),
        })
    }

    /// Takes a place for a new connection, where need be that of an idle stranger.
    pub(crate) fn take(self: &Arc<Self>, client: Client) -> Option<Place> {
        let mut open = self.lock();
        let of_client = |seat: &Seat| seat.client == client && seat.is_stranger();
        if open.count(of_client) >= strangers_max(client) {
            open.evict(|seat| seat.client == client)?;
        } else if open.count(Seat::is_stranger) >= STRANGERS_MAX {
            open.evict(|_| true)?;
        }
        let here = client.is_loopback();
        let others = open.count(|seat| !seat.client.is_loopback());
        let is_full = open.seats.len() >= CONNECTIONS_MAX
            || !here && others >= CONNECTIONS_MAX - LOOPBACK_RESERVE;
        if is_full {
            open.evict(|seat| here || !seat.client.is_loopback())?;
        }
        let seat = Arc::new(Seat {
            client,
            trusted: AtomicBool::new(false),
            busy: AtomicU32::new(0),
            idle_since_ms: AtomicU64::new(self.now_ms()),
            evicted: CancellationToken::new(),
        });
        let number = open.taken;
        open.taken += 1;
        open.seats.insert(number, Arc::clone(&seat));
        drop(open);
        Some(Place {
            places: Arc::clone(self),
            number,
            seat,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn strangers_max(client: Client) -> usize {
    if client.is_loopback() {
        STRANGERS_ON_LOOPBACK
    } else {
        STRANGERS_PER_ADDRESS
    }
}

impl Open {
    fn count(&self, wanted: impl Fn(&Seat) -> bool) -> usize {
        self.seats.values().filter(|seat| wanted(seat)).count()
    }

    /// Ends the connection of the oldest idle stranger of this kind; `None` when there is none.
    fn evict(&mut self, wanted: impl Fn(&Seat) -> bool) -> Option<()> {
        let mut seats = self.seats.iter();
        let (number, _) = seats.find(|(_, seat)| seat.is_idle_stranger() && wanted(seat))?;
        let number = *number;
        let seat = self.seats.remove(&number)?;
        seat.evicted.cancel();
        Some(())
    }
}

impl Place {
    /// A request arrives.
    pub(crate) fn answering(self: &Arc<Self>) -> Answering {
        self.seat.busy.fetch_add(1, Ordering::Relaxed);
        Answering(Arc::clone(self))
    }

    /// Whether the connection should end with this answer, because strangers are many.
    pub(crate) fn should_close(&self) -> bool {
        if !self.seat.is_stranger() {
            return false;
        }
        let open = self.places.lock();
        let client = self.seat.client;
        let own = open.count(|seat| seat.client == client && seat.is_stranger());
        own > strangers_max(client) / 2 || open.count(Seat::is_stranger) > STRANGERS_MAX / 2
    }

    /// Waits until this connection has to go; for ever once it is trusted.
    pub(crate) async fn must_go(&self) {
        tokio::select! {
            () = self.seat.evicted.cancelled() => {}
            () = self.outstayed() => {}
        }
    }

    async fn outstayed(&self) {
        loop {
            let since = self.seat.idle_since_ms.load(Ordering::Relaxed);
            let until = self.places.started + Duration::from_millis(since) + STRANGER_IDLE;
            if Instant::now() < until {
                tokio::time::sleep_until(until).await;
            } else if !self.seat.is_stranger() {
                std::future::pending().await
            } else if self.seat.is_idle_stranger() {
                return;
            } else {
                tokio::time::sleep(STRANGER_IDLE).await;
            }
        }
    }
}

impl Answering {
    /// One of the requests of this connection was let in: it is no stranger any more.
    pub(crate) fn trust(&self) {
        self.0.seat.trusted.store(true, Ordering::Relaxed);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let Place { places, seat, .. } = &*self.0;
        seat.idle_since_ms.store(places.now_ms(), Ordering::Relaxed);
        seat.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().seats.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Client {
        Client::of(Some(text.parse().expect("an address")))
    }

    fn elsewhere(n: usize) -> Client {
        client(&format!("198.51.{}.{}", n / 250, n % 250))
    }

    fn is_open(place: &Place) -> bool {
        !place.seat.evicted.is_cancelled()
    }

    /// Takes a place and lets one request in.
    fn trusted(places: &Arc<Places>, client: Client) -> Arc<Place> {
        let place = Arc::new(places.take(client).expect("a place"));
        place.answering().trust();
        place
    }

    #[tokio::test]
    async fn one_address_has_few_places_and_its_oldest_idle_one_makes_room() {
        let places = Places::new();
        let all: Vec<_> = (0..STRANGERS_PER_ADDRESS + 1)
            .map(|n| client(&format!("2001:db8::{n:x}")))
            .map(|client| places.take(client).expect("a place"))
            .collect();
        assert!(!is_open(&all[0]));
        assert!(all[1..].iter().all(is_open));
        assert!(places.take(client("2001:db8:0:1::1")).is_some());
        assert!(is_open(&all[1]), "another address has places of its own");
    }

    #[tokio::test]
    async fn who_is_being_answered_or_trusted_keeps_its_place() {
        let places = Places::new();
        let from = client("203.0.113.9");
        let friend = trusted(&places, from);
        let all: Vec<_> = (0..STRANGERS_PER_ADDRESS)
            .map(|_| Arc::new(places.take(from).expect("a place")))
            .collect();
        let busy: Vec<_> = all.iter().map(Place::answering).collect();
        assert!(places.take(from).is_none());
        drop(busy);
        assert!(places.take(from).is_some());
        assert!(is_open(&friend) && !is_open(&all[0]));
    }

    #[tokio::test]
    async fn strangers_from_everywhere_leave_room_for_those_with_the_key() {
        let places = Places::new();
        let flood: Vec<_> = (0..3 * STRANGERS_MAX)
            .map(|n| places.take(elsewhere(n)).expect("the oldest makes room"))
            .collect();
        assert_eq!(places.lock().seats.len(), STRANGERS_MAX);
        assert!(flood[2 * STRANGERS_MAX..].iter().all(is_open));
        let last = Arc::new(places.take(elsewhere(0)).expect("a place"));
        assert!(last.should_close(), "strangers are many");
        last.answering().trust();
        assert!(!last.should_close());
    }

    #[tokio::test]
    async fn this_machine_has_a_reserve() {
        let places = Places::new();
        let friends: Vec<_> = (0..CONNECTIONS_MAX - LOOPBACK_RESERVE)
            .map(|n| trusted(&places, elsewhere(n % 7)))
            .collect();
        assert!(places.take(elsewhere(8)).is_none());
        let here: Vec<_> = (0..LOOPBACK_RESERVE)
            .map(|_| trusted(&places, client("127.0.0.1")))
            .collect();
        assert_eq!(places.lock().seats.len(), CONNECTIONS_MAX);
        assert!(places.take(client("::1")).is_none());
        drop((friends, here));
        assert!(places.lock().seats.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_that_is_silent_goes_and_a_friend_stays() {
        let places = Places::new();
        let stranger = Arc::new(places.take(elsewhere(1)).expect("a place"));
        let friend = trusted(&places, elsewhere(2));
        let began = Instant::now();
        stranger.must_go().await;
        assert_eq!(began.elapsed(), STRANGER_IDLE);
        let answering = stranger.answering();
        let waited = tokio::time::timeout(STRANGER_IDLE * 3, stranger.must_go()).await;
        assert!(waited.is_err(), "it is being answered");
        drop(answering);
        stranger.must_go().await;
        let waited = tokio::time::timeout(STRANGER_IDLE * 100, friend.must_go()).await;
        assert!(waited.is_err());
    }
}
