//! Interfaces to the neighbours that attachments are made with: devices, switch ports, Pod
//! objects, namespaces.
//!
//! All methods that undo are idempotent: undoing what was never done, or done by half, is
//! success.

use std::collections::BTreeSet;
use std::future::Future;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::Pin;

use nix::sys::statfs::{FsType, statfs};
use vswitch_api::{IfName, MacAddr, PortNo};

use super::record::{PodIdentity, Record};
use crate::errors;
use crate::ipam::LeaseOwner;
use crate::port::TapOffloads;

/// A step of a neighbour that failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    message: String,
    advice: Advice,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StepError {
    /// Makes an error of a cause.
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let source = source.into();
        Self {
            message: source.to_string(),
            advice: Advice::None,
            // Its own text is the message, which the chain must not repeat.
            source: Some(errors::causes(source.as_ref()))
                .filter(|causes| !causes.is_empty())
                .map(Into::into),
        }
    }

    /// Says that the same call may succeed later (CNI code 11).
    #[must_use]
    pub fn retry_later(mut self) -> Self {
        self.advice = Advice::RetryLater;
        self
    }

    /// Returns whether the same call may succeed later.
    #[must_use]
    pub fn is_retry_later(&self) -> bool {
        self.advice == Advice::RetryLater
    }

    /// Says that what was asked for cannot be had.
    #[must_use]
    pub fn refused(mut self) -> Self {
        self.advice = Advice::AskForElse;
        self
    }

    /// Returns whether the caller has to ask for something else.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.advice == Advice::AskForElse
    }
}

/// What a caller can do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Advice {
    None,
    RetryLater,
    AskForElse,
}

/// Runs a blocking step; a step that was cut off means that the daemon is stopping.
pub(super) async fn blocking<T, E>(
    step: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, StepError>
where
    T: Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    match tokio::task::spawn_blocking(step).await {
        Ok(result) => result.map_err(StepError::new),
        Err(error) => Err(StepError::new(error).retry_later()),
    }
}

/// A step under way.
pub type Step<'a, T = ()> = Pin<Box<dyn Future<Output = Result<T, StepError>> + Send + 'a>>;

/// Devices of attachments: veth pairs into containers, TAPs.
pub trait Devices: Send + Sync + 'static {
    /// Names the host end of a container's interface: always the same for the same container
    /// and name.
    fn host_ifname(&self, container_id: &str, ifname: &IfName) -> IfName;

    /// Gives a container's or guest's interface its MAC, where nobody asks for one: always the
    /// same for the same container and name.
    fn container_mac(&self, container_id: &str, ifname: &IfName) -> MacAddr;

    /// Says whether a TAP of this name is there already; another kind of device is an error.
    fn find_tap<'a>(&'a self, ifname: &'a IfName) -> Step<'a, bool>;

    /// Makes a container's veth pair, moves one end into the namespace under its name, sets
    /// MAC, MTU, addresses and routes. The routes of the plan are complete: they have the
    /// default route if there shall be one, and a next hop wherever the family has a gateway.
    /// Nothing is to be done for a TAP: it is made when its port is opened.
    fn create<'a>(&'a self, record: &'a Record) -> Step<'a>;

    /// Removes it; success if it, or the namespace, is gone.
    fn remove<'a>(&'a self, record: &'a Record) -> Step<'a>;

    /// Compares it with what [`Self::create`] made.
    fn check<'a>(&'a self, record: &'a Record) -> Step<'a>;

    /// Returns the host ends of containers' interfaces that are there.
    fn present(&self) -> Step<'_, BTreeSet<IfName>>;

    /// Shields these host ends from the node's own stack, and no others.
    fn shield_only<'a>(&'a self, ifnames: &'a [IfName]) -> Step<'a>;

    /// Shields these host ends, and leaves the shields of others alone.
    fn shield_also<'a>(&'a self, ifnames: &'a [IfName]) -> Step<'a>;

    /// Returns the host ends that are shielded.
    fn shielded(&self) -> Step<'_, BTreeSet<IfName>>;
}

