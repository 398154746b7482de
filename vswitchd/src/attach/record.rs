//! Durable record of an attachment, and its states.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use vswitch_api::cni::CniCall;
use vswitch_api::{IfName, MacAddr, PortNo};

use crate::ipam::{AddressPlan, LeaseOwner};
use crate::state::{Attachment, ObjectKey};

/// What hangs on a port of the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A container's interface, over a veth pair.
    #[default]
    Pod,
    /// A virtual machine's, over a TAP.
    Vm,
    /// A TAP that receives copies of frames; it has neither addresses nor a Pod object.
    Mirror,
    /// The node itself, over a TAP. Part of the configuration, so never in the store.
    Gateway,
}

impl Kind {
    /// Returns the word for it in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Vm => "vm",
            Self::Mirror => "mirror",
            Self::Gateway => "gateway",
        }
    }

    /// Says who holds the leases of a port made over REST. No runtime gives such a container
    /// id: those of CNI hold no colon.
    #[must_use]
    pub fn owner(self, ifname: &IfName) -> LeaseOwner {
        LeaseOwner {
            container_id: format!("{}:{ifname}", self.name()),
            ifname: ifname.clone(),
        }
    }
}

/// Whose pod an attachment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodIdentity {
    /// Namespace and name.
    pub key: ObjectKey,
    /// K8S_POD_UID, if the runtime said it.
    pub uid: Option<String>,
    /// Labels for a Pod object that nobody declared; `None` where they are not known any more.
    pub labels: Option<BTreeMap<String, String>>,
}

/// How far an attachment has come. On disk it is `leased`, `attached` or `leaving`: a restart
/// undoes what is neither acknowledged nor gone, however far it had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its addresses and its port number are its own; nothing is made yet.
    Leased,
    /// Pod object and interface are there.
    Made,
    /// Its rules are in force.
    InForce,
    /// It forwards, and whoever wanted it knows.
    Attached,
    /// It is being undone.
    Leaving,
}

impl State {
    /// Returns whether an attachment may go from this state to the next.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Leased, Self::Made)
                | (Self::Made, Self::InForce)
                | (Self::InForce, Self::Attached)
                | (_, Self::Leaving)
        )
    }
}

/// An attachment and what its undoing needs besides. Reads as a plain [`Attachment`] too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Record {
    /// What hangs there.
    pub kind: Kind,
    /// How far it has come.
    pub state: State,
    /// Later attachments have higher numbers.
    pub order: u64,
    /// The port. Of a VM, mirror or gateway, `ifname` and `host_ifname` are the TAP; a mirror
    /// or gateway has an empty `pod`.
    #[serde(flatten)]
    pub attachment: Attachment,
    /// Addresses, routes, DNS.
    pub plan: AddressPlan,
    /// For the DEL of a delegated IPAM plugin long after the ADD.
    pub(super) delegated: Option<DelegatedCall>,
    /// UID and labels that came with the ADD; `None` in records of releases that kept none.
    pub(super) said: Option<Said>,
    /// The device was there before: it stays when the attachment goes.
    pub(super) is_found: bool,
}

/// What an ADD says of its pod besides the name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Said {
    pub(super) uid: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
}

/// The parts of the ADD that a delegated plugin's DEL must see again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DelegatedCall {
    pub(super) config: Value,
    pub(super) args: Option<String>,
    pub(super) path: Option<String>,
}

/// A record as it lies in the store, of this release or of 0.1, which had `completed` in place
/// of a state, and kept nothing but pods here.
#[derive(Deserialize)]
struct Stored {
    #[serde(default)]
    kind: Kind,
    state: Option<State>,
    #[serde(default)]
    completed: bool,
    #[serde(default)]
    order: u64,
    #[serde(flatten)]
    attachment: Attachment,
    plan: AddressPlan,
    delegated: Option<DelegatedCall>,
    said: Option<Said>,
    #[serde(default)]
    is_found: bool,
}

