//! Packet captures as pcapng: one port, each packet with what the switch decided on it.
//!
//! A [`CaptureSession`] takes out of the datapath's ring what the workers put in, and makes blocks of
//! it; it lasts as long as somebody asks for the next piece, and within [`CaptureLimits`]. When it is
//! dropped the capture ends and the port's connections may take the fast path again.

mod comment;
mod limits;
mod pcapng;
mod session;

pub use limits::CaptureLimits;
pub use session::{CaptureSession, CapturedPort};
