//! Finds requests whose length is ambiguous in the bytes of a connection.
//!
//! hyper resolves such requests as RFC 9112 allows: of `Content-Length` beside `Transfer-Encoding` it keeps the
//! latter, of two equal `Content-Length` it keeps one, so that an instance never sees an ambiguity. The platform
//! refuses them instead (they are the tools of request smuggling), but a parsed head no longer shows them. So this
//! watches the bytes on their way into hyper and says when one passed. It only watches: a mistake here can refuse
//! a request, never let hyper read one differently.

/// Lines that matter are recognised by their names; the longest is `transfer-encoding`.
const NAME_BYTES: usize = 18;

/// Follows a connection's requests from head to head.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    place: Place,
    head: Head,
    ambiguous: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At the start of a head's line.
    #[default]
    LineStart,
    /// Within the name of a header.
    Name,
    /// Within the value of a header whose value is not needed.
    Skip,
    /// Within the value of `Content-Length`.
    Length,
    /// This many bytes of a body are left.
    Body(u64),
    /// Within the size of a chunk.
    ChunkSize(u64),
    /// Behind the size of a chunk, before its line's end.
    ChunkExtension(u64),
    /// This many bytes of a chunk are left, its line end included.
    Chunk(u64),
    /// At the start of a line behind the last chunk.
    TrailerStart,
    /// Within such a line.
    Trailer,
}

#[derive(Debug, Default)]
struct Head {
    name: [u8; NAME_BYTES],
    name_length: usize,
    has_request_line: bool,
    lengths: u32,
    length: u64,
    encodings: u32,
}

impl Framing {
    /// True once a head had both `Content-Length` and `Transfer-Encoding`, or one of them twice. The connection
    /// can't be trusted from then on.
    pub(crate) fn is_ambiguous(&self) -> bool {
        self.ambiguous
    }

    /// Follows the next bytes that the client sent.
    pub(crate) fn observe(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.ambiguous {
                return;
            }
            match self.place {
                Place::LineStart if byte == b'\n' => {
                    bytes = rest;
                    self.end_of_head();
                }
                Place::LineStart if byte == b'\r' => bytes = rest,
                Place::LineStart if !self.head.has_request_line => {
                    self.head.has_request_line = true;
                    self.place = Place::Skip;
                }
                Place::LineStart => {
                    self.head.name_length = 0;
                    self.place = Place::Name;
                }
                Place::Name => {
                    bytes = rest;
                    self.name_byte(byte);
                }
                Place::Skip => match memchr::memchr(b'\n', bytes) {
                    Some(end) => {
                        bytes = &bytes[end + 1..];
                        self.place = Place::LineStart;
                    }
                    None => return,
                },
                Place::Length => {
                    bytes = rest;
                    if byte == b'\n' {
                        self.place = Place::LineStart;
                    } else if byte.is_ascii_digit() {
                        self.head.length =
                            self.head.length.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
                    }
                }
                Place::Body(left) => bytes = self.pass(bytes, left, Place::Body, Place::LineStart),
                Place::Chunk(left) => bytes = self.pass(bytes, left, Place::Chunk, Place::ChunkSize(0)),
                Place::ChunkSize(size) => {
                    bytes = rest;
                    self.place = match char::from(byte).to_digit(16) {
                        Some(digit) => {
                            Place::ChunkSize(size.saturating_mul(16).saturating_add(u64::from(digit)))
                        }
                        None if byte == b'\n' => Self::behind_size(size),
                        None => Place::ChunkExtension(size),
                    };
                }
                Place::ChunkExtension(size) => {
                    bytes = rest;
                    if byte == b'\n' {
                        self.place = Self::behind_size(size);
                    }
                }
                Place::TrailerStart => {
                    bytes = rest;
                    match byte {
                        b'\n' => self.place = Place::LineStart,
                        b'\r' => {}
                        _ => self.place = Place::Trailer,
                    }
                }
                Place::Trailer => {
                    bytes = rest;
                    if byte == b'\n' {
                        self.place = Place::TrailerStart;
                    }
                }
            }
        }
    }

    fn name_byte(&mut self, byte: u8) {
        match byte {
            b'\n' => self.place = Place::LineStart,
            b':' => {
                self.place = Place::Skip;
                let name = &self.head.name[..self.head.name_length];
                if name == b"content-length" {
                    self.head.lengths += 1;
                    self.head.length = 0;
                    self.place = Place::Length;
                } else if name == b"transfer-encoding" {
                    self.head.encodings += 1;
                }
            }
            _ if self.head.name_length < NAME_BYTES => {
                self.head.name[self.head.name_length] = byte.to_ascii_lowercase();
                self.head.name_length += 1;
                // Most names are neither: their lines are skipped at once.
                if self.head.name_length == 1 && !matches!(byte | 0x20, b'c' | b't') {
                    self.place = Place::Skip;
                }
            }
            _ => self.place = Place::Skip,
        }
    }

    fn end_of_head(&mut self) {
        if !self.head.has_request_line {
            return; // an empty line between requests
        }
        self.ambiguous = self.head.lengths + self.head.encodings > 1;
        self.place = match (self.head.encodings, self.head.length) {
            (0, 0) => Place::LineStart,
            (0, length) => Place::Body(length),
            _ => Place::ChunkSize(0),
        };
        self.head = Head::default();
    }

    fn behind_size(size: u64) -> Place {
        // The chunk's own line end follows its bytes.
        if size == 0 { Place::TrailerStart } else { Place::Chunk(size.saturating_add(2)) }
    }

    fn pass<'a>(&mut self, bytes: &'a [u8], left: u64, more: fn(u64) -> Place, then: Place) -> &'a [u8] {
        let passed = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - passed as u64;
        self.place = if left == 0 { then } else { more(left) };
        &bytes[passed..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the connection says, however it is cut into reads.
    fn is_ambiguous(connection: &str) -> bool {
        let at_once = observe(connection.as_bytes(), connection.len());
        for size in 1..connection.len() {
            assert_eq!(observe(connection.as_bytes(), size), at_once, "in pieces of {size}");
        }
        at_once
    }

    fn observe(connection: &[u8], size: usize) -> bool {
        let mut framing = Framing::default();
        for piece in connection.chunks(size) {
            framing.observe(piece);
        }
        framing.is_ambiguous()
    }

    #[test]
    fn finds_length_beside_encoding_in_any_order_and_case() {
        for (first, second) in [
            ("Content-Length: 3", "Transfer-Encoding: chunked"),
            ("TRANSFER-ENCODING: chunked", "content-length:3"),
            ("Content-Length: 3", "Content-Length: 3"),
            ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
        ] {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{first}\r\nX: y\r\n{second}\r\n\r\n");
            assert!(is_ambiguous(&head), "{head}");
        }
    }

    #[test]
    fn finds_it_in_a_later_request_of_the_connection() {
        let ambiguous = "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx";
        for earlier in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET / HTTP/1.1\nHost: a\n\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nA;x=y\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
        ] {
            assert!(!is_ambiguous(earlier), "{earlier}");
            assert!(is_ambiguous(&format!("{earlier}{ambiguous}")), "{earlier}");
        }
    }

    #[test]
    fn does_not_mistake_a_body_for_a_head() {
        let inner = "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n";
        let sized = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{inner}", inner.len());
        assert!(!is_ambiguous(&sized));
        let chunked = format!(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
            inner.len()
        );
        assert!(!is_ambiguous(&chunked));
        assert!(!is_ambiguous(
            "GET / HTTP/1.1\r\nContent-Length-X: 1\r\nContent-Length: 0\r\nCookie: content-length: 1\r\n\r\n"
        ));
    }
}
