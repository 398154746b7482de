//! What the CNI service needs of the rest of the daemon, one trait per neighbour.
//!
//! All methods that undo are idempotent: undoing what was never done, or done by half, is
//! success.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::statfs::{FsType, statfs};
use vswitch_api::{IfName, MacAddr};

use crate::ipam::Route;
use crate::state::{Attachment, ObjectKey};

/// A step of a neighbour that failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    message: String,
    retry_later: bool,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StepError {
    /// Makes an error of a cause.
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let source = source.into();
        Self {
            message: source.to_string(),
            retry_later: false,
            source: causes_of(source.as_ref()),
        }
    }

    /// Says that the same call may succeed later (CNI code 11).
    #[must_use]
    pub fn retry_later(mut self) -> Self {
        self.retry_later = true;
        self
    }

    /// Returns whether the same call may succeed later.
    #[must_use]
    pub fn is_retry_later(&self) -> bool {
        self.retry_later
    }
}

/// The causes behind an error whose own text is taken: text and chain must not repeat it.
fn causes_of(
    error: &(dyn std::error::Error + 'static),
) -> Option<Box<dyn std::error::Error + Send + Sync>> {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(inner) = cause {
        causes.push(inner.to_string());
        cause = inner.source();
    }
    (!causes.is_empty()).then(|| causes.join(": ").into())
}

/// Whose pod an attachment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodIdentity {
    /// Namespace and name.
    pub key: ObjectKey,
    /// K8S_POD_UID, if the runtime said it.
    pub uid: Option<String>,
    /// Labels of `args.cni.labels`, for a Pod object that nobody declared.
    pub labels: BTreeMap<String, String>,
}

/// The container's interface.
pub trait AttachHost: Send + Sync + 'static {
    /// Names the host end of an interface: always the same for the same container and name.
    fn host_ifname(&self, container_id: &str, ifname: &IfName) -> IfName;

    /// Gives the container's end its MAC, where the runtime asks for none: always the same
    /// for the same container and name.
    fn container_mac(&self, container_id: &str, ifname: &IfName) -> MacAddr;

    /// Makes the veth pair, moves one end into the namespace under its name, sets MAC, MTU,
    /// addresses and routes. `routes` is complete: it has the default route if there shall
    /// be one, and a next hop wherever the family has a gateway.
    fn create_interface(
        &self,
        attachment: &Attachment,
        gateways: &[IpAddr],
        routes: &[Route],
    ) -> impl Future<Output = Result<(), StepError>> + Send;

    /// Removes it; success if it, or the namespace, is gone.
    fn remove_interface(
        &self,
        attachment: &Attachment,
    ) -> impl Future<Output = Result<(), StepError>> + Send;

    /// Compares it with what [`Self::create_interface`] made.
    fn check_interface(
        &self,
        attachment: &Attachment,
        gateways: &[IpAddr],
        routes: &[Route],
    ) -> impl Future<Output = Result<(), StepError>> + Send;
}

/// The switch.
pub trait SwitchPorts: Send + Sync + 'static {
    /// Attaches the port; returns when the pod's rules are in force and the port forwards.
    fn attach(&self, attachment: &Attachment)
    -> impl Future<Output = Result<(), StepError>> + Send;

    /// Detaches it and ends its connections; success if there is none.
    fn detach(&self, attachment: &Attachment)
    -> impl Future<Output = Result<(), StepError>> + Send;

    /// Says whether the port is attached and forwards.
    fn check(&self, attachment: &Attachment) -> impl Future<Output = Result<(), StepError>> + Send;

    /// Says whether ports can be attached (STATUS).
    fn ready(&self) -> impl Future<Output = Result<(), StepError>> + Send;
}

/// The Pod objects.
pub trait PodDirectory: Send + Sync + 'static {
    /// Waits until the pod may be attached, before anything is done for it: in a cluster the API
    /// server must have told of it, or no rules would be there that are its own. Bounded.
    fn expect(&self, identity: &PodIdentity) -> impl Future<Output = Result<(), StepError>> + Send;

    /// Makes the pod known under its addresses: fills the status of a declared Pod, or makes
    /// the object, marked with the attachment, if nobody declared it.
    fn declare(
        &self,
        attachment: &Attachment,
        identity: &PodIdentity,
    ) -> impl Future<Output = Result<(), StepError>> + Send;

    /// Takes the addresses out of the status, or removes the object if [`Self::declare`] made
    /// it for this attachment; success if there is none.
    fn retract(
        &self,
        attachment: &Attachment,
    ) -> impl Future<Output = Result<(), StepError>> + Send;
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
