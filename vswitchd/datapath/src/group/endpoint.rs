//! Endpoints of Services, and the numbers of groups.

use std::fmt;
use std::net::IpAddr;

use smallvec::SmallVec;

/// Number of a group, as in `group:7`; never used again for another group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

/// Where a connection may go: one bucket of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.ip, self.port).fmt(f)
    }
}

/// A Service's endpoint that its connections may no longer use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LostEndpoint {
    /// IP protocol.
    pub proto: u8,
    /// Address and port that clients connect to.
    pub service: Endpoint,
    /// Where they were sent.
    pub endpoint: Endpoint,
}

/// An address and port that Services have: connections to it are translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceAddress {
    /// IP protocol.
    pub proto: u8,
    /// Address and port that clients connect to.
    pub service: Endpoint,
}

/// Addresses and ports that lead to one endpoint.
pub(crate) type Entrances = SmallVec<[Endpoint; 4]>;
