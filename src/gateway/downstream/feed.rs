//! A request body that has not come whole: the connection puts in what the client sends, as far as the call asks for it.
//!
//! The call may outlive its connection, and go on in another task; so the two share this place, and wake each other.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;

use super::ClientBroke;

/// The side of the connection.
pub struct Feed(Arc<Mutex<Place>>);

/// The side of the call.
pub struct Fed {
    place: Arc<Mutex<Place>>,
    /// Bytes still to come, where the client said how many.
    left: Option<u64>,
    ended: bool,
}

#[derive(Default)]
struct Place {
    content: Option<Bytes>,
    end: Option<Result<Option<HeaderMap>, ClientBroke>>,
    /// The call waits for more.
    is_wanted: bool,
    /// Nobody will ask for more.
    is_left: bool,
    call: Option<Waker>,
    connection: Option<Waker>,
}

/// What the call asks of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    More,
    /// Nothing as yet.
    Patience,
    /// The call is over for the body.
    Nothing,
}

/// A body of this length, or of one that is not known.
pub fn feed(length: Option<u64>) -> (Feed, Fed) {
    let place = Arc::default();
    (Feed(Arc::clone(&place)), Fed { place, left: length, ended: false })
}

impl Feed {
    /// What is wanted; whoever waits is woken when that changes.
    pub fn wish(&self, cx: &Context<'_>) -> Wish {
        let mut place = self.0.lock();
        if place.is_left {
            return Wish::Nothing;
        }
        // Also while it waits for the client: the call may be over before more comes.
        if !place.connection.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            place.connection = Some(cx.waker().clone());
        }
        if place.is_wanted && place.content.is_none() { Wish::More } else { Wish::Patience }
    }

    pub fn put(&self, content: Bytes) {
        self.change(|place| place.content = Some(content));
    }

    /// The body is complete, or nothing more will come of it.
    pub fn end(&self, end: Result<Option<HeaderMap>, ClientBroke>) {
        self.change(|place| place.end = Some(end));
    }

    fn change(&self, change: impl FnOnce(&mut Place)) {
        let mut place = self.0.lock();
        change(&mut place);
        place.is_wanted = false;
        let call = place.call.take();
        drop(place);
        if let Some(call) = call {
            call.wake();
        }
    }
}

impl Drop for Feed {
    /// The connection is gone: what has not come will not.
    fn drop(&mut self) {
        self.change(|place| {
            place.end.get_or_insert(Err(ClientBroke::Closed));
        });
    }
}

impl Fed {
    pub fn poll_frame(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientBroke>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut place = self.place.lock();
        if let Some(content) = place.content.take() {
            self.left = self.left.map(|left| left.saturating_sub(content.len() as u64));
            // Complete, and nothing follows: then this is known with the last of it.
            self.ended = self.left == Some(0) || matches!(place.end, Some(Ok(None)));
            return Poll::Ready(Some(Ok(Frame::data(content))));
        }
        if let Some(end) = place.end.take() {
            self.ended = true;
            return Poll::Ready(match end {
                Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
                Err(broke) => Some(Err(broke)),
            });
        }
        place.call = Some(cx.waker().clone());
        let is_news = !std::mem::replace(&mut place.is_wanted, true);
        let connection = if is_news { place.connection.take() } else { None };
        drop(place);
        if let Some(connection) = connection {
            connection.wake();
        }
        Poll::Pending
    }

    pub fn is_end_stream(&self) -> bool {
        self.ended
    }

    pub fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        let mut place = self.place.lock();
        place.is_left = true;
        let connection = place.connection.take();
        drop(place);
        if let Some(connection) = connection {
            connection.wake();
        }
    }
}
