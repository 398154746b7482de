//! Faults of send and receive calls, classified the same way for every kind of port.

use std::io;

use vswitch_datapath::packet::Frame;

/// Why a device gives or takes no frames.
#[derive(Debug, thiserror::Error)]
pub enum PortFault {
    /// It is down.
    #[error("the device is down")]
    LinkDown,
    /// It was deleted or left the namespace.
    #[error("the device is gone")]
    Gone,
    /// The kernel refused this call; the next one may do.
    #[error("the kernel refused the call")]
    Refused {
        /// Why.
        source: io::Error,
    },
}

impl PortFault {
    /// Returns what `error` says about the device.
    pub(super) fn of_rx(error: io::Error) -> Self {
        match TxClass::of(&error) {
            TxClass::Down => Self::LinkDown,
            TxClass::Gone => Self::Gone,
            TxClass::Retry | TxClass::NoRoom | TxClass::Refused => Self::Refused { source: error },
        }
    }
}

/// What became of the frames of one send call; the four counts add up to the batch.
#[derive(Debug, Default)]
pub struct Sent {
    /// Frames that the kernel took.
    pub frames: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Frames lost because a queue or buffer was full.
    pub no_room: usize,
    /// Frames that the kernel refused: too long, or an offload it cannot do.
    pub refused: usize,
    /// Frames lost because the device is down or gone.
    pub down: usize,
    /// Set when the device is down or gone.
    pub fault: Option<PortFault>,
}

impl Sent {
    /// Returns how many frames were lost.
    #[must_use]
    pub const fn lost(&self) -> usize {
        self.no_room + self.refused + self.down
    }

    fn took(&mut self, frames: &[&Frame]) {
        self.frames += frames.len();
        self.bytes += frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TxClass {
    Retry,
    NoRoom,
    Down,
    Gone,
    Refused,
}

impl TxClass {
    fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EINTR) => Self::Retry,
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Self::NoRoom,
            // A packet socket says ENETDOWN, a TAP that is down says EIO.
            Some(libc::ENETDOWN | libc::EIO) => Self::Down,
            // A packet socket says ENXIO, a TAP whose device was deleted says EBADFD.
            Some(libc::ENXIO | libc::ENODEV | libc::EBADFD) => Self::Gone,
            _ => Self::Refused,
        }
    }
}

/// Sends `frames` through `send`, which takes some from the front and says how many.
///
/// Never waits: a port whose queue is full (a pod behind the bandwidth plugin) would hold up every
/// other port of the worker. One retry gives the kernel a second chance, then frames are lost.
pub(super) fn send_all(
    frames: &[&Frame],
    mut send: impl FnMut(&[&Frame]) -> io::Result<usize>,
) -> Sent {
    let mut sent = Sent::default();
    let mut rest = frames;
    let mut retried = false;
    while let Some((_, behind_first)) = rest.split_first() {
        let class = match send(rest) {
            Ok(count) => {
                let (taken, left) = rest.split_at(count.clamp(1, rest.len()));
                sent.took(taken);
                rest = left;
                continue;
            }
            Err(error) => TxClass::of(&error),
        };
        match class {
            TxClass::Retry => {}
            // A packet socket reports a link that was down for a moment on the next call,
            // whatever that is (sk_err), so the first answer may be about the past.
            TxClass::NoRoom | TxClass::Down if !retried => retried = true,
            TxClass::NoRoom => {
                sent.no_room += 1;
                rest = behind_first;
            }
            TxClass::Refused => {
                sent.refused += 1;
                rest = behind_first;
            }
            TxClass::Down | TxClass::Gone => {
                sent.down += rest.len();
                sent.fault = Some(match class {
                    TxClass::Gone => PortFault::Gone,
                    _ => PortFault::LinkDown,
                });
                return sent;
            }
        }
    }
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(errno: i32) -> io::Error {
        io::Error::from_raw_os_error(errno)
    }

    fn frames() -> Vec<Frame> {
        (0..3).map(|byte| Frame::from_bytes(&[byte; 60])).collect()
    }

    fn send_with(answers: &[Result<usize, i32>]) -> Sent {
        let frames = frames();
        let mut answers = answers.iter();
        send_all(&frames.iter().collect::<Vec<_>>(), |_| {
            answers.next().copied().unwrap_or(Ok(1)).map_err(error)
        })
    }

    #[test]
    fn a_refused_frame_is_skipped_and_the_others_go() {
        let sent = send_with(&[Ok(1), Err(libc::EINVAL), Ok(1)]);
        assert_eq!((sent.frames, sent.bytes, sent.refused), (2, 120, 1));
        assert!(sent.fault.is_none());
    }

    #[test]
    fn a_full_queue_is_tried_twice_and_then_costs_one_frame() {
        let sent = send_with(&[Err(libc::ENOBUFS), Err(libc::ENOBUFS), Ok(2)]);
        assert_eq!((sent.frames, sent.no_room), (2, 1));
        let sent = send_with(&[Err(libc::EAGAIN), Ok(3)]);
        assert_eq!((sent.frames, sent.no_room), (3, 0));
    }

    #[test]
    fn a_link_that_stays_down_loses_the_rest() {
        let sent = send_with(&[Ok(1), Err(libc::ENETDOWN), Err(libc::ENETDOWN)]);
        assert_eq!((sent.frames, sent.down), (1, 2));
        assert!(matches!(sent.fault, Some(PortFault::LinkDown)));
    }

    #[test]
    fn a_link_that_was_down_before_loses_nothing() {
        let sent = send_with(&[Err(libc::ENETDOWN), Ok(3)]);
        assert_eq!((sent.frames, sent.down), (3, 0));
        assert!(sent.fault.is_none());
    }

    #[test]
    fn a_deleted_device_is_told_from_a_link_that_is_down() {
        for errno in [libc::ENXIO, libc::ENODEV, libc::EBADFD] {
            let sent = send_with(&[Err(errno)]);
            assert_eq!(sent.down, 3);
            assert!(matches!(sent.fault, Some(PortFault::Gone)));
        }
    }

    #[test]
    fn an_interrupted_call_is_repeated() {
        let sent = send_with(&[Err(libc::EINTR), Err(libc::EINTR), Ok(3)]);
        assert_eq!((sent.frames, sent.lost()), (3, 0));
    }
}
