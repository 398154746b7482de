//! Endpoints of streams whose clients were asked to speak up.
//!
//! After a restart an endpoint may send first, and its segment does not say which address its
//! client is connected to. The client is asked at each that leads there; what it answers is to
//! go to that endpoint, even if the group would choose another one by now. Only for an answer
//! that is about where the endpoint is: whoever has not sent the stream has to guess that, among
//! 2^32 numbers, of a client that it has to know, and has to be an endpoint of the same Service.
//!
//! Bounded in number and time; who is forgotten is balanced by the group.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::quality::RandomState;

use super::Endpoint;
use crate::time::Timestamp;

/// Streams that are remembered.
const MAX_STREAMS: usize = 4_096;
/// How long a client may take to answer: longer than its way and a delayed acknowledgement.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far a client may be ahead of what the endpoint sends again: what was under way when the
/// daemon ended, and whose acknowledgements were lost.
const MAX_AHEAD: u32 = 1 << 18;

/// Where the client is connected to, and the client.
type Stream = (Endpoint, Endpoint);

#[derive(Debug, Clone, Copy)]
struct Expected {
    endpoint: Endpoint,
    /// Sequence number of the endpoint's segment.
    seq: u32,
    until: Timestamp,
}

/// Streams whose clients were asked; shared by all workers, used for some minutes after a start.
#[derive(Debug, Default)]
pub(crate) struct ExpectedEndpoints(Mutex<HashMap<Stream, Expected, RandomState>>);

impl ExpectedEndpoints {
    /// Returns where the stream of a client comes from that acknowledges up to `ack`.
    pub(crate) fn get(
        &self,
        service: Endpoint,
        client: Endpoint,
        ack: u32,
        now: Timestamp,
    ) -> Option<Endpoint> {
        let expected = *self.lock().get(&(service, client))?;
        let is_about_it = ack.wrapping_sub(expected.seq) <= MAX_AHEAD;
        (now < expected.until && is_about_it).then_some(expected.endpoint)
    }

    /// Remembers that a client was asked because of a segment from this endpoint.
    pub(crate) fn note(
        &self,
        (service, client): Stream,
        endpoint: Endpoint,
        seq: u32,
        now: Timestamp,
    ) {
        let mut streams = self.lock();
        if streams.len() >= MAX_STREAMS && !streams.contains_key(&(service, client)) {
            return;
        }
        let until = now + PATIENCE;
        let expected = Expected {
            endpoint,
            seq,
            until,
        };
        streams.insert((service, client), expected);
    }

    /// Forgets streams whose time is over.
    pub(crate) fn expire(&self, now: Timestamp) {
        self.lock().retain(|_, expected| now < expected.until);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Stream, Expected, RandomState>> {
        // A map is whole between its calls.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(host: u8, port: u16) -> Endpoint {
        Endpoint {
            ip: [10, 0, 0, host].into(),
            port,
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn only_an_answer_about_the_stream_in_time_is_expected() {
        let expected = ExpectedEndpoints::default();
        let (service, client, pod) = (end(9, 80), end(1, 5_000), end(2, 8_080));
        // The numbers wrap.
        let seq = u32::MAX - 10;
        expected.note((service, client), pod, seq, at(1));
        for (ahead, found) in [
            (0, true),
            (120, true),
            (MAX_AHEAD, true),
            (MAX_AHEAD + 1, false),
            (u32::MAX, false),
        ] {
            let ack = seq.wrapping_add(ahead);
            let got = expected.get(service, client, ack, at(2));
            assert_eq!(got, found.then_some(pod), "{ahead}");
        }
        assert_eq!(expected.get(service, end(1, 5_001), seq, at(2)), None);
        assert_eq!(expected.get(end(9, 81), client, seq, at(2)), None);
        assert_eq!(expected.get(service, client, seq, at(6)), None);
        expected.expire(at(6));
        assert_eq!(expected.lock().len(), 0);
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let expected = ExpectedEndpoints::default();
        let pod = end(2, 8_080);
        for port in 0..5_000 {
            expected.note((end(9, 80), end(1, port)), pod, 1, at(1));
        }
        assert_eq!(expected.lock().len(), MAX_STREAMS);
        expected.note((end(9, 80), end(1, 0)), end(3, 8_080), 1, at(1));
        let last = expected.get(end(9, 80), end(1, 0), 1, at(1));
        assert_eq!(
            last,
            Some(end(3, 8_080)),
            "who is there is brought up to date"
        );
    }
}
