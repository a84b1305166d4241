//! As much of HTTP/1.1 as both ends of a benchmark need: heads, and the fields in them.

use std::io;

use bytes::{Bytes, BytesMut};
use memchr::{memchr_iter, memmem};
use tokio::io::{AsyncRead, AsyncReadExt};

/// No head in a benchmark is longer, in bytes.
const LONGEST: usize = 64 << 10;

/// Reads on until there is a whole head, and takes it out of the buffer, with its empty line. `None` once the other side has closed.
pub async fn head(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> io::Result<Option<Bytes>> {
    loop {
        if let Some(end) = memmem::find(buffer, b"\r\n\r\n") {
            return Ok(Some(buffer.split_to(end + 4).freeze()));
        }
        if buffer.len() > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        buffer.reserve(4 << 10);
        if stream.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

/// The value of the first field of that name, which is in lower case.
pub fn field<'h>(head: &'h [u8], name: &str) -> Option<&'h [u8]> {
    memchr_iter(b'\n', head).find_map(|end| {
        let line = head.get(end + 1..)?;
        let (start, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":").filter(|_| start.eq_ignore_ascii_case(name.as_bytes()))?;
        let value = value.split(|byte| *byte == b'\r').next()?;
        Some(value.trim_ascii())
    })
}

/// The length of the body in bytes; 0 where nothing is said.
pub fn length(head: &[u8]) -> usize {
    let text = field(head, "content-length").and_then(|value| std::str::from_utf8(value).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The status of an answer.
pub fn status(head: &[u8]) -> Option<u16> {
    std::str::from_utf8(head.get(9..12)?).ok()?.parse().ok()
}
