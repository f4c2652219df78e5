//! What a peer has sent on its substreams and nobody has read yet: counted, and bounded.
//!
//! Yamux grants each substream a window of 256 KiB and keeps what arrives until somebody reads it. A
//! peer that opens many substreams and says more than anybody wants to hear would fill the memory
//! with it. So the frames are counted on their way from the socket to Yamux, the reads on their way
//! out, and while too much is unread the socket is not read: TCP holds the peer back.
//!
//! Only the substreams of the peer count. What arrives on one of this node's own is the answer to
//! something it asked; an answer that is read slowly must not hold up the connection.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::{AsyncRead, AsyncWrite};

/// How much of one connection may be unread: a few windows, so that a burst is not slowed.
const UNREAD_BYTES_MAX: usize = 1 << 20;
/// What a frame costs besides its bytes: it is kept as it came, in an allocation of its own.
const FRAME_COST_BYTES: usize = 64;

/// A Yamux header: version, kind, two bytes of flags, four of the substream, four of the length.
const HEADER_BYTES: usize = 12;
const KIND_DATA: u8 = 0;
const FLAG_SYN: u16 = 1;

/// The count of one connection.
#[derive(Debug, Default)]
pub(super) struct Gauge(Mutex<Unread>);

#[derive(Debug, Default)]
struct Unread {
    substreams: BTreeMap<u32, Kept>,
    bytes: usize,
    waiting: Option<Waker>,
}

/// What is unread of one substream.
#[derive(Debug, Default, Clone, Copy)]
struct Kept {
    bytes: usize,
    frames: usize,
}

impl Kept {
    fn cost(self) -> usize {
        self.bytes + self.frames * FRAME_COST_BYTES
    }
}

impl Gauge {
    fn lock(&self) -> MutexGuard<'_, Unread> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_header(&self, header: &[u8; HEADER_BYTES]) {
        let [_version, kind, f0, f1, i0, i1, i2, i3, ..] = *header;
        let id = u32::from_be_bytes([i0, i1, i2, i3]);
        let mut unread = self.lock();
        if u16::from_be_bytes([f0, f1]) & FLAG_SYN != 0 {
            unread.substreams.entry(id).or_default();
        }
        let Some(kept) = unread.substreams.get_mut(&id) else {
            return;
        };
        if kind == KIND_DATA {
            let before = kept.cost();
            kept.bytes += body_bytes(header);
            kept.frames += 1;
            let after = kept.cost();
            unread.bytes += after - before;
        }
    }

    /// Somebody has read so much of a substream.
    pub(super) fn on_read(&self, id: u32, bytes: usize) {
        let mut unread = self.lock();
        let Some(kept) = unread.substreams.get_mut(&id) else {
            return;
        };
        let before = kept.cost();
        kept.bytes = kept.bytes.saturating_sub(bytes);
        if kept.bytes == 0 {
            kept.frames = 0;
        }
        let after = kept.cost();
        unread.give_back(before - after);
    }

    /// A substream is gone, and what was unread of it.
    pub(super) fn on_gone(&self, id: u32) {
        let mut unread = self.lock();
        if let Some(kept) = unread.substreams.remove(&id) {
            unread.give_back(kept.cost());
        }
    }

    /// Waits until there is room.
    fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut unread = self.lock();
        if unread.bytes <= UNREAD_BYTES_MAX {
            return Poll::Ready(());
        }
        unread.waiting = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Unread {
    fn give_back(&mut self, bytes: usize) {
        self.bytes -= bytes;
        if self.bytes <= UNREAD_BYTES_MAX
            && let Some(waiting) = self.waiting.take()
        {
            waiting.wake();
        }
    }
}

/// How many bytes follow a header.
fn body_bytes(header: &[u8; HEADER_BYTES]) -> usize {
    let [_, kind, .., l0, l1, l2, l3] = *header;
    if kind != KIND_DATA {
        return 0;
    }
    usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX)
}

/// A byte stream on its way to Yamux, whose frames are counted.
#[derive(Debug)]
pub(super) struct Gauged<C> {
    io: C,
    gauge: Arc<Gauge>,
    header: [u8; HEADER_BYTES],
    header_filled: usize,
    body_left: usize,
}