/// Ports of the switch.
pub trait Ports: Send + Sync + 'static {
    /// Brings the rules of a pod or VM into force. `is_again` says that it was attached before
    /// a restart, so that its connections may be in the middle.
    fn enforce<'a>(&'a self, record: &'a Record, is_again: bool) -> Step<'a>;

    /// Opens the device and has it forward; returns what a TAP can take.
    fn forward<'a>(&'a self, record: &'a Record) -> Step<'a, Option<TapOffloads>>;

    /// Ends forwarding, then takes the rules out of force; success if there is no such port.
    fn detach<'a>(&'a self, record: &'a Record) -> Step<'a>;

    /// Says whether the port forwards.
    fn check<'a>(&'a self, record: &'a Record) -> Step<'a>;

    /// Says whether ports can be attached (STATUS).
    fn ready(&self) -> Step<'_>;

    /// Returns whether a port has this number, known here or not.
    fn is_live(&self, no: PortNo) -> bool;
}

/// The Pod objects.
pub trait PodDirectory: Send + Sync + 'static {
    /// Waits until the pod may be attached, before anything is done for it: in a cluster the API
    /// server must have told of it, or no rules would be there that are its own. Bounded.
    fn expect<'a>(&'a self, identity: &'a PodIdentity) -> Step<'a>;

    /// Makes the pod known under the addresses of this attachment: fills the status of a
    /// declared Pod, or makes the object, marked with the attachment, if nobody declared it.
    fn declare<'a>(&'a self, record: &'a Record) -> Step<'a>;

    /// Takes the addresses out of the status, or removes the object if [`Self::declare`] made
    /// it for this attachment; success if there is none, or if it is another attachment's.
    fn retract<'a>(&'a self, record: &'a Record) -> Step<'a>;

    /// Says whether the Pod object is what [`Self::declare`] made of it.
    fn check<'a>(&'a self, record: &'a Record) -> Step<'a>;

    /// Removes Pod objects that were made for attachments that are not among `owners`.
    fn retain<'a>(&'a self, owners: &'a BTreeSet<LeaseOwner>) -> Step<'a>;
}

/// What a namespace path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetnsState {
    /// A network namespace that is not the daemon's.
    Container,
    /// The daemon's own.
    Host,
    /// Something else, for instance the file that stays when the mount is gone.
    NotNetns,
    /// Nothing.
    Missing,
}

/// Looks at namespace paths; quick enough for an async thread.
pub trait NetnsProbe: Send + Sync + 'static {
    /// Says what the path leads to.
    fn probe(&self, path: &Path) -> NetnsState;
}

/// The kernel's answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct KernelNetns;

impl NetnsProbe for KernelNetns {
    fn probe(&self, path: &Path) -> NetnsState {
        // `NSFS_MAGIC` of the kernel's include/uapi/linux/magic.h; nix does not name it.
        const NSFS: FsType = FsType(0x6e73_6673);
        let (Ok(found), Ok(filesystem)) = (std::fs::metadata(path), statfs(path)) else {
            return NetnsState::Missing;
        };
        if filesystem.filesystem_type() != NSFS {
            return NetnsState::NotNetns;
        }
        match std::fs::metadata("/proc/self/ns/net") {
            Ok(own) if own.ino() == found.ino() && own.dev() == found.dev() => NetnsState::Host,
            _ => NetnsState::Container,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_tells_namespaces_from_files() {
        let probe = |path: &str| KernelNetns.probe(Path::new(path));
        assert_eq!(probe("/proc/self/ns/net"), NetnsState::Host);
        assert_eq!(probe("/proc/self/status"), NetnsState::NotNetns);
        assert_eq!(probe("/nonexistent"), NetnsState::Missing);
    }
}
