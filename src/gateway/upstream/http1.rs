//! A connection that carries one call at a time over HTTP/1.1 (RFC 9112). Its buffers last as long as it does.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, Method, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::task::unconstrained;

use super::chunks::Next;
use super::head::{self, Answered, Framing, Sent};
use super::{Broke, Outbound, Wire};
use crate::gateway::body::Uploading;
use crate::gateway::headers;

/// A piece of a body up to this size is copied, beside what goes before it; a larger one is handed on as it is.
const COPIED_MOST: usize = 4096;
/// So much is gathered before it is written.
const GATHERED_MOST: usize = 16 * 1024;
/// Room for one read: the usual answer whole, and more where more is known to come.
const READ: usize = 8 * 1024;
const READ_MOST: usize = 64 * 1024;

pub struct Line {
    wire: Wire,
    /// Read and not looked at yet.
    input: BytesMut,
    /// To be written first …
    output: BytesMut,
    /// … then this, which is not copied …
    piece: Bytes,
    /// … and then what follows it.
    tail: BytesMut,
    /// Under TLS what was written may not have left.
    unflushed: bool,
    /// Something of this call was written.
    wrote: bool,
    /// The service took no more of the request.
    spoilt: bool,
    method: Method,
    upload: Option<Upload>,
    answer: Answer,
    /// Interim answers of this call.
    interim: u8,
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
            output: BytesMut::new(),
            piece: Bytes::new(),
            tail: BytesMut::new(),
            unflushed: false,
            wrote: false,
            spoilt: false,
            method: Method::GET,
            upload: None,
            answer: Answer::Complete { keeps: true },
            interim: 0,
        }
    }

    /// Begins a call on a connection that has none.
    pub fn begin(mut self: Box<Self>, request: Outbound) -> Box<Self> {
        let sent = head::write(&request, &mut self.output);
        let Outbound { method, body, .. } = request;
        self.method = method;
        self.upload = (!body.is_end_stream()).then_some(Upload { body, sent, holds_head: true });
        (self.answer, self.interim, self.wrote) = (Answer::Awaited, 0, false);
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
    pub fn finish(self: Box<Self>) -> Option<Box<Self>> {
        let keeps = self.answer == Answer::Complete { keeps: true };
        (keeps && !self.spoilt && !self.is_sending() && self.input.is_empty()).then_some(self)
    }

    /// As [`super::Roundtrip::poll_head`].
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, Broke>> {
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
            if !self.wrote && !self.spoilt {
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
            match framing {
                Framing::Length(0) => return Poll::Ready(Ok(None)),
                Framing::Length(left) if !self.input.is_empty() => {
                    let here = usize::try_from(*left).map_or(self.input.len(), |left| left.min(self.input.len()));
                    *left -= here as u64;
                    return Poll::Ready(Ok(Some(Frame::data(self.take(here)))));
                }
                Framing::Length(left) => {
                    let room = usize::try_from(*left).unwrap_or(READ_MOST).clamp(READ, READ_MOST);
                    ready!(self.poll_fill(cx, room))?;
                }
                Framing::Chunked(chunks) => match chunks.next(&mut self.input)? {
                    Next::Data(length) => return Poll::Ready(Ok(Some(Frame::data(self.take(length))))),
                    Next::End(trailers) if trailers.is_empty() => return Poll::Ready(Ok(None)),
                    Next::End(trailers) => return Poll::Ready(Ok(Some(Frame::trailers(trailers)))),
                    Next::More => ready!(self.poll_fill(cx, READ_MOST))?,
                },
                Framing::Close if !self.input.is_empty() => {
                    let length = self.input.len();
                    return Poll::Ready(Ok(Some(Frame::data(self.take(length)))));
                }
                Framing::Close => match ready!(self.poll_fill(cx, READ_MOST)) {
                    Ok(()) => {}
                    // Where it was reset, the write that noticed has left nothing for the read to say.
                    Err(Broke::Closed) if !self.spoilt => return Poll::Ready(Ok(None)),
                    Err(broke) => return Poll::Ready(Err(broke)),
                },
            }
        }
    }

    /// A small piece is copied, so that the buffer is there for the next call; a large one is not.
    fn take(&mut self, length: usize) -> Bytes {
        if length > COPIED_MOST {
            return self.input.split_to(length).freeze();
        }
        let copied = Bytes::copy_from_slice(self.input.get(..length).unwrap_or_default());
        self.input.advance(length);
        copied
    }

    /// Reads more. [`Broke::Closed`]: there is no more.
    fn poll_fill(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<Result<(), Broke>> {
        self.input.reserve(room);
        match ready!(pin!(self.wire.read_buf(&mut self.input)).poll(cx)) {
            Ok(0) => Poll::Ready(Err(Broke::Closed)),
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    /// Whether the service is still to get something of the request.
    pub fn is_sending(&self) -> bool {
        self.upload.is_some() || self.has_unwritten() || self.unflushed
    }

    fn has_unwritten(&self) -> bool {
        !self.output.is_empty() || !self.piece.is_empty() || !self.tail.is_empty()
    }

    fn stop_sending(&mut self) {
        if let Some(upload) = self.upload.take() {
            upload.body.is_cut_short();
        }
        (self.spoilt, self.unflushed) = (true, false);
        self.output.clear();
        self.piece.clear();
        self.tail.clear();
    }

    /// Writes all that was gathered.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.has_unwritten() {
            let wire = Pin::new(&mut self.wire);
            let wrote = if self.piece.is_empty() && self.tail.is_empty() {
                ready!(wire.poll_write(cx, &self.output))?
            } else {
                let slices = [&self.output[..], &self.piece[..], &self.tail[..]].map(IoSlice::new);
                ready!(wire.poll_write_vectored(cx, &slices))?
            };
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            (self.wrote, self.unflushed) = (true, matches!(self.wire, Wire::Tls(_)));
            self.advance(wrote);
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.wire).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut wrote: usize) {
        let parts: [&mut dyn Buf; 3] = [&mut self.output, &mut self.piece, &mut self.tail];
        for part in parts {
            let here = wrote.min(part.remaining());
            part.advance(here);
            wrote -= here;
        }
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
            if let Err(error) = ready!(self.poll_write(cx)) {
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
        // Only the tail of a piece is still to be written where there is no piece. A head may be long by itself.
        while self.piece.is_empty()
            && self.tail.is_empty()
            && let Some(upload) = &mut self.upload
            && (upload.holds_head || self.output.len() < GATHERED_MOST)
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
        let Some(upload) = &mut self.upload else { return Ok(()) };
        let is_chunk = match &mut upload.sent {
            Sent::Length(left) => {
                // The reader of the client's body sees to it; were there more, it would be taken for another request.
                *left = left.checked_sub(data.len() as u64).ok_or(Broke::Upload)?;
                false
            }
            // An empty chunk would be the end.
            Sent::Chunked if data.is_empty() => return Ok(()),
            Sent::Chunked => {
                self.output.put_slice(format!("{:x}\r\n", data.len()).as_bytes());
                true
            }
        };
        if data.len() > COPIED_MOST {
            self.piece = data;
        } else {
            self.output.put_slice(&data);
        }
        if is_chunk {
            self.last().put_slice(b"\r\n");
        }
        Ok(())
    }

    fn end_upload(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Broke> {
        match self.upload.take().map(|upload| upload.sent) {
            Some(Sent::Length(1..)) => return Err(Broke::Upload),
            Some(Sent::Chunked) => {
                let last = self.last();
                last.put_slice(b"0\r\n");
                if let Some(trailers) = trailers {
                    trailers.iter().for_each(|(name, value)| headers::write_field(name, value.as_bytes(), last));
                }
                last.put_slice(b"\r\n");
            }
            _ => {}
        }
        Ok(())
    }

    /// What is written last.
    fn last(&mut self) -> &mut BytesMut {
        if self.piece.is_empty() { &mut self.output } else { &mut self.tail }
    }
}