impl From<Stored> for Record {
    fn from(stored: Stored) -> Self {
        let of_0_1 = if stored.completed {
            State::Attached
        } else {
            State::Leased
        };
        Self {
            kind: stored.kind,
            state: stored.state.unwrap_or(of_0_1),
            order: stored.order,
            attachment: stored.attachment,
            plan: stored.plan,
            delegated: stored.delegated,
            said: stored.said,
            is_found: stored.is_found,
        }
    }
}

/// A VM or mirror port as release 0.1 kept it, in a bucket of its own.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum RestPort {
    Vm { attachment: Box<Attachment> },
    Mirror { ifname: IfName, port_no: PortNo },
}

impl From<RestPort> for Record {
    fn from(port: RestPort) -> Self {
        match port {
            RestPort::Vm { attachment } => Self::new(Kind::Vm, *attachment),
            RestPort::Mirror { ifname, port_no } => {
                Self::new(Kind::Mirror, without_pod(Kind::Mirror, ifname, port_no))
            }
        }
    }
}

/// Returns what a port is that belongs to no pod.
pub(super) fn without_pod(kind: Kind, ifname: IfName, port_no: PortNo) -> Attachment {
    Attachment {
        container_id: kind.owner(&ifname).container_id,
        ifname: ifname.clone(),
        network: String::new(),
        netns: std::path::PathBuf::new(),
        host_ifname: ifname,
        port_no,
        mac: MacAddr::default(),
        addresses: Vec::new(),
        mtu: 0,
        pod: ObjectKey {
            namespace: String::new(),
            name: String::new(),
        },
        delegated_ipam: None,
        host_ports: Vec::new(),
    }
}

impl Record {
    /// Returns the record of an attachment that is complete.
    pub(super) fn new(kind: Kind, attachment: Attachment) -> Self {
        Self {
            kind,
            state: State::Attached,
            order: 0,
            attachment,
            plan: AddressPlan::default(),
            delegated: None,
            said: None,
            is_found: false,
        }
    }

    /// Returns who holds its leases; also its key in the store.
    #[must_use]
    pub fn owner(&self) -> LeaseOwner {
        LeaseOwner {
            container_id: self.attachment.container_id.clone(),
            ifname: self.attachment.ifname.clone(),
        }
    }

    /// Returns its port number.
    #[must_use]
    pub const fn port_no(&self) -> PortNo {
        self.attachment.port_no
    }

    /// Returns the name of its device in the host.
    #[must_use]
    pub const fn host_ifname(&self) -> &IfName {
        &self.attachment.host_ifname
    }

    /// Returns the pod that it belongs to, if its kind has one.
    #[must_use]
    pub fn pod(&self) -> Option<PodIdentity> {
        if !matches!(self.kind, Kind::Pod | Kind::Vm) {
            return None;
        }
        Some(PodIdentity {
            key: self.attachment.pod.clone(),
            uid: self.said.as_ref().and_then(|said| said.uid.clone()),
            labels: self.said.as_ref().map(|said| said.labels.clone()),
        })
    }

    /// Returns its addresses without their prefix lengths.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let addresses = self.attachment.addresses.iter();
        addresses.map(ipnet::IpNet::addr).collect()
    }

    /// The call as the delegated plugin saw it at ADD.
    pub(super) fn delegated_call(&self) -> Option<(&str, CniCall)> {
        let plugin = self.attachment.delegated_ipam.as_deref()?;
        let delegated = self.delegated.as_ref()?;
        let call = CniCall {
            command: String::new(),
            container_id: Some(self.attachment.container_id.clone()),
            netns: Some(self.attachment.netns.display().to_string()),
            ifname: Some(self.attachment.ifname.to_string()),
            args: delegated.args.clone(),
            path: delegated.path.clone(),
            config: delegated.config.clone(),
        };
        Some((plugin, call))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 5] = [
        State::Leased,
        State::Made,
        State::InForce,
        State::Attached,
        State::Leaving,
    ];

    #[test]
    fn states_go_forward_one_by_one_and_from_everywhere_to_the_end() {
        for (at, from) in STATES.into_iter().enumerate() {
            for (to, next) in STATES.into_iter().enumerate() {
                let expected = next == State::Leaving || to == at + 1;
                assert_eq!(from.may_become(next), expected, "{from:?} {next:?}");
            }
        }
    }
}
