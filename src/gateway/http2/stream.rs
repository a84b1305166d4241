//! What a call has of a stream: its half of the content to read, and its half to write.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::head::put_trailers;
use super::state::{Expected, Stream, wait};
use super::{Error, Reason, Shared};
use crate::gateway::message::AnswerHead;

/// A piece of content, or the trailers.
pub type Piece = Frame<Bytes>;

/// One stream, as long as somebody has it.
pub struct Held {
    shared: Shared,
    number: u32,
    /// Whether content is read through this one.
    reads: bool,
}

/// The other side takes no more of this stream.
#[derive(Debug)]
pub struct Refused;

/// What has come of a request.
pub enum Whole {
    /// It is over already.
    Broken,
    All(Bytes),
    ToCome,
}

impl Held {
    /// The stream is there and counts this holder.
    pub fn new(shared: &Shared, number: u32, reads: bool) -> Self {
        Self { shared: shared.clone(), number, reads }
    }

    /// The other half, which reads.
    pub fn reader(&self) -> Self {
        if let Some(stream) = self.shared.lock().streams.get(self.number) {
            stream.holders = stream.holders.saturating_add(1);
        }
        Self { shared: self.shared.clone(), number: self.number, reads: true }
    }

    fn with<T>(&self, or: T, look: impl FnOnce(&mut Stream) -> T) -> T {
        self.shared.lock().streams.get(self.number).map_or(or, look)
    }

    /// Sends a block of headers. What is given writes its fields.
    pub fn head(&self, ends: bool, write: impl FnOnce(&mut BytesMut)) {
        self.shared.lock().put_head(self.number, ends, write);
    }

    /// Sends content; the next only once [`Held::poll_sent`] is ready.
    pub fn data(&self, data: Bytes, ends: bool) {
        self.shared.lock().put_data(self.number, data, ends);
    }

    /// Ends the stream with these.
    pub fn trailers(&self, trailers: Option<&HeaderMap>) {
        match trailers.filter(|trailers| !trailers.is_empty()) {
            Some(trailers) => self.head(true, |into| put_trailers(trailers, into)),
            None => self.data(Bytes::new(), true),
        }
    }

    /// The content that came with the head, where that is all.
    pub fn whole(&self) -> Whole {
        let mut link = self.shared.lock();
        match link.streams.get(self.number) {
            None | Some(Stream { broken: Some(_), .. }) => Whole::Broken,
            Some(Stream { is_received: true, trailers: None, content, .. }) => {
                let content = content.all();
                link.was_read(self.number, content.len());
                Whole::All(content)
            }
            Some(_) => Whole::ToCome,
        }
    }

    /// Ready once all content that was given has gone.
    pub fn poll_sent(&self, cx: &Context<'_>) -> Poll<Result<(), Refused>> {
        self.with(Poll::Ready(Err(Refused)), |stream| match &stream.queued {
            _ if stream.broken.is_some() => Poll::Ready(Err(Refused)),
            Some(_) => wait(&mut stream.writer, cx),
            None => Poll::Ready(Ok(())),
        })
    }

    /// Ready once the stream has broken.
    pub fn poll_broken(&self, cx: &Context<'_>) -> Poll<Error> {
        self.with(Poll::Ready(Error::Closed), |stream| match stream.broken {
            Some(error) => Poll::Ready(error),
            None => wait(&mut stream.writer, cx),
        })
    }

    /// Its answer was waited for `since` then, and did not come.
    pub fn waited_in_vain(&self, since: Instant) {
        self.shared.lock().waited_in_vain(self.number, since, Instant::now());
    }

    pub fn reset(&self, reason: Reason) {
        self.shared.lock().reset(self.number, reason, Error::Closed);
    }

    /// The head of the answer, once.
    pub fn poll_answer(&self, cx: &Context<'_>) -> Poll<Result<AnswerHead, Error>> {
        self.with(Poll::Ready(Err(Error::Closed)), |stream| {
            match std::mem::replace(&mut stream.answer, Expected::Nothing) {
                Expected::Here(head) => return Poll::Ready(Ok(head)),
                awaited => stream.answer = awaited,
            }
            match stream.broken {
                Some(error) => Poll::Ready(Err(error)),
                None => wait(&mut stream.reader, cx),
            }
        })
    }

    /// The next piece of content, or the trailers.
    pub fn poll_frame(&self, cx: &Context<'_>) -> Poll<Option<Result<Piece, Error>>> {
        let mut link = self.shared.lock();
        let Some(stream) = link.streams.get(self.number) else {
            return Poll::Ready(Some(Err(Error::Closed)));
        };
        let data = stream.content.next();
        if !data.is_empty() {
            link.was_read(self.number, data.len());
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match (stream.is_received, stream.broken) {
            (true, _) => Poll::Ready(stream.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
            (false, Some(error)) => Poll::Ready(Some(Err(error))),
            (false, None) => wait(&mut stream.reader, cx),
        }
    }

    /// All has come and was read.
    pub fn is_end_stream(&self) -> bool {
        self.with(true, |stream| stream.is_received && stream.content.len() == 0 && stream.trailers.is_none())
    }

    /// Of the content that is still to be read.
    pub fn size_hint(&self) -> SizeHint {
        self.with(SizeHint::with_exact(0), |stream| {
            let here = stream.content.len() as u64;
            match stream.left {
                // What has trailers behind it must not be sent on with a length: after that none can follow.
                _ if stream.is_received && stream.trailers.is_none() => SizeHint::with_exact(here),
                _ if stream.is_received => SizeHint::default(),
                Some(left) => SizeHint::with_exact(left.saturating_add(here)),
                None => SizeHint::default(),
            }
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.lock().let_go(self.number, self.reads);
    }
}

/// Content that comes in, of a request.
pub struct Receiving(pub Held);

impl Body for Receiving {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, Error>>> {
        self.0.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
