//! `/v1`: the switch for operators and orchestrators. Bodies are those of `vswitch_api::v1`.

mod attachments;
mod audit;
mod captures;
mod cni;
mod connections;
mod events;
mod explain;
mod flow_records;
mod flows;
mod live_trace;
mod metrics;
mod openapi;
mod policies;
mod ports;
mod probes;
mod read;
mod router;
mod services;
mod status;
mod store;
mod trace;
mod traffic;
mod way;

pub(super) use metrics::metrics;
pub(super) use router::router;
pub(super) use status::readyz;
