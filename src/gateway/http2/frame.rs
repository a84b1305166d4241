//! Frames as they lie on the wire (RFC 9113, sections 4 and 6).

use bytes::{BufMut, BytesMut};

use super::Reason;

/// Bytes of the head of a frame.
pub const HEAD: usize = 9;
/// The longest payload that both sides take as long as neither says more.
pub const PAYLOAD_MOST: u32 = 16_384;
/// A window as long as nothing else was said, and that of a connection.
pub const WINDOW_FIRST: u32 = 65_535;
/// A window cannot be larger.
pub const WINDOW_MOST: i64 = 0x7fff_ffff;
/// The highest number of a stream.
pub const STREAM_MOST: u32 = 0x7fff_ffff;

pub const END_STREAM: u8 = 0x1;
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;
pub const PRIORITY: u8 = 0x20;

pub const HEADER_TABLE_SIZE: u16 = 1;
pub const ENABLE_PUSH: u16 = 2;
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const INITIAL_WINDOW_SIZE: u16 = 4;
pub const MAX_FRAME_SIZE: u16 = 5;
pub const MAX_HEADER_LIST_SIZE: u16 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// Passed over (RFC 9113, section 4.1).
    Unknown,
}

impl Kind {
    pub fn of(number: u8) -> Self {
        match number {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::RstStream,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            _ => Self::Unknown,
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Headers => 1,
            Self::Priority => 2,
            Self::RstStream => 3,
            Self::Settings => 4,
            Self::PushPromise => 5,
            Self::Ping => 6,
            Self::GoAway => 7,
            Self::WindowUpdate => 8,
            Self::Continuation => 9,
            Self::Unknown => u8::MAX,
        }
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the payload.
    pub length: u32,
    pub kind: Kind,
    pub flags: u8,
    /// 0: the connection itself.
    pub stream: u32,
}

impl Head {
    pub fn read(bytes: [u8; HEAD]) -> Self {
        let [high, middle, low, kind, flags, stream @ ..] = bytes;
        let length = u32::from_be_bytes([0, high, middle, low]);
        Self { length, kind: Kind::of(kind), flags, stream: number(stream) }
    }

    pub fn written(self) -> [u8; HEAD] {
        let [_, high, middle, low] = self.length.to_be_bytes();
        let [first, second, third, fourth] = self.stream.to_be_bytes();
        [high, middle, low, self.kind.number(), self.flags, first, second, third, fourth]
    }

    pub const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Thirty-one bits; the one before them means nothing.
pub fn number(bytes: [u8; 4]) -> u32 {
    u32::from_be_bytes(bytes) & STREAM_MOST
}

/// A frame whose payload is all there.
pub fn put(kind: Kind, flags: u8, stream: u32, payload: &[u8], into: &mut BytesMut) {
    // None that is put whole is nearly as long.
    let length = u32::try_from(payload.len()).unwrap_or_default();
    into.put_slice(&Head { length, kind, flags, stream }.written());
    into.put_slice(payload);
}

pub fn put_settings(settings: &[(u16, u32)], into: &mut BytesMut) {
    let mut payload = BytesMut::with_capacity(settings.len() * 6);
    for (name, value) in settings {
        payload.put_u16(*name);
        payload.put_u32(*value);
    }
    put(Kind::Settings, 0, 0, &payload, into);
}

pub fn put_window(stream: u32, more: u32, into: &mut BytesMut) {
    put(Kind::WindowUpdate, 0, stream, &more.to_be_bytes(), into);
}

pub fn put_reset(stream: u32, reason: Reason, into: &mut BytesMut) {
    put(Kind::RstStream, 0, stream, &reason.0.to_be_bytes(), into);
}

pub fn put_goaway(last: u32, reason: Reason, into: &mut BytesMut) {
    let (last, reason) = (last.to_be_bytes(), reason.0.to_be_bytes());
    put(Kind::GoAway, 0, 0, &[last, reason].concat(), into);
}

/// Takes padding and, of HEADERS, a priority off a payload that is all there (RFC 9113, sections 6.1 and 6.2). `None`: there is more
/// padding than payload.
pub fn content(head: Head, payload: &[u8]) -> Option<&[u8]> {
    let (pad, rest) = match head.has(PADDED) {
        true => payload.split_first().map(|(pad, rest)| (usize::from(*pad), rest))?,
        false => (0, payload),
    };
    let rest = if head.has(PRIORITY) { rest.get(5..)? } else { rest };
    rest.get(..rest.len().checked_sub(pad)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_is_written() {
        for kind in (0..10).map(Kind::of) {
            let head = Head { length: 0x01_02_03, kind, flags: 0x25, stream: 0x7fff_fff1 };
            assert_eq!(Head::read(head.written()), head);
        }
        assert_eq!(Kind::of(0xfe), Kind::Unknown);
        assert_eq!(Head::read([0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).stream, STREAM_MOST);
    }

    #[test]
    fn padding_and_priority_are_no_content() {
        let head = |flags| Head { length: 0, kind: Kind::Headers, flags, stream: 1 };
        assert_eq!(content(head(0), b"abc"), Some(&b"abc"[..]));
        assert_eq!(content(head(PADDED), b"\x02abcde"), Some(&b"abc"[..]));
        assert_eq!(content(head(PADDED | PRIORITY), b"\x01\0\0\0\0\0abX"), Some(&b"ab"[..]));
        assert_eq!(content(head(PADDED), b"\x03ab"), None);
        assert_eq!(content(head(PADDED), b""), None);
        assert_eq!(content(head(PRIORITY), b"1234"), None);
    }
}
