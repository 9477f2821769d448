//! A stream that fails when nothing has moved for too long.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Passes everything on, and fails with [`io::ErrorKind::TimedOut`] once somebody has waited and no byte has moved in
/// either direction for the limit.
#[derive(Debug)]
pub struct IdleLimit<S> {
    stream: S,
    limit: Option<(Duration, Pin<Box<Sleep>>)>,
    last_moved: Instant,
}

impl<S> IdleLimit<S> {
    /// Begins to count now. `None`: no limit.
    pub fn new(stream: S, limit: Option<Duration>) -> IdleLimit<S> {
        let limit = limit.map(|limit| (limit, Box::pin(tokio::time::sleep(limit))));
        IdleLimit { stream, limit, last_moved: Instant::now() }
    }

    /// Looks at the clock when an operation has to wait, and at nothing when it does not.
    fn judge<T>(&mut self, polled: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.last_moved = Instant::now();
            return polled;
        }
        let Some((limit, sleep)) = &mut self.limit else { return polled };
        loop {
            ready!(sleep.as_mut().poll(cx));
            let until = self.last_moved + *limit;
            if until <= Instant::now() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            sleep.as_mut().reset(until);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for IdleLimit<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.judge(polled, cx)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for IdleLimit<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.judge(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn silence_ends_after_the_limit() {
        let (_client, server) = tokio::io::duplex(64);
        let began = Instant::now();
        let error = IdleLimit::new(server, Some(LIMIT)).read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_begins_the_count_anew() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = IdleLimit::new(server, Some(LIMIT));
        let began = Instant::now();
        let slow = async {
            tokio::time::sleep(LIMIT * 9 / 10).await;
            client.write_all(b"x").await.unwrap();
            std::future::pending::<()>().await;
        };
        let reads = async {
            assert_eq!(server.read_u8().await.unwrap(), b'x');
            server.read_u8().await.unwrap_err()
        };
        tokio::select! {
            error = reads => assert_eq!(error.kind(), io::ErrorKind::TimedOut),
            () = slow => unreachable!("it waits for ever"),
        }
        assert_eq!(began.elapsed(), LIMIT * 19 / 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_given_up() {
        let (_client, server) = tokio::io::duplex(1);
        let error = IdleLimit::new(server, Some(LIMIT)).write_all(b"too much").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_it_waits() {
        let (_client, server) = tokio::io::duplex(64);
        let mut server = IdleLimit::new(server, None);
        let waited = tokio::time::timeout(Duration::from_secs(1_000_000), server.read_u8()).await;
        assert!(waited.is_err());
    }
}
