//! One write per burst: holds a flush back until the connection has nothing more to say.
//!
//! Yamux flushes after every frame, and each flush is one Noise message and one system call. With
//! many calls in flight that is the whole cost of a call. This layer sits between the two: bytes
//! written in one turn of the connection's task are kept, the task is woken again, and the flush
//! happens on that next turn, after every other task that was ready has added its frames.
//! Measured on two cores with 64 callers over one connection: see `docs/BENCHMARKS.md`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{AsyncRead, AsyncWrite};

/// What is owed to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owed {
    /// Nothing was written since the last flush.
    Nothing,
    /// Bytes were written and no flush was asked for since.
    Written,
    /// A flush was asked for in this turn of the task; it waits for the next. `quiet`: nothing was read
    /// or written since. Who asks again then does nothing but flush, as a connection that closes, and
    /// is not kept waiting.
    Deferred { quiet: bool },
    /// The turn in which the flush was asked for is over.
    Due,
}

/// A byte stream whose flushes are gathered.
#[derive(Debug)]
pub(super) struct Cork<C> {
    io: C,
    owed: Owed,
}

impl<C> Cork<C> {
    pub(super) fn new(io: C) -> Self {
        Self {
            io,
            owed: Owed::Nothing,
        }
    }

    /// The multiplexer is waiting for the peer: its turn ends here.
    fn on_turn_over(&mut self) {
        if matches!(self.owed, Owed::Deferred { .. }) {
            self.owed = Owed::Due;
        }
    }

    /// Bytes are read or written.
    fn on_traffic(&mut self) {
        if let Owed::Deferred { quiet } = &mut self.owed {
            *quiet = false;
        }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Cork<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.on_traffic();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if polled.is_pending() {
            self.on_turn_over();
        }
        polled
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Cork<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.on_traffic();
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        match (&polled, self.owed) {
            (Poll::Pending, _) => self.on_turn_over(),
            (Poll::Ready(Ok(_)), Owed::Nothing) => self.owed = Owed::Written,
            (Poll::Ready(_), _) => {}
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.owed {
            Owed::Written | Owed::Deferred { quiet: false } => {
                self.owed = Owed::Deferred { quiet: true };
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Owed::Nothing | Owed::Due | Owed::Deferred { quiet: true } => {
                let polled = Pin::new(&mut self.io).poll_flush(cx);
                if polled.is_ready() {
                    self.owed = Owed::Nothing;
                }
                polled
            }
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.owed = Owed::Due;
        Pin::new(&mut self.io).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::task::noop_waker;

    /// Records what reaches it.
    #[derive(Default)]
    struct Sink {
        written: usize,
        flushes: usize,
    }

    impl AsyncRead for Sink {
        fn poll_read(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            _buf: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Sink {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.written += buf.len();
            Poll::Ready(Ok(buf.len()))
        }
        fn poll_flush(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            Poll::Ready(Ok(()))
        }
        fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_burst_is_flushed_once_and_on_the_next_turn() {
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let mut cork = Cork::new(Sink::default());
        for _ in 0..10 {
            assert!(Pin::new(&mut cork).poll_write(&mut cx, b"frame").is_ready());
            assert!(Pin::new(&mut cork).poll_flush(&mut cx).is_pending());
        }
        assert!(
            Pin::new(&mut cork)
                .poll_read(&mut cx, &mut [0; 8])
                .is_pending()
        );
        assert_eq!((cork.io.written, cork.io.flushes), (50, 0));

        assert!(Pin::new(&mut cork).poll_flush(&mut cx).is_ready());
        assert_eq!(cork.io.flushes, 1);
    }

    #[test]
    fn who_does_nothing_but_flush_is_served() {
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let mut cork = Cork::new(Sink::default());
        assert!(Pin::new(&mut cork).poll_write(&mut cx, b"last").is_ready());
        assert!(Pin::new(&mut cork).poll_flush(&mut cx).is_pending());
        assert!(Pin::new(&mut cork).poll_flush(&mut cx).is_ready());
        assert_eq!(cork.io.flushes, 1);
    }
}
