//! An HTTP/1.1 client for very many calls: some are written at once, and their answers read in order.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// One connection.
pub struct Pipe {
    stream: TcpStream,
    /// Read, and not part of an answer that was told.
    pending: Vec<u8>,
}

impl Pipe {
    pub async fn try_connect(at: SocketAddr) -> Result<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect(at)).await.expect("no connection in time")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, pending: Vec::new() })
    }

    /// Writes `requests`, of which there are `count`, and tells the status of each answer once it is read. An error where the
    /// connection ends before; those that were not told have no answer then.
    pub async fn call(&mut self, requests: &[u8], count: usize, mut told: impl FnMut(u16)) -> Result<()> {
        let calls = async {
            self.stream.write_all(requests).await?;
            for _ in 0..count {
                told(self.answer().await?);
            }
            Ok(())
        };
        timeout(PATIENCE, calls).await.expect("no answer in time")
    }

    async fn answer(&mut self) -> Result<u16> {
        loop {
            if let Some((status, length)) = whole(&self.pending)? {
                self.pending.drain(..length);
                return Ok(status);
            }
            if self.stream.read_buf(&mut self.pending).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Status and length of the answer at the beginning, once all of it is there.
fn whole(bytes: &[u8]) -> Result<Option<(u16, usize)>> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let unread = || Error::new(ErrorKind::InvalidData, String::from_utf8_lossy(&bytes[..end]).into_owned());
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| unread())?;
    let status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(unread)?;
    let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let whole = end + 4 + length.ok_or_else(unread)?;
    Ok((bytes.len() >= whole).then_some((status, whole)))
}