impl<C> Gauged<C> {
    pub(super) fn new(io: C, gauge: Arc<Gauge>) -> Self {
        Self {
            io,
            gauge,
            header: [0; HEADER_BYTES],
            header_filled: 0,
            body_left: 0,
        }
    }

    fn count(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.body_left.min(bytes.len());
            self.body_left -= skipped;
            bytes = &bytes[skipped..];
            let taken = bytes.len().min(HEADER_BYTES - self.header_filled);
            self.header[self.header_filled..][..taken].copy_from_slice(&bytes[..taken]);
            self.header_filled += taken;
            bytes = &bytes[taken..];
            if self.header_filled == HEADER_BYTES {
                self.header_filled = 0;
                self.body_left = body_bytes(&self.header);
                self.gauge.on_header(&self.header);
            }
        }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Gauged<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.gauge.poll_room(cx));
        let len = std::task::ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.count(&buf[..len]);
        Poll::Ready(Ok(len))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Gauged<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::task::noop_waker;

    fn frame(kind: u8, flags: u16, id: u32, len: usize) -> Vec<u8> {
        let mut bytes = vec![0, kind];
        bytes.extend_from_slice(&flags.to_be_bytes());
        bytes.extend_from_slice(&id.to_be_bytes());
        let stated = u32::try_from(len).expect("short");
        bytes.extend_from_slice(&stated.to_be_bytes());
        if kind == KIND_DATA {
            bytes.resize(bytes.len() + len, 7);
        }
        bytes
    }

    fn reads(gauged: &mut Gauged<&[u8]>, buffer: &mut [u8]) -> Poll<usize> {
        let waker = noop_waker();
        let read = Pin::new(gauged).poll_read(&mut Context::from_waker(&waker), buffer);
        read.map(|read| read.expect("a slice"))
    }

    #[test]
    fn a_peer_is_held_back_until_what_it_sent_is_read() {
        let gauge = Arc::new(Gauge::default());
        let mut sent = frame(1, FLAG_SYN, 1, 0);
        for _frame in 0..9 {
            sent.extend(frame(KIND_DATA, 0, 1, 128 * 1024));
        }
        let mut gauged = Gauged::new(sent.as_slice(), Arc::clone(&gauge));
        let mut buffer = [0; 1_000];
        let mut taken = 0;
        while let Poll::Ready(len) = reads(&mut gauged, &mut buffer) {
            assert!(len > 0, "everything was taken");
            taken += len;
        }
        assert!(taken <= UNREAD_BYTES_MAX + 2 * 128 * 1024, "{taken}");
        gauge.on_read(1, 100);
        assert!(reads(&mut gauged, &mut buffer).is_pending());
        gauge.on_read(1, 128 * 1024);
        assert!(reads(&mut gauged, &mut buffer).is_ready());
    }

    #[test]
    fn many_small_frames_cost_more_than_their_bytes() {
        let gauge = Arc::new(Gauge::default());
        let mut sent = frame(KIND_DATA, FLAG_SYN, 3, 1);
        for _frame in 0..UNREAD_BYTES_MAX / FRAME_COST_BYTES {
            sent.extend(frame(KIND_DATA, 0, 3, 1));
        }
        let mut gauged = Gauged::new(sent.as_slice(), Arc::clone(&gauge));
        while reads(&mut gauged, &mut [0; 512]).is_ready() {}
        gauge.on_gone(3);
        assert!(reads(&mut gauged, &mut [0; 512]).is_ready());
        assert_eq!(gauge.lock().bytes, 0);
    }

    #[test]
    fn the_answers_to_own_questions_do_not_count() {
        let gauge = Arc::new(Gauge::default());
        let mut sent = frame(1, 2, 2, 0);
        sent.extend(frame(KIND_DATA, 0, 2, 2 * UNREAD_BYTES_MAX));
        let mut gauged = Gauged::new(sent.as_slice(), Arc::clone(&gauge));
        while reads(&mut gauged, &mut [0; 4_096]) != Poll::Ready(0) {}
        assert_eq!(gauge.lock().bytes, 0);
    }
}
