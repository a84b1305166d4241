//! One connection of a client over HTTP/1.1 (RFC 9112), from its first request to its last answer. All of it runs in one task. While
//! it is idle it holds next to no buffer.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::feed::{self, Feed, Wish};
pub use super::head::Bounds;
use super::head::{self, Asked, Manner, Sent};
use super::{ClientBody, ClientBroke, Service};
use crate::gateway::body::{BodyError, Outgoing};
use crate::gateway::http1::{self, Framing, Next, Outbox, READ};
use crate::gateway::message::Answer;

pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the client left during a call")]
    Left,
    #[error("the answer broke off: {0}")]
    Answer(#[from] BodyError),
    #[error("the answer is not as long as it said")]
    Length,
}

pub struct Serving<S, V: Service> {
    stream: S,
    service: V,
    bounds: Bounds,
    /// Read and not looked at yet.
    input: BytesMut,
    /// Bytes of it in which no head ends.
    seen: usize,
    output: Outbox,
    incoming: Incoming,
    state: State<V::Call>,
    manner: Manner,
    /// No other request is read.
    is_closing: bool,
}

enum State<C> {
    Idle,
    Call(C),
    Answer {
        body: Outgoing,
        /// Absent once nothing more is to be gathered.
        sent: Option<Sent>,
    },
    /// The answer went out; somebody may still read the request, and so long the call is not over for the deadlines.
    Answered {
        _body: Outgoing,
    },
    Closing,
}

/// The request body.
enum Incoming {
    /// All of it has come.
    Complete,
    Feeding {
        feed: Feed,
        framing: Framing,
        /// The client is to be told to go on.
        expects: bool,
    },
    /// The rest of it does not come, or nobody reads it.
    Lost,
}

/// What became of a look at what the client sends.
enum Received {
    /// A call that waited for it can go on.
    News,
    Left,
}

