//! A connection that carries one call at a time over HTTP/1.1 (RFC 9112). Its buffers last as long as it does.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method};
use http_body::{Body, Frame, SizeHint};
use tokio::io::AsyncReadExt;
use tokio::task::unconstrained;
use tokio::time::Sleep;

use super::head::{self, Answered, Sent};
use super::{Broke, Outbound, Wire};
use crate::gateway::body::Uploading;
use crate::gateway::http1::{self, Framing, Next, Outbox, READ};
use crate::gateway::message::AnswerHead;

pub struct Line {
    wire: Wire,
    /// Read and not looked at yet.
    input: BytesMut,
    output: Outbox,
    /// The service took no more of the request.
    spoilt: bool,
    method: Method,
    upload: Option<Upload>,
    answer: Answer,
    /// Interim answers of this call.
    interim: u8,
    /// Kept from one call to the next: a timer that is armed already costs nothing.
    pub timer: Option<Pin<Box<Sleep>>>,
}

struct Upload {
    body: Uploading,
    sent: Sent,
    /// Only the head is there. It waits a turn for the first of the body, so that both leave in one call.
    holds_head: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Its head has not come.
    Awaited,
    Body {
        framing: Framing,
        /// Whether the connection can be used again afterwards.
        keeps: bool,
    },
    Complete {
        keeps: bool,
    },
}

impl Line {
    pub fn new(wire: Wire) -> Self {
        Self {
            wire,
            input: BytesMut::new(),
            output: Outbox::default(),
            spoilt: false,
            method: Method::GET,
            upload: None,
            answer: Answer::Complete { keeps: true },
            interim: 0,
            timer: None,
        }
    }

    /// Begins a call on a connection that has none.
    pub fn begin(mut self: Box<Self>, request: Outbound) -> Box<Self> {
        self.output.begin();
        let sent = head::write(&request, self.output.last());
        let Outbound { method, body, .. } = request;
        self.method = method;
        self.upload = (!body.is_end_stream()).then_some(Upload { body, sent, holds_head: true });
        (self.answer, self.interim) = (Answer::Awaited, 0);
        self
    }

    /// Whether a connection without a call still stands: the service has neither closed it nor said anything unasked. The kernel is
    /// asked only where it said that something happened.
    pub fn is_idle(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        // However much the task that asks has read in its turn.
        let read = unconstrained(self.wire.read_buf(&mut self.input));
        pin!(read).poll(&mut cx).is_pending() && self.input.is_empty()
    }

    /// The connection, where it can carry another call.
    pub fn finish(mut self: Box<Self>) -> Option<Box<Self>> {
        self.output.release();
        let keeps = self.answer == Answer::Complete { keeps: true };
        (keeps && !self.spoilt && !self.is_sending() && self.input.is_empty()).then_some(self)
    }

    /// As [`super::Roundtrip::poll_head`].
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<AnswerHead, Broke>> {
        let _ = self.poll_send(cx)?;
        loop {
            if !self.input.is_empty()
                && let Some(Answered { head, framing, keeps }) =
                    head::read(&mut self.input, &self.method, &mut self.interim)?
            {
                self.answer = match framing {
                    Framing::Length(0) => Answer::Complete { keeps },
                    framing => Answer::Body { framing, keeps },
                };
                return Poll::Ready(Ok(head));
            }
            // Nothing was written, so nothing is to be expected.
            if !self.output.wrote() && !self.spoilt {
                return Poll::Pending;
            }
            ready!(self.poll_fill(cx, READ))?;
        }
    }

