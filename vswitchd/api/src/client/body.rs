//! Message framing of an answer's body (RFC 9112 §6): length, chunked, or until close.

use super::ClientError;
use super::connection::Connection;
use super::framing::Framing;

/// Longest chunk-size line with its extensions, and longest trailer section.
const MAX_CHUNK_LINE_BYTES: usize = 8 << 10;

/// Largest piece handed on at once.
const MAX_PIECE_BYTES: usize = 64 << 10;

/// A body being read.
#[derive(Debug)]
pub(super) struct Body {
    connection: Connection,
    framing: Framing,
}

impl Body {
    pub(super) fn new(connection: Connection, framing: Framing) -> Self {
        Self {
            connection,
            framing,
        }
    }

    pub(super) fn lift_deadline(&mut self) {
        self.connection.lift_deadline();
    }

    pub(super) fn too_large(&self, limit_bytes: usize) -> ClientError {
        self.connection.too_large(limit_bytes)
    }

    /// Returns the next bytes of the body, never empty, or `None` at its end.
    pub(super) fn next_piece(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            match self.framing {
                Framing::Done | Framing::Length(0) => return Ok(None),
                Framing::Length(left) => {
                    let piece = self.take(left)?;
                    self.framing = Framing::Length(left - piece.len() as u64);
                    return Ok(Some(piece));
                }
                Framing::Close => {
                    if self.connection.unread().is_empty() && self.connection.fill()? == 0 {
                        self.framing = Framing::Done;
                        return Ok(None);
                    }
                    return Ok(Some(self.connection.take_unread(MAX_PIECE_BYTES)));
                }
                Framing::Chunk(0) => self.framing = self.next_chunk()?,
                Framing::Chunk(left) => {
                    let piece = self.take(left)?;
                    let left = left - piece.len() as u64;
                    self.framing = if left == 0 {
                        Framing::ChunkEnd
                    } else {
                        Framing::Chunk(left)
                    };
                    return Ok(Some(piece));
                }
                Framing::ChunkEnd => {
                    if !self.read_line()?.is_empty() {
                        return Err(self.connection.protocol("chunk is longer than its size"));
                    }
                    self.framing = Framing::Chunk(0);
                }
            }
        }
    }

    fn take(&mut self, left: u64) -> Result<Vec<u8>, ClientError> {
        if self.connection.unread().is_empty() && self.connection.fill()? == 0 {
            return Err(self
                .connection
                .protocol("connection closed inside the body"));
        }
        let limit = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(MAX_PIECE_BYTES);
        Ok(self.connection.take_unread(limit))
    }

    fn next_chunk(&mut self) -> Result<Framing, ClientError> {
        let line = self.read_line()?;
        let size = line
            .split(|b| *b == b';')
            .next()
            .unwrap_or_default()
            .trim_ascii();
        let digits = std::str::from_utf8(size).unwrap_or_default();
        let valid =
            (1..=16).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let size = u64::from_str_radix(digits, 16).ok().filter(|_| valid);
        match size {
            None => Err(self
                .connection
                .protocol("chunk size is not a hexadecimal number")),
            Some(0) => self.skip_trailers().map(|()| Framing::Done),
            Some(size) => Ok(Framing::Chunk(size)),
        }
    }

    fn skip_trailers(&mut self) -> Result<(), ClientError> {
        let mut total = 0;
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                return Ok(());
            }
            total += line.len();
            if total > MAX_CHUNK_LINE_BYTES {
                return Err(self.connection.protocol("trailers are too long"));
            }
        }
    }

    fn read_line(&mut self) -> Result<Vec<u8>, ClientError> {
        loop {
            if let Some(end) = self.connection.unread().iter().position(|b| *b == b'\n') {
                let mut line = self.connection.take_unread(end + 1);
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
            if self.connection.unread().len() > MAX_CHUNK_LINE_BYTES {
                return Err(self
                    .connection
                    .protocol("line of the chunked coding is too long"));
            }
            if self.connection.fill()? == 0 {
                return Err(self
                    .connection
                    .protocol("connection closed inside the body"));
            }
        }
    }
}
