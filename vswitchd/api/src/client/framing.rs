//! Framing of an answer's body: how its end is found (RFC 9112 §6.3).

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// This many bytes remain.
    Length(u64),
    /// Chunked coding; this many bytes of the present chunk remain.
    Chunk(u64),
    /// Chunked coding; a chunk's data is over, its line end is not read yet.
    ChunkEnd,
    /// Until the peer closes.
    Close,
    /// Complete.
    Done,
}

impl Framing {
    pub(super) fn of(
        status: u16,
        headers: &[(String, String)],
        to_head_request: bool,
    ) -> Result<Self, String> {
        if to_head_request || status == 204 || status == 304 {
            return Ok(Self::Done);
        }
        let values = |name: &'static str| {
            headers
                .iter()
                .filter(move |(known, _)| known == name)
                .map(|(_, v)| v.as_str())
        };
        let mut lengths = values("content-length");
        if let Some(coding) = values("transfer-encoding").next() {
            // RFC 9112 §6.3: both at once is an attempt to smuggle, or a broken proxy.
            if lengths.next().is_some() || !coding.eq_ignore_ascii_case("chunked") {
                return Err(format!("transfer-encoding {coding:?} is not understood"));
            }
            return Ok(Self::Chunk(0));
        }
        let Some(length) = lengths.next() else {
            return Ok(Self::Close);
        };
        if lengths.any(|other| other != length) {
            return Err("contradicting content-length headers".to_owned());
        }
        if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("content-length {length:?}"));
        }
        length
            .parse()
            .map(Self::Length)
            .map_err(|_| format!("content-length {length:?}"))
    }
}
