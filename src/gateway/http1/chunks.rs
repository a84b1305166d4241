//! The chunked transfer coding (RFC 9112, section 7.1), read from a buffer that fills up.

use bytes::{Buf, BytesMut};
use http::HeaderMap;

use super::Malformed;
use crate::gateway::fields::Fields;

/// Fields of one list of trailers.
const FIELDS_MOST: usize = 100;

/// A line with the size of a chunk, or all trailers, in bytes.
const LINES_MOST: usize = 16 * 1024;

/// Where in the coding the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunks {
    Size,
    /// So many bytes of the chunk are left.
    Data(u64),
    /// The line end after a chunk's data.
    DataEnd,
    Trailers,
}

/// What the buffer begins with.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// So many bytes of content.
    Data(usize),
    /// The end, with its trailers.
    End(HeaderMap),
    /// Nothing that could be told yet.
    More,
}

impl Chunks {
    /// Takes the coding off the front of `input`, up to content, which is left there for the caller to take.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Next, Malformed> {
        loop {
            match *self {
                // httparse takes a line without any digit for 0.
                Self::Size if input.first().is_some_and(|first| !first.is_ascii_hexdigit()) => {
                    return Err(Malformed("the size of a chunk"));
                }
                Self::Size => match httparse::parse_chunk_size(input) {
                    Ok(httparse::Status::Complete((length, size))) => {
                        // What ends the line for somebody else must not be within it.
                        let line = input.get(..length).and_then(|line| line.strip_suffix(b"\r\n")).unwrap_or_default();
                        if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
                            return Err(Malformed("the extension of a chunk"));
                        }
                        input.advance(length);
                        *self = if size == 0 { Self::Trailers } else { Self::Data(size) };
                    }
                    Ok(httparse::Status::Partial) if input.len() <= LINES_MOST => return Ok(Next::More),
                    _ => return Err(Malformed("the size of a chunk")),
                },
                Self::Data(0) => *self = Self::DataEnd,
                Self::Data(_) if input.is_empty() => return Ok(Next::More),
                Self::Data(left) => {
                    let here = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
                    *self = Self::Data(left - here as u64);
                    return Ok(Next::Data(here));
                }
                Self::DataEnd => match input.get(..2) {
                    Some(b"\r\n") => {
                        input.advance(2);
                        *self = Self::Size;
                    }
                    Some(_) => return Err(Malformed("the end of a chunk")),
                    None => return Ok(Next::More),
                },
                Self::Trailers => return trailers(input),
            }
        }
    }
}

fn trailers(input: &mut BytesMut) -> Result<Next, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MOST];
    match httparse::parse_headers(input, &mut fields) {
        Ok(httparse::Status::Complete((length, fields))) => {
            let trailers = Fields::read(fields, length).into_map();
            input.advance(length);
            Ok(Next::End(trailers))
        }
        Ok(httparse::Status::Partial) if input.len() <= LINES_MOST => Ok(Next::More),
        _ => Err(Malformed("the trailers")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All content and the trailers, given the bytes in pieces of this length.
    fn read(coded: &[u8], piece: usize) -> Result<Option<(Vec<u8>, HeaderMap)>, Malformed> {
        let (mut chunks, mut input, mut content) = (Chunks::Size, BytesMut::new(), Vec::new());
        for piece in coded.chunks(piece) {
            input.extend_from_slice(piece);
            loop {
                match chunks.next(&mut input)? {
                    Next::Data(length) => content.extend_from_slice(&input.split_to(length)),
                    Next::End(trailers) => return Ok(Some((content, trailers))),
                    Next::More => break,
                }
            }
        }
        Ok(None)
    }

    #[test]
    fn content_and_trailers_are_read_however_they_come() {
        let coded = b"5\r\nhello\r\n00a;name=\"value\"\r\n, dear wor\r\n2\r\nld\r\n0\r\nx-sum: 1\r\nx-sum: 2\r\n\r\n";
        for piece in 1..coded.len() {
            let (content, trailers) = read(coded, piece).unwrap().unwrap();
            assert_eq!(content, b"hello, dear world");
            assert_eq!(trailers.get_all("x-sum").iter().collect::<Vec<_>>(), ["1", "2"]);
        }
    }

    #[test]
    fn what_is_not_the_coding_is_an_error() {
        let many = format!("0\r\n{}\r\n", "x: y\r\n".repeat(FIELDS_MOST + 1));
        let long = format!("5;{}", "x".repeat(LINES_MOST));
        let endless = format!("0\r\nx: {}", "y".repeat(LINES_MOST));
        for coded in [
            "x\r\n",
            "5;\nxx\r\nhello\r\n",
            "5;\0\r\nhello\r\n",
            "5\r\nhelloX\r\n",
            "\r\n",
            "11111111111111111\r\n",
            "-1\r\n",
            &many,
            &long,
            &endless,
        ] {
            assert!(read(coded.as_bytes(), 7).is_err(), "{coded:.40}");
        }
    }

    #[test]
    fn what_is_cut_off_never_ends() {
        let coded = b"5\r\nhello\r\n0\r\nx: y\r\n\r\n";
        for length in 0..coded.len() {
            assert!(matches!(read(&coded[..length], 3), Ok(None)), "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_content_comes_back(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8), piece in 1_usize..64) {
            let mut coded = Vec::new();
            for part in &parts {
                coded.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                coded.extend_from_slice(part);
                coded.extend_from_slice(b"\r\n");
            }
            coded.extend_from_slice(b"0\r\n\r\n");
            let (content, trailers) = read(&coded, piece).unwrap().unwrap();
            prop_assert_eq!(content, parts.concat());
            prop_assert!(trailers.is_empty());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), piece in 1_usize..64) {
            let _ = read(&bytes, piece);
        }
    }
}
