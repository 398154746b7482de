//! Errors of attaching and detaching ports.

use vswitch_api::PortNo;

use crate::port::PortError;
use crate::reconcile::ReconcileStopped;
use crate::worker::WorkerError;

/// A port could not be attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// The device could not be opened.
    #[error("open port {port}")]
    OpenPort {
        /// Its number.
        port: PortNo,
        /// Cause.
        source: PortError,
    },
    /// The workers refused.
    #[error("hand port {port} to the workers")]
    Worker {
        /// Its number.
        port: PortNo,
        /// Cause.
        source: WorkerError,
    },
    /// The reconciler has ended; the daemon is stopping.
    #[error("bring the rules of port {port} into force")]
    Reconcile {
        /// Its number.
        port: PortNo,
        /// Cause.
        source: ReconcileStopped,
    },
    /// A blocking task was cut off; the daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}
