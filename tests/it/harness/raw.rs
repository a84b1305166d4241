//! An HTTP/1.1 client that writes exactly the bytes it is given, and reads answers with a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::PATIENCE;

/// A connection.
pub struct Raw {
    stream: TcpStream,
    /// Read from the socket, but not part of an answer yet.
    pending: Vec<u8>,
}

/// An answer, as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// The whole header, without the empty line.
    pub head: String,
    /// Names in lower case, in their order.
    pub headers: Vec<(String, String)>,
    /// Without transfer coding.
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.head, self.text()))
    }
}

/// One call on a connection of its own. `Host` (the address) and `Content-Length` are added unless `headers` has them.
pub fn call(at: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    try_call(at, method, target, headers, body).unwrap()
}

/// As [`call`], where nobody may be there or answer.
pub fn try_call(
    at: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut connection = Raw::try_connect(at)?;
    connection.try_send(&request(at, method, target, headers, body))?;
    if method == "HEAD" { connection.head(Instant::now() + PATIENCE) } else { connection.try_answer(PATIENCE) }
}

/// A call of the control API with a Bearer token (none where empty) and a JSON body (none where null).
/// A number of the metrics at this address: a name with its labels as they are written there.
pub fn metric(at: SocketAddr, series: &str) -> u64 {
    let text = call(at, "GET", "/metrics", &[], b"").text();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value: f64 = line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap();
    value as u64
}

pub fn api(at: SocketAddr, method: &str, target: &str, token: &str, body: &Value) -> Answer {
    try_api(at, method, target, token, body).unwrap()
}

/// As [`api`], where nobody may be there or answer.
pub fn try_api(at: SocketAddr, method: &str, target: &str, token: &str, body: &Value) -> io::Result<Answer> {
    let authorization = format!("Bearer {token}");
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let mut headers = vec![("content-type", "application/json")];
    if !token.is_empty() {
        headers.push(("authorization", authorization.as_str()));
    }
    try_call(at, method, target, &headers, text.as_bytes())
}

/// The bytes of a well-formed request.
pub fn request(at: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let has = |name: &str| headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !has("host") {
        head.push_str(&format!("host: {at}\r\n"));
    }
    if !has("content-length") && !has("transfer-encoding") && (!body.is_empty() || method != "GET") {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.extend(headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")));
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

impl Raw {
    pub fn connect(at: SocketAddr) -> Self {
        Self::try_connect(at).unwrap()
    }

    pub fn try_connect(at: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&at, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, pending: Vec::new() })
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    /// For bytes that the other side may refuse to read.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Ends our half: the other side reads its end.
    pub fn finish(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// The next answer, whole.
    pub fn answer(&mut self) -> Answer {
        self.try_answer(PATIENCE).unwrap()
    }

    /// The next answer, to a HEAD.
    pub fn answer_without_body(&mut self) -> Answer {
        self.head(Instant::now() + PATIENCE).unwrap()
    }

    /// The next answer, or the error that came in its place: `TimedOut`, `UnexpectedEof`, a reset.
    pub fn try_answer(&mut self, within: Duration) -> io::Result<Answer> {
        let deadline = Instant::now() + within;
        let mut answer = self.head(deadline)?;
        if matches!(answer.status, 204 | 304) {
            return Ok(answer);
        }
        answer.body = match (answer.header("transfer-encoding"), answer.header("content-length")) {
            (Some(_), _) => self.chunked(deadline)?,
            (None, Some(length)) => self.exactly(length.parse().unwrap(), deadline)?,
            (None, None) => self.rest(deadline)?,
        };
        Ok(answer)
    }

    /// The bytes that come next, as they come; an error once the connection has ended.
    pub fn some(&mut self, within: Duration) -> io::Result<Vec<u8>> {
        if self.pending.is_empty() {
            self.need_more(Instant::now() + within)?;
        }
        Ok(std::mem::take(&mut self.pending))
    }

    /// The next byte of whatever it is; nothing beyond it is read.
    pub fn byte(&mut self, within: Duration) -> io::Result<u8> {
        self.stream.set_read_timeout(Some(within))?;
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// Ends the connection without a word: the other side reads a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Whether the other side closes the connection within this time, having sent nothing more.
    pub fn closes(&mut self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        match self.more(deadline) {
            Ok(0) => self.pending.is_empty(),
            Ok(_) => false,
            Err(error) => error.kind() != ErrorKind::TimedOut,
        }
    }

    /// The next header that is not of an interim answer (1xx, but for 101).
    fn head(&mut self, deadline: Instant) -> io::Result<Answer> {
        loop {
            let text = self.until(b"\r\n\r\n", deadline)?;
            let answer = parse_head(&String::from_utf8_lossy(&text));
            if answer.status == 101 || answer.status >= 200 {
                return Ok(answer);
            }
        }
    }

    fn chunked(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n", deadline)?;
            let line = String::from_utf8_lossy(&line);
            let size = usize::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16);
            let size = size.map_err(|_| io::Error::new(ErrorKind::InvalidData, format!("not a chunk: {line}")))?;
            if size == 0 {
                while !self.until(b"\r\n", deadline)?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(size, deadline)?);
            self.exactly(2, deadline)?;
        }
    }

    /// The bytes before the mark, which is taken too.
    fn until(&mut self, mark: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.pending.windows(mark.len()).position(|window| window == mark) {
                let mut taken: Vec<u8> = self.pending.drain(..at + mark.len()).collect();
                taken.truncate(at);
                return Ok(taken);
            }
            self.need_more(deadline)?;
        }
    }

    fn exactly(&mut self, length: usize, deadline: Instant) -> io::Result<Vec<u8>> {
        while self.pending.len() < length {
            self.need_more(deadline)?;
        }
        Ok(self.pending.drain(..length).collect())
    }

    fn rest(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
        while self.more(deadline)? > 0 {}
        Ok(std::mem::take(&mut self.pending))
    }

    fn need_more(&mut self, deadline: Instant) -> io::Result<()> {
        match self.more(deadline)? {
            0 => Err(io::Error::new(ErrorKind::UnexpectedEof, "closed before the answer was whole")),
            _ => Ok(()),
        }
    }

    fn more(&mut self, deadline: Instant) -> io::Result<usize> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut buffer = [0; 16 * 1024];
        let read = self.stream.read(&mut buffer).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
            _ => error,
        })?;
        self.pending.extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}

fn parse_head(head: &str) -> Answer {
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let field = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    Answer {
        status: status.unwrap_or_else(|| panic!("not the header of an answer: {head:?}")),
        headers: lines.map(field).collect(),
        head: head.to_owned(),
        body: Vec::new(),
    }
}
