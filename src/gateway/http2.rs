//! What both sides of HTTP/2 (RFC 9113) share: bodies as they come out of h2, and room for what goes in.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Frame, SizeHint};

use crate::gateway::http1::digits;

/// A body that comes in.
pub struct Receiving {
    stream: RecvStream,
    /// Bytes still to come, where their number was said.
    left: Option<u64>,
}

impl Receiving {
    /// The body that belongs to these headers.
    pub fn new(stream: RecvStream, headers: &HeaderMap) -> Self {
        Self { stream, left: headers.get(CONTENT_LENGTH).and_then(|length| digits(length.as_bytes())) }
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let read = match ready!(self.stream.poll_data(cx)) {
            Some(Ok(data)) => {
                // Room for as much again. It fails only where the stream has ended.
                let _ = self.stream.flow_control().release_capacity(data.len());
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            Some(Err(error)) => Err(error),
            None => ready!(self.stream.poll_trailers(cx)),
        };
        Poll::Ready(match read {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            // All has come, and the other side wants no more of ours.
            Err(error) if error.reason() == Some(Reason::NO_ERROR) => None,
            Err(error) => Some(Err(error)),
        })
    }

    pub fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub fn size_hint(&self) -> SizeHint {
        match self.left {
            _ if self.is_end_stream() => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

/// The other side takes no more of this stream.
#[derive(Debug)]
pub struct Refused;

/// Waits until the other side takes some of a piece of this length; the rest h2 sends as it gets room. To be asked only once there is a
/// piece: what is kept for one stream may be what all others wait for.
pub fn poll_room(stream: &mut SendStream<Bytes>, length: usize, cx: &mut Context<'_>) -> Poll<Result<(), Refused>> {
    if length == 0 {
        return Poll::Ready(Ok(()));
    }
    stream.reserve_capacity(length);
    while stream.capacity() == 0 {
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Poll::Ready(Err(Refused)),
        }
    }
    Poll::Ready(Ok(()))
}
