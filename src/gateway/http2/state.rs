//! One stream as the connection knows it, and all of them by their number.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::Error;
use super::window::{Incoming, Outgoing};
use crate::gateway::message::AnswerHead;

/// A smaller piece of content is copied to the one before it, so that it takes no more memory than it is long.
const SMALL: usize = 1024;
/// A piece of content. What has left a window's account is kept somewhere else, and should not be much.
const PIECE_MOST: usize = 32 * 1024;

/// One stream: what has come and was not taken yet, and what is to go and has no room yet.
#[derive(Debug)]
pub struct Stream {
    pub incoming: Incoming,
    pub outgoing: Outgoing,
    pub answer: Expected,
    pub content: Content,
    pub trailers: Option<HeaderMap>,
    /// Bytes of content still to come, where their number was said.
    pub left: Option<u64>,
    /// All of it has come.
    pub is_received: bool,
    /// Somebody may still read it. If not, what comes is let go.
    pub is_read: bool,
    pub queued: Option<Queued>,
    /// All that there was to say was said, or nobody hears it any more.
    pub is_sent: bool,
    /// It stands in line for the connection's window.
    pub is_blocked: bool,
    /// It ended before both sides had said all.
    pub broken: Option<Error>,
    /// How often something had come on the connection when it was begun.
    pub heard: u32,
    /// Those that are not done with it.
    pub holders: u8,
    pub reader: Option<Waker>,
    pub writer: Option<Waker>,
}

/// The answer to a stream that we began.
#[derive(Debug)]
pub enum Expected {
    /// It is what we answer to, or the answer was taken.
    Nothing,
    Awaited {
        /// Interim answers so far.
        interim: u8,
        /// It was HEAD that was asked, whose answer has no content whatever it says.
        is_head: bool,
    },
    Here(AnswerHead),
}

impl Expected {
    pub fn is_awaited(&self) -> bool {
        matches!(self, Self::Awaited { .. })
    }
}

/// What is on its way out and waits for a window.
#[derive(Debug)]
pub struct Queued {
    pub data: Bytes,
    pub ends: bool,
}

/// Content that has come, in its order: the first piece, those after it, and what comes in very small pieces put together.
#[derive(Debug, Default)]
pub struct Content {
    first: Bytes,
    more: VecDeque<Bytes>,
    tail: BytesMut,
    length: usize,
}

impl Content {
    pub fn put(&mut self, data: &[u8]) {
        if self.length == 0 {
            self.first = Bytes::copy_from_slice(data);
        } else if data.len() < SMALL && self.tail.len() < PIECE_MOST {
            self.tail.extend_from_slice(data);
        } else {
            if !self.tail.is_empty() {
                self.more.push_back(self.tail.split().freeze());
            }
            self.more.push_back(Bytes::copy_from_slice(data));
        }
        self.length += data.len();
    }

    /// What comes next; nothing where there is none.
    pub fn next(&mut self) -> Bytes {
        let next = match std::mem::take(&mut self.first) {
            none if none.is_empty() => match self.more.pop_front() {
                Some(piece) => piece,
                None => std::mem::take(&mut self.tail).freeze(),
            },
            first => first,
        };
        self.length -= next.len();
        next
    }

    /// All of it in one piece.
    pub fn all(&mut self) -> Bytes {
        let first = self.next();
        if self.length == 0 {
            return first;
        }
        let mut all = BytesMut::with_capacity(first.len() + self.length);
        all.extend_from_slice(&first);
        while self.length > 0 {
            all.extend_from_slice(&self.next());
        }
        all.freeze()
    }

    pub fn len(&self) -> usize {
        self.length
    }
}

impl Stream {
    pub fn new(incoming: Incoming, outgoing: Outgoing, answer: Expected, heard: u32) -> Self {
        Self {
            incoming,
            outgoing,
            answer,
            content: Content::default(),
            trailers: None,
            left: None,
            is_received: false,
            is_read: true,
            queued: None,
            is_sent: false,
            is_blocked: false,
            broken: None,
            heard,
            holders: 1,
            reader: None,
            writer: None,
        }
    }

    /// Whether the protocol still knows of it.
    pub fn is_open(&self) -> bool {
        self.broken.is_none() && !(self.is_received && self.is_sent)
    }

    /// Nothing more is sent, and what is not complete stays so. Whoever waits is told.
    pub fn breaks(&mut self, error: Error) {
        self.broken.get_or_insert(error);
        (self.queued, self.is_sent) = (None, true);
        self.wake_reader();
        self.wake_writer();
    }

    pub fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    pub fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}

/// Waits in this place.
pub fn wait<T>(place: &mut Option<Waker>, cx: &Context<'_>) -> Poll<T> {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        none => *none = Some(cx.waker().clone()),
    }
    Poll::Pending
}

/// The streams of one connection, in the order of their numbers, which only grow.
#[derive(Debug, Default)]
pub struct Streams(Vec<(u32, Box<Stream>)>);

impl Streams {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are open by the protocol.
    pub fn open(&self) -> usize {
        self.0.iter().filter(|(_, stream)| stream.is_open()).count()
    }

    /// `number` is above all that are there.
    pub fn insert(&mut self, number: u32, stream: Box<Stream>) {
        self.0.push((number, stream));
    }

    pub fn get(&mut self, number: u32) -> Option<&mut Stream> {
        let at = self.find(number)?;
        self.0.get_mut(at).map(|(_, stream)| &mut **stream)
    }

    pub fn remove(&mut self, number: u32) -> Option<Box<Stream>> {
        let at = self.find(number)?;
        (at < self.0.len()).then(|| self.0.remove(at).1)
    }

    pub fn each(&mut self) -> impl Iterator<Item = (u32, &mut Stream)> {
        self.0.iter_mut().map(|(number, stream)| (*number, &mut **stream))
    }

    fn find(&self, number: u32) -> Option<usize> {
        self.0.binary_search_by_key(&number, |(number, _)| *number).ok()
    }
}
