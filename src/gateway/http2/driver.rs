//! Reads and writes for a connection.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::link::Unfinished;
use super::{Begun, Error, Shared};

/// Room for one read.
const READ: usize = 16 * 1024;

pub struct Driver<S> {
    stream: S,
    shared: Shared,
    /// The other side has closed, or nothing more is to be read.
    is_deaf: bool,
    /// What has to end, by its number, and by when.
    unfinished: Option<(u32, Pin<Box<Sleep>>)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    pub fn new(stream: S, shared: Shared) -> Self {
        Self { stream, shared, is_deaf: false, unfinished: None }
    }

    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Takes in what there is, hands over the requests in it, and writes what is to go. Ready once the connection is over.
    pub fn poll(&mut self, cx: &mut Context<'_>, mut begin: impl FnMut(&Shared, Begun)) -> Poll<Result<(), Error>> {
        self.shared.lock().wakes(cx.waker());
        loop {
            let read = self.poll_read(cx, &mut begin);
            let written = self.poll_write(cx);
            let mut link = self.shared.lock();
            let unfinished = link.unfinished().filter(|_| !self.is_deaf);
            if is_late(&mut self.unfinished, unfinished, cx) {
                link.fail(Error::Late);
                self.is_deaf = true;
                break;
            }
            ready!(written);
            if !self.is_deaf && link.is_crowded() {
                // It goes on once some of the calls that are over have noticed it.
                link.sleeps();
                return Poll::Pending;
            }
            // What was not read since too much was to be written can be read now.
            if read.is_pending() || self.is_deaf {
                break;
            }
        }
        let ended = {
            let mut link = self.shared.lock();
            if !link.is_over() {
                link.sleeps();
                return Poll::Pending;
            }
            link.ended
        };
        let closed = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
        Poll::Ready(match ended {
            Some(error) => Err(error),
            None => Ok(closed?),
        })
    }

    /// Pending: there is nothing more to be read. Ready: it was not looked at.
    fn poll_read(&mut self, cx: &mut Context<'_>, begin: &mut impl FnMut(&Shared, Begun)) -> Poll<()> {
        while !self.is_deaf {
            {
                let link = self.shared.lock();
                if link.is_choked() || link.is_crowded() {
                    return Poll::Ready(());
                }
            }
            let mut room = [const { MaybeUninit::uninit() }; READ];
            let mut read = ReadBuf::uninit(&mut room);
            let came = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read));
            self.took(came.map(|()| read.filled()));
            let begun = self.shared.lock().take_begun();
            for begun in begun {
                begin(&self.shared, begun);
            }
        }
        Poll::Ready(())
    }

    fn took(&mut self, came: std::io::Result<&[u8]>) {
        let mut link = self.shared.lock();
        let went = match came {
            Ok([]) => Err(Error::Closed),
            Ok(bytes) => link.take(bytes),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = went {
            self.is_deaf = true;
            // A client that closes where there is nothing to be said has not broken anything.
            if error == Error::Closed && link.streams.is_empty() {
                link.finish();
            } else {
                link.fail(error);
            }
        }
    }

    /// Ready: nothing is left to be written, be it that it cannot be.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut link = self.shared.lock();
            if let Err(error) = ready!(link.output.poll_write(&mut self.stream, cx)) {
                link.fail(error.into());
                self.is_deaf = true;
                return Poll::Ready(());
            }
            link.send_blocked();
            if link.output.is_empty() {
                link.output.release();
                return Poll::Ready(());
            }
        }
    }
}

/// Whether this, which is still unfinished, had to be at its end by now.
fn is_late(awaited: &mut Option<(u32, Pin<Box<Sleep>>)>, unfinished: Option<Unfinished>, cx: &mut Context<'_>) -> bool {
    let Some(Unfinished { number, within }) = unfinished else {
        *awaited = None;
        return false;
    };
    if awaited.as_ref().is_none_or(|(of, _)| *of != number) {
        *awaited = Some((number, Box::pin(tokio::time::sleep(within))));
    }
    awaited.as_mut().is_some_and(|(_, timer)| timer.as_mut().poll(cx).is_ready())
}

impl<S> Drop for Driver<S> {
    /// Whoever still has a stream learns that there is no connection.
    fn drop(&mut self) {
        self.shared.lock().fail(Error::Closed);
    }
}