    /// As [`super::Roundtrip::poll_frame`].
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        if self.is_sending() {
            // What is still on its way does not keep the answer.
            let _ = self.poll_send(cx)?;
        }
        let Answer::Body { mut framing, keeps } = self.answer else {
            return Poll::Ready(None);
        };
        let read = self.poll_body(cx, &mut framing);
        self.answer = Answer::Body { framing, keeps };
        match ready!(read)? {
            Some(frame) => {
                if framing == Framing::Length(0) || frame.is_trailers() {
                    self.answer = Answer::Complete { keeps };
                }
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                self.answer = Answer::Complete { keeps };
                Poll::Ready(None)
            }
        }
    }

    pub fn is_end_stream(&self) -> bool {
        matches!(self.answer, Answer::Complete { .. })
    }

    pub fn size_hint(&self) -> SizeHint {
        match self.answer {
            Answer::Complete { .. } => SizeHint::with_exact(0),
            Answer::Body { framing: Framing::Length(left), .. } => SizeHint::with_exact(left),
            _ => SizeHint::default(),
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, framing: &mut Framing) -> Poll<Result<Option<Frame<Bytes>>, Broke>> {
        loop {
            match framing.next(&mut self.input)? {
                Next::Data(length) => {
                    return Poll::Ready(Ok(Some(Frame::data(http1::take(&mut self.input, length)))));
                }
                Next::End(trailers) if trailers.is_empty() => return Poll::Ready(Ok(None)),
                Next::End(trailers) => return Poll::Ready(Ok(Some(Frame::trailers(trailers)))),
                Next::More => match ready!(self.poll_fill(cx, framing.room())) {
                    Ok(()) => {}
                    // Where it was reset, the write that noticed has left nothing for the read to say.
                    Err(Broke::Closed) if *framing == Framing::Close && !self.spoilt => return Poll::Ready(Ok(None)),
                    Err(broke) => return Poll::Ready(Err(broke)),
                },
            }
        }
    }

    /// Reads more. [`Broke::Closed`]: there is no more.
    fn poll_fill(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<Result<(), Broke>> {
        match ready!(http1::poll_fill(&mut self.wire, &mut self.input, room, cx)) {
            Ok(0) => Poll::Ready(Err(Broke::Closed)),
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    /// Whether the service is still to get something of the request.
    pub fn is_sending(&self) -> bool {
        self.upload.is_some() || !self.output.is_empty()
    }

    fn stop_sending(&mut self) {
        if let Some(upload) = self.upload.take() {
            upload.body.is_cut_short();
        }
        self.spoilt = true;
        self.output.clear();
    }

    /// Sends what there is. Ready: nothing is left to be sent, be it that the service takes no more. An error: the client broke off.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broke>> {
        while self.is_sending() {
            let gathered = self.poll_gather(cx)?;
            if let Some(upload) = self.upload.as_mut().filter(|upload| upload.holds_head) {
                // Whoever reads the client's body has been asked for it just now. For longer the connection is not kept from the
                // service: it might close it meanwhile.
                upload.holds_head = false;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Err(error) = ready!(self.output.poll_write(&mut self.wire, cx)) {
                // It may have answered before it closed; whoever reads finds out.
                tracing::debug!(%error, "an upstream takes no more of a request");
                self.stop_sending();
            }
            if gathered.is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes in what the client has sent, up to what is written at once. Pending: the client has not sent more.
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broke>> {
        // A head may be long by itself.
        while let Some(upload) = &mut self.upload
            && (self.output.has_room() || upload.holds_head && self.output.takes_a_piece())
        {
            match ready!(Pin::new(&mut upload.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    upload.holds_head = false;
                    let ends = frame.is_trailers() || upload.body.is_end_stream();
                    match frame.into_data() {
                        Ok(data) => self.put(data)?,
                        Err(frame) => self.end_upload(frame.trailers_ref())?,
                    }
                    if ends && self.upload.is_some() {
                        self.end_upload(None)?;
                    }
                }
                Some(Err(_)) => return Poll::Ready(Err(Broke::Upload)),
                None => self.end_upload(None)?,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn put(&mut self, data: Bytes) -> Result<(), Broke> {
        match self.upload.as_mut().map(|upload| &mut upload.sent) {
            Some(Sent::Length(left)) => {
                // The reader of the client's body sees to it; were there more, it would be taken for another request.
                *left = left.checked_sub(data.len() as u64).ok_or(Broke::Upload)?;
                self.output.put(data);
            }
            Some(Sent::Chunked) => self.output.put_chunk(data),
            None => {}
        }
        Ok(())
    }

    fn end_upload(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Broke> {
        match self.upload.take().map(|upload| upload.sent) {
            Some(Sent::Length(1..)) => return Err(Broke::Upload),
            Some(Sent::Chunked) => self.output.put_end(trailers),
            _ => {}
        }
        Ok(())
    }
}
