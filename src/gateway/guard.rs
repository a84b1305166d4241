//! Deadlines below the protocols: the whole header, idleness, and a client that does not read (design, section 7).
//!
//! What is read and written is the same for both protocols; so the stream itself keeps them.
//! A timer is armed once and looked at again when it fires: a call on a living connection touches no timer.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::gateway::leaving::Left;
use crate::telemetry::metrics::ConnectionEnd;

/// What the guard needs to know of the calls on its connection.
#[derive(Debug, Default)]
pub struct Activity {
    /// Calls whose head was read, since the connection began.
    begun: AtomicU32,
    /// Calls whose answer is not yet complete.
    live: AtomicU32,
    /// Something that was to be written does not go out.
    blocked: AtomicBool,
    /// The next answer is to be the last.
    closing: AtomicBool,
    /// Why the guard ended the connection: HTTP/2 keeps the kind of an error only.
    cut: OnceLock<Cut>,
}

impl Activity {
    /// From now on each answer says that it is the last.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Calls whose head was read so far.
    pub fn begun(&self) -> u32 {
        self.begun.load(Ordering::Relaxed)
    }

    /// What the guard ended the connection for.
    pub fn cut(&self) -> Option<Cut> {
        self.cut.get().copied()
    }

    /// No call is being served, and every answer went out to its last byte.
    pub fn is_quiet(&self) -> bool {
        self.live.load(Ordering::Relaxed) == 0 && !self.blocked.load(Ordering::Relaxed)
    }
}

/// One call on a connection, from its head to the end of its answer.
pub struct InCall(Arc<Activity>);

impl InCall {
    pub fn begin(activity: &Arc<Activity>) -> Self {
        activity.begun.fetch_add(1, Ordering::Relaxed);
        activity.live.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for InCall {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a guard ended its connection.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the connection was cut: {}", .0.name())]
pub struct Cut(pub ConnectionEnd);

impl From<Cut> for io::Error {
    fn from(cut: Cut) -> Self {
        Self::new(io::ErrorKind::TimedOut, cut)
    }
}

/// How long each phase of a connection may last.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    pub whole_header: Duration,
    pub idle: Duration,
    /// A body below this rate, in bytes per second, is cut …
    pub slow_rate: u64,
    /// … once it has been that slow for this long.
    pub slow_after: Duration,
}

/// What the connection waits for while a read is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The next call. The number tells one wait from the next.
    Idle(u32),
    /// The rest of a head whose first bytes have come.
    Header(u32),
    /// A call is being served; its own deadlines hold.
    Serving,
}

pub struct Guard<S> {
    stream: S,
    /// Read while the protocol was chosen; handed out first.
    early: Bytes,
    activity: Arc<Activity>,
    deadlines: Deadlines,
    /// Over HTTP/2 what comes are frames and not heads: between them the connection is idle.
    multiplexed: bool,
    /// The number of calls begun when the unparsed bytes came.
    unparsed_at: Option<u32>,
    phase: Phase,
    since: Instant,
    read_timer: Option<Pin<Box<Sleep>>>,
    slow_write: Option<SlowWrite>,
    /// Bytes that have left, where more may be taken than leaves: under TLS.
    left: Option<Left>,
    /// What was taken has not left.
    waits_to_leave: bool,
}

/// The time and bytes since the client began to read more slowly than we write.
struct SlowWrite {
    since: Instant,
    bytes: u64,
    /// Where bytes are counted as they leave: how many had.
    left_before: u64,
    timer: Pin<Box<Sleep>>,
}

impl<S> Guard<S> {
    pub fn new(stream: S, early: Bytes, activity: Arc<Activity>, deadlines: Deadlines, multiplexed: bool) -> Self {
        let unparsed_at = (!early.is_empty() && !multiplexed).then_some(0);
        let (phase, since) = (Phase::Serving, Instant::now());
        let (read_timer, slow_write) = (None, None);
        let (left, waits_to_leave) = (None, false);
        Self {
            stream,
            early,
            activity,
            deadlines,
            multiplexed,
            unparsed_at,
            phase,
            since,
            read_timer,
            slow_write,
            left,
            waits_to_leave,
        }
    }

