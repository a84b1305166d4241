//! What a client still sends when its call is over for us is read on for a while: else the connection would be reset, and the
//! answer lost with it (design, section 7).

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::config::LimitsConfig;
use crate::gateway::downstream::{ClientBody, ClientBroke};
use crate::gateway::fields::{Fields, Name};

/// A request body. What is left of it when it is dropped is read on in the background, within bounds.
pub struct UnreadBody {
    /// Absent once it has ended.
    body: Option<ClientBody>,
    patience: Duration,
    /// Bytes.
    most: u64,
}

impl UnreadBody {
    pub fn new(limits: &LimitsConfig, fields: &Fields, body: ClientBody) -> Self {
        let body = Some(body).filter(|body| !body.is_end_stream());
        // A client that waits for `100 Continue` has sent nothing yet, and need not.
        let is_to_come = body.as_ref().is_some_and(ClientBody::is_to_come) && !fields.has(Name::Expect);
        let most = if is_to_come { limits.denial_read_on_bytes } else { 0 };
        Self { body, patience: limits.denial_read_on, most }
    }
}

impl Body for UnreadBody {
    type Data = Bytes;
    type Error = ClientBroke;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientBroke>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = std::task::ready!(Pin::new(&mut *body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || body.is_end_stream() {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for UnreadBody {
    fn drop(&mut self) {
        let body = self.body.take().filter(|body| !body.is_end_stream() && self.most > 0);
        if let (Some(body), Ok(runtime)) = (body, tokio::runtime::Handle::try_current()) {
            runtime.spawn(tokio::time::timeout(self.patience, read_on(body, self.most)));
        }
    }
}

async fn read_on(mut body: ClientBody, most: u64) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, |data| data.len() as u64);
        if read > most {
            return;
        }
    }
}
