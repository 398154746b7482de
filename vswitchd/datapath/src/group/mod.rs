//! Load-balancing groups: the endpoints that a Service's connections are spread over.
//!
//! A rule of the ServiceLb table names a group by its number; a walk asks it for an endpoint
//! once for each new connection, which keeps it from there on. Choosing costs the same
//! whatever the number of endpoints, and the same connection always chooses the same one as
//! long as the group has the same endpoints: workers need not agree on anything.

mod affinity;
mod endpoint;
mod expected;
mod groups;
mod spread;

pub use endpoint::{Endpoint, GroupId, LostEndpoint, ServiceAddress};
pub use groups::GroupUpdate;
pub use spread::Group;

pub(crate) use affinity::AffinityTable;
pub(crate) use endpoint::Entrances;
pub(crate) use expected::ExpectedEndpoints;
pub(crate) use groups::Groups;