impl<S, V> Serving<S, V>
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: Service + Unpin,
{
    pub fn new(stream: S, service: V, bounds: Bounds) -> Self {
        Self {
            stream,
            service,
            bounds,
            input: BytesMut::new(),
            seen: 0,
            output: Outbox::default(),
            incoming: Incoming::Complete,
            state: State::Idle,
            manner: Manner::UNREAD,
            is_closing: false,
        }
    }

    /// A call that is being served is the last; a head of which something has come is still waited for.
    pub fn close(mut self: Pin<&mut Self>) {
        self.is_closing = true;
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        if self.input.is_empty() {
            // A usual request is read from the stack, and what is kept of it is copied once.
            self.input = BytesMut::new();
            if self.is_closing {
                self.state = State::Closing;
                return Poll::Ready(Ok(()));
            }
            let mut room = [const { MaybeUninit::uninit() }; READ];
            let mut read = ReadBuf::uninit(&mut room);
            let Poll::Ready(ended) = Pin::new(&mut self.stream).poll_read(cx, &mut read) else {
                self.output.release();
                return Poll::Pending;
            };
            ended?;
            if read.filled().is_empty() {
                self.state = State::Closing;
            } else {
                self.look(read.filled());
            }
            return Poll::Ready(Ok(()));
        }
        if self.seen < self.input.len() {
            let input = std::mem::take(&mut self.input);
            self.look(&input);
            return Poll::Ready(Ok(()));
        }
        if ready!(http1::poll_fill(&mut self.stream, &mut self.input, READ, cx))? == 0 {
            self.state = State::Closing;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes in what was read: a call begins where there is a whole head, and what is left over is kept.
    fn look(&mut self, input: &[u8]) {
        // What comes byte by byte is not parsed as often; what is no head at all is told at once.
        let is_more_of_it = self.seen > 0 && input.len() <= self.bounds.bytes && !head::may_end(input, self.seen);
        match if is_more_of_it { Ok(None) } else { head::read(input, self.bounds) } {
            Ok(None) => {
                self.input.extend_from_slice(input);
                self.seen = input.len();
            }
            Ok(Some(asked)) => {
                self.seen = 0;
                self.begin(asked, input);
            }
            Err(denial) => {
                self.seen = 0;
                (self.manner, self.incoming) = (Manner::UNREAD, Incoming::Lost);
                let answer = self.service.refuse(denial);
                self.answer(answer);
            }
        }
    }

    fn begin(&mut self, asked: Asked, input: &[u8]) {
        let Asked { head, framing, manner, expects, length } = asked;
        self.manner = manner;
        let rest = input.get(length..).unwrap_or_default();
        let whole = match framing {
            Framing::Length(length) => usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length)),
            _ => None,
        };
        let body = match (whole, framing) {
            (Some((content, rest)), _) => {
                self.input.extend_from_slice(rest);
                self.incoming = Incoming::Complete;
                ClientBody::Whole(if content.is_empty() { Bytes::new() } else { Bytes::copy_from_slice(content) })
            }
            (None, framing) => {
                self.input.extend_from_slice(rest);
                let length = if let Framing::Length(length) = framing { Some(length) } else { None };
                let (feed, fed) = feed::feed(length);
                self.incoming = Incoming::Feeding { feed, framing, expects };
                ClientBody::Fed(fed)
            }
        };
        self.state = State::Call(self.service.call(head, body));
    }

    fn poll_call(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        loop {
            let State::Call(call) = &mut self.state else { return Poll::Ready(Ok(())) };
            if let Poll::Ready(answer) = Pin::new(call).poll(cx) {
                self.answer(answer);
                return Poll::Ready(Ok(()));
            }
            // The client is told to go on.
            ready!(self.output.poll_write(&mut self.stream, cx))?;
            if let Received::Left = ready!(self.poll_receive(cx)) {
                return Poll::Ready(Err(Ended::Left));
            }
        }
    }

    fn answer(&mut self, answer: Answer) {
        let Answer { head, body } = answer;
        // A client that was not told to go on may send the body all the same, or not.
        if let Incoming::Feeding { expects: true, .. } = self.incoming {
            self.incoming = Incoming::Lost;
        }
        self.manner.keeps &= !self.is_closing && !matches!(self.incoming, Incoming::Lost);
        let sent = head::write(&head, &body.size_hint(), &mut self.manner, self.output.last());
        let is_over = body.is_end_stream() && matches!(sent, Sent::Nothing | Sent::Length(0) | Sent::Close);
        self.state = State::Answer { body, sent: (!is_over).then_some(sent) };
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        loop {
            // What came before it broke off goes out all the same.
            let gathered = self.poll_gather(cx);
            let wrote = if gathered.is_pending() && self.awaits_the_end() {
                Poll::Pending
            } else {
                self.output.poll_write(&mut self.stream, cx)?
            };
            let has_gathered = gathered.is_ready();
            if let Poll::Ready(gathered) = gathered {
                gathered?;
            }
            if wrote.is_ready() {
                self.state = match std::mem::replace(&mut self.state, State::Closing) {
                    State::Answer { sent: None, body } => State::Answered { _body: body },
                    state => state,
                };
                if let State::Answered { .. } = self.state {
                    return Poll::Ready(Ok(()));
                }
                // There was no room for more, and now there is.
                if has_gathered {
                    continue;
                }
            }
            if let Received::Left = ready!(self.poll_receive(cx)) {
                return Poll::Ready(Err(Ended::Left));
            }
        }
    }

    /// All content is here, and only that it is all has not been said. It does not go out before that: a call has its outcome first.
    fn awaits_the_end(&self) -> bool {
        matches!(self.state, State::Answer { sent: Some(Sent::Length(0) | Sent::Nothing), .. })
    }

    /// Takes in what there is of the answer, up to what is written at once. Pending: there is no more as yet.
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        while let State::Answer { body, sent } = &mut self.state
            && let Some(framing) = sent
            && (self.output.has_room() || matches!(framing, Sent::Length(0) | Sent::Nothing))
        {
            let frame = ready!(Pin::new(&mut *body).poll_frame(cx)).transpose()?;
            let is_last = body.is_end_stream();
            match frame.map(Frame::into_data) {
                None => end(*framing, &mut self.output, None)?,
                Some(Ok(data)) => {
                    put(framing, &mut self.output, data)?;
                    if !is_last {
                        continue;
                    }
                    end(*framing, &mut self.output, None)?;
                }
                Some(Err(frame)) => {
                    let trailers = frame.trailers_ref().filter(|_| self.manner.takes_trailers);
                    end(*framing, &mut self.output, trailers)?;
                }
            }
            *sent = None;
        }
        Poll::Ready(Ok(()))
    }

    /// The answer went out. What is still wanted of the request is read, then comes the next one.
    fn poll_answered(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        while let Incoming::Feeding { .. } = self.incoming {
            ready!(self.poll_receive(cx));
        }
        let goes_on = matches!(self.incoming, Incoming::Complete) && self.manner.keeps;
        self.state = if goes_on { State::Idle } else { State::Closing };
        Poll::Ready(Ok(()))
    }

    /// Takes in what the client sends, as far as it is wanted: more of the request body, or that it leaves.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        let Incoming::Feeding { feed, framing, expects } = &mut self.incoming else {
            return self.poll_left(cx);
        };
        loop {
            match feed.wish(cx) {
                Wish::More => {}
                Wish::Patience => return Poll::Pending,
                Wish::Nothing => {
                    self.incoming = Incoming::Lost;
                    return Poll::Ready(Received::News);
                }
            }
            let ended = match framing.next(&mut self.input) {
                Ok(Next::Data(length)) => {
                    feed.put(http1::take(&mut self.input, length));
                    // What ends with its length is complete here, and nobody asks for its end.
                    if *framing == Framing::Length(0) {
                        feed.end(Ok(None));
                        self.incoming = Incoming::Complete;
                    }
                    return Poll::Ready(Received::News);
                }
                Ok(Next::End(trailers)) => Ok((!trailers.is_empty()).then_some(trailers)),
                Ok(Next::More) => {
                    // Only before there is an answer: what comes after its head belongs to that.
                    if std::mem::take(expects) && self.input.is_empty() {
                        self.output.last().extend_from_slice(CONTINUE);
                        return Poll::Ready(Received::News);
                    }
                    match ready!(http1::poll_fill(&mut self.stream, &mut self.input, framing.room(), cx)) {
                        Ok(0) => Err(ClientBroke::Closed),
                        Ok(_) => continue,
                        Err(error) => Err(error.into()),
                    }
                }
                Err(malformed) => Err(malformed.into()),
            };
            let is_complete = ended.is_ok();
            feed.end(ended);
            self.incoming = if is_complete { Incoming::Complete } else { Incoming::Lost };
            return Poll::Ready(Received::News);
        }
    }

    /// Waits for a client to leave that has nothing more to send for this call.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        // The next request is there, or the client sends what nobody reads.
        if !self.input.is_empty() || matches!(self.incoming, Incoming::Lost) {
            return Poll::Pending;
        }
        let mut room = [const { MaybeUninit::uninit() }; READ];
        let mut read = ReadBuf::uninit(&mut room);
        match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read)) {
            Ok(()) if !read.filled().is_empty() => {
                self.input.extend_from_slice(read.filled());
                Poll::Pending
            }
            _ => Poll::Ready(Received::Left),
        }
    }
}

fn put(framing: &mut Sent, output: &mut Outbox, data: Bytes) -> Result<(), Ended> {
    match framing {
        Sent::Length(left) => {
            *left = left.checked_sub(data.len() as u64).ok_or(Ended::Length)?;
            output.put(data);
        }
        Sent::Chunked => output.put_chunk(data),
        Sent::Close => output.put(data),
        Sent::Nothing => {}
    }
    Ok(())
}

fn end(framing: Sent, output: &mut Outbox, trailers: Option<&HeaderMap>) -> Result<(), Ended> {
    match framing {
        Sent::Length(1..) => return Err(Ended::Length),
        Sent::Chunked => output.put_end(trailers),
        Sent::Length(0) | Sent::Close | Sent::Nothing => {}
    }
    Ok(())
}

impl<S, V> Future for Serving<S, V>
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: Service + Unpin,
{
    type Output = Result<(), Ended>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            let went = match this.state {
                State::Idle => this.poll_idle(cx),
                State::Call(_) => this.poll_call(cx),
                State::Answer { .. } => this.poll_answer(cx),
                State::Answered { .. } => this.poll_answered(cx),
                State::Closing => {
                    ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                    return Poll::Ready(Ok(()));
                }
            };
            ready!(went)?;
        }
    }
}
