//! The Service compiler: Services and EndpointSlices in, load-balancing groups and the rules of
//! the ServiceLb table out, so that the switch does what kube-proxy does.
//!
//! Pure: no clock, no I/O. The reconciler gives a [`ServiceCompiler`] what changed, lets it read the
//! cluster, and installs what it gives out. Each Service is compiled by itself, and only when it,
//! one of its slices or the node changed: a change costs what that one Service costs.
//!
//! ```text
//! 40 Conntrack  ct_state=+trk+inv,tcp,ip_dst=@cluster-ips → reject(ct_invalid)
//! 50 ServiceLb  proto, ip_dst=VIP, tp_dst=port → group:N, EgressAdminTier  (one per address and port)
//!               proto, ip_dst=@node-ports, tp_dst=nodePort → group:N, EgressAdminTier
//!               proto, ip_dst=@node-ports, tp_dst=hostPort → group:N, EgressAdminTier (a container's host port)
//!               ip_dst=@cluster-ips → reject(service_no_endpoints)
//! ```
//!
//! Groups are of one family: `cluster` holds all endpoints that may be used, `local` those of
//! this node, for traffic policies that say `Local`.

mod compiler;
mod endpoints;
mod entrance_match;
mod host_ports;
mod node;
mod program;
#[cfg(test)]
mod tests;

pub use compiler::{ServiceCompiler, ServiceDelta};
pub use host_ports::{HostPortForward, HostPortMapping};
pub use node::ServiceNode;
pub use program::{HealthCheck, Surface, protocol_name};