    /// Counts what leaves the stream, where that is less than it takes.
    pub fn counting(mut self, left: Option<Left>) -> Self {
        self.left = left;
        self
    }

    /// Takes note of what was read.
    fn took(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.multiplexed {
            // Any frame, a PING too, shows that an HTTP/2 client is there.
            self.phase = Phase::Serving;
            return;
        }
        if self.unparsed_at.is_none() && self.activity.live.load(Ordering::Relaxed) == 0 {
            self.unparsed_at = Some(self.activity.begun.load(Ordering::Relaxed));
        }
    }

    fn phase_now(&mut self) -> Phase {
        let begun = self.activity.begun.load(Ordering::Relaxed);
        if self.unparsed_at.is_some_and(|at| at != begun) {
            self.unparsed_at = None;
        }
        if self.activity.live.load(Ordering::Relaxed) > 0 {
            Phase::Serving
        } else if self.unparsed_at.is_some() {
            Phase::Header(begun)
        } else {
            Phase::Idle(begun)
        }
    }

    /// Called while a read is pending: `Ready` when the phase has lasted too long.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let phase = self.phase_now();
        let (limit, end) = match phase {
            Phase::Serving => {
                self.phase = phase;
                self.look_again(cx);
                return Poll::Pending;
            }
            Phase::Idle(_) => (self.deadlines.idle, ConnectionEnd::Idle),
            Phase::Header(_) => (self.deadlines.whole_header, ConnectionEnd::WholeHeader),
        };
        if phase != self.phase {
            (self.phase, self.since) = (phase, Instant::now());
        }
        let (deadline, pace) = (self.since + limit, self.pace());
        let next = deadline.min(self.since + pace);
        let timer = self.read_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if now >= deadline {
                return Poll::Ready(self.cut_for(end));
            }
            timer.as_mut().reset(deadline.min(now + pace));
        }
        Poll::Pending
    }

    /// HTTP/2 does not read anew when a call ends, so that nobody would notice how long the connection is idle then: the
    /// timer goes on meanwhile, and finds it out.
    fn look_again(&mut self, cx: &mut Context<'_>) {
        let pace = self.pace();
        let timer = match &mut self.read_timer {
            Some(timer) if !timer.is_elapsed() => return,
            Some(timer) => {
                timer.as_mut().reset(Instant::now() + pace);
                timer
            }
            none => none.insert(Box::pin(tokio::time::sleep(pace))),
        };
        // Not ready: it was set just now. This is what makes it wake us.
        let _ = timer.as_mut().poll(cx);
    }

    /// How late idleness may be noticed.
    fn pace(&self) -> Duration {
        self.deadlines.idle / 4
    }

    fn cut_for(&self, end: ConnectionEnd) -> io::Error {
        let cut = Cut(end);
        let _ = self.activity.cut.set(cut);
        cut.into()
    }

    /// Called while something does not go out: `Ready` when the client has read too slowly for too long.
    fn poll_slow_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Deadlines { slow_rate, slow_after, .. } = self.deadlines;
        let left = self.left.as_ref().map(Left::bytes);
        let slow = self.slow_write.get_or_insert_with(|| {
            self.activity.blocked.store(true, Ordering::Relaxed);
            let since = Instant::now();
            let timer = Box::pin(tokio::time::sleep_until(since + slow_after));
            SlowWrite { since, bytes: 0, left_before: left.unwrap_or_default(), timer }
        });
        while slow.timer.as_mut().poll(cx).is_ready() {
            let bytes = left.map_or(slow.bytes, |left| left.saturating_sub(slow.left_before));
            if bytes < slow_rate.saturating_mul(slow_after.as_secs().max(1)) {
                return Poll::Ready(self.cut_for(ConnectionEnd::SlowBody));
            }
            (slow.since, slow.bytes, slow.left_before) = (slow.since + slow_after, 0, left.unwrap_or_default());
            slow.timer.as_mut().reset(slow.since + slow_after);
        }
        Poll::Pending
    }

    fn guard_write(
        &mut self,
        cx: &mut Context<'_>,
        asked: usize,
        wrote: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(taken) = wrote else {
            return self.poll_slow_write(cx).map(Err);
        };
        if let (Some(slow), Ok(bytes)) = (&mut self.slow_write, &taken) {
            slow.bytes += *bytes as u64;
            if *bytes == asked && !self.waits_to_leave {
                self.all_left();
            }
        }
        Poll::Ready(taken)
    }

    /// The client reads as fast as we write.
    fn all_left(&mut self) {
        if self.slow_write.take().is_some() {
            self.activity.blocked.store(false, Ordering::Relaxed);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.early.is_empty() {
            let early = this.early.split_to(this.early.len().min(into.remaining()));
            into.put_slice(&early);
            this.took(&early);
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, into) {
            Poll::Ready(Ok(())) => {
                this.took(into.filled().get(before..).unwrap_or_default());
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => this.poll_deadline(cx).map(Err),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.guard_write(cx, bytes.len(), wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.guard_write(cx, slices.iter().map(|slice| slice.len()).sum(), wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        // Under TLS what was taken may still be here.
        self.waits_to_leave = flushed.is_pending();
        if self.waits_to_leave {
            return self.poll_slow_write(cx).map(Err);
        }
        self.all_left();
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(cx) {
            Poll::Pending => self.poll_slow_write(cx).map(Err),
            ended => ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// Small, so that the tests run by the real clock; an upper bound is generous, a lower bound is exact.
    const LIMITS: Deadlines = Deadlines {
        whole_header: Duration::from_millis(150),
        idle: Duration::from_millis(600),
        slow_rate: 100,
        slow_after: Duration::from_secs(1),
    };

    fn guarded(multiplexed: bool) -> (Guard<DuplexStream>, DuplexStream, Arc<Activity>) {
        let (ours, theirs) = duplex(64);
        let activity = Arc::new(Activity::default());
        (Guard::new(ours, Bytes::new(), Arc::clone(&activity), LIMITS, multiplexed), theirs, activity)
    }

    async fn time_until_cut(guard: &mut Guard<DuplexStream>) -> Duration {
        let began = Instant::now();
        let mut byte = [0];
        loop {
            let read = tokio::time::timeout(Duration::from_secs(20), guard.read(&mut byte)).await;
            if let Err(error) = read.expect("never cut") {
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                return began.elapsed();
            }
        }
    }

    #[tokio::test]
    async fn an_idle_connection_is_cut() {
        let (mut guard, _client, _) = guarded(false);
        assert!(time_until_cut(&mut guard).await >= LIMITS.idle);
    }

    #[tokio::test]
    async fn a_header_that_trickles_is_cut_in_the_time_of_a_whole_header() {
        let (mut guard, mut client, _) = guarded(false);
        let trickle = tokio::spawn(async move {
            let mut sent = 0;
            while client.write_all(b"x").await.is_ok() && sent < 1000 {
                sent += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let cut = time_until_cut(&mut guard).await;
        assert!(cut >= LIMITS.whole_header && cut < LIMITS.idle * 10, "cut after {cut:?}");
        trickle.abort();
    }

    #[tokio::test]
    async fn a_call_being_served_may_take_its_time_and_idleness_starts_anew_after_it() {
        let (mut guard, mut client, activity) = guarded(false);
        client.write_all(b"GET").await.unwrap();
        let mut head = [0; 3];
        guard.read_exact(&mut head).await.unwrap();
        let call = InCall::begin(&activity);
        let mut byte = [0];
        assert!(tokio::time::timeout(LIMITS.idle * 2, guard.read(&mut byte)).await.is_err());
        drop(call);
        assert!(time_until_cut(&mut guard).await >= LIMITS.idle);
    }

    #[tokio::test]
    async fn idleness_is_noticed_by_one_who_waits_and_does_not_ask_again_when_a_call_ends() {
        let (mut guard, _client, activity) = guarded(false);
        let call = InCall::begin(&activity);
        let ended = tokio::spawn(async move { time_until_cut(&mut guard).await });
        tokio::time::sleep(LIMITS.idle / 2).await;
        drop(call);
        assert!(ended.await.unwrap() >= LIMITS.idle * 5 / 4);
        assert!(matches!(activity.cut(), Some(Cut(ConnectionEnd::Idle))));
    }

    #[tokio::test]
    async fn an_http2_client_that_pings_stays() {
        let (mut guard, mut client, _) = guarded(true);
        tokio::spawn(async move {
            for _ in 0..5 {
                tokio::time::sleep(LIMITS.idle / 2).await;
                client.write_all(b"PING").await.unwrap();
            }
            tokio::time::sleep(LIMITS.idle * 10).await;
        });
        assert!(time_until_cut(&mut guard).await >= LIMITS.idle * 3);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_cut_and_a_slow_but_steady_one_is_not() {
        let (mut guard, _client, _) = guarded(false);
        let error = guard.write_all(&[0; 65]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let (mut guard, mut client, _) = guarded(false);
        let writer = tokio::spawn(async move { guard.write_all(&[0; 1000]).await });
        let mut some = [0; 50];
        for _ in 0..20 {
            client.read_exact(&mut some).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        writer.await.unwrap().unwrap();
    }

    /// Takes everything, as TLS does, and lets it out a byte at a time or not at all.
    struct Taking {
        leaving: crate::gateway::leaving::Leaving<DuplexStream>,
        has: usize,
    }

    impl AsyncWrite for Taking {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.has += bytes.len();
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            while self.has > 0 {
                std::task::ready!(Pin::new(&mut self.leaving).poll_write(cx, b"x"))?;
                self.has -= 1;
            }
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.poll_flush(cx)
        }
    }

    /// A guard over such a stream, and the client.
    fn taking() -> (Guard<Taking>, DuplexStream, Arc<Activity>) {
        let (ours, theirs) = duplex(64);
        let (leaving, left) = crate::gateway::leaving::Leaving::new(ours);
        let (stream, activity) = (Taking { leaving, has: 0 }, Arc::new(Activity::default()));
        (Guard::new(stream, Bytes::new(), Arc::clone(&activity), LIMITS, false).counting(Some(left)), theirs, activity)
    }

    #[tokio::test]
    async fn what_was_taken_and_does_not_leave_is_cut_whatever_else_is_taken() {
        let (mut guard, _client, activity) = taking();
        let began = Instant::now();
        let error = loop {
            guard.write_all(&[0; 200]).await.unwrap();
            match tokio::time::timeout(Duration::from_millis(100), guard.flush()).await {
                Ok(Err(error)) => break error,
                Ok(Ok(())) => panic!("it has left"),
                Err(_) => assert!(began.elapsed() < LIMITS.slow_after * 10, "never cut"),
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(matches!(activity.cut(), Some(Cut(ConnectionEnd::SlowBody))));
    }

    #[tokio::test]
    async fn what_leaves_slowly_and_fast_enough_is_not_cut() {
        let (mut guard, mut client, activity) = taking();
        let reads = tokio::spawn(async move {
            let mut bytes = [0; 40];
            for _ in 0..25 {
                client.read_exact(&mut bytes).await.unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        guard.write_all(&[0; 1000]).await.unwrap();
        guard.flush().await.unwrap();
        assert!(activity.is_quiet());
        reads.await.unwrap();
    }
}
