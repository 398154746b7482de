//! Ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use vswitch_api::v1::{NewPort, NewPortKind, Port, PortCounters};
use vswitch_api::{IfName, MacAddr, PortNo};
use vswitch_datapath::pipeline::PortSpec;

use super::super::RestState;
use super::super::error::{ApiError, ErrorCode};
use super::read::read;
use crate::attach::{AttachError, Kind, PodIdentity, Record, StepError, Wanted, WantedAddresses};
use crate::errors::chain;
use crate::host::container_mac;
use crate::port::{LinkState, PortStats, TapOffloads};
use crate::state::ObjectKey;

/// `GET /v1/ports`.
#[utoipa::path(get, path = "/v1/ports", responses((status = 200, body = Vec<Port>)))]
pub(super) async fn list(State(state): State<RestState>) -> Response {
    read(state, ports).await
}

fn ports(state: &RestState) -> Vec<Port> {
    state.switch.sync_kernel_counters();
    let known = Known::of(state);
    let ports = state.switch.workers().port_stats().into_iter();
    ports.map(|stats| known.view(state, stats)).collect()
}

/// What is known of ports besides their counters.
struct Known {
    records: BTreeMap<PortNo, Arc<Record>>,
    offloads: BTreeMap<PortNo, TapOffloads>,
    specs: BTreeMap<PortNo, PortSpec>,
}

impl Known {
    fn of(state: &RestState) -> Self {
        let specs = state.switch.datapath().ports().into_iter();
        Self {
            records: state.attachments.by_port(),
            offloads: state.attachments.offloads(),
            specs: specs.map(|spec| (spec.no, spec)).collect(),
        }
    }

    fn view(&self, state: &RestState, stats: PortStats) -> Port {
        let no = stats.port;
        let record = self.records.get(&no);
        let spec = self.specs.get(&no);
        let drops = state.switch.datapath().port_drops(no).into_iter();
        let drops = drops.filter(|(_, count)| *count > 0);
        let bandwidth = state.switch.datapath().port_bandwidth(no);
        let addresses = record.map(|record| record.attachment.addresses.iter());
        Port {
            no: no.0,
            kind: record
                .map_or("unknown", |record| record.kind.name())
                .to_owned(),
            ifname: stats.ifname.to_string(),
            link: link(stats.link).to_owned(),
            pod: record
                .and_then(|record| record.pod())
                .map(|pod| pod.key.to_string()),
            mac: spec.map_or(MacAddr::default(), |spec| spec.mac),
            addresses: addresses.map_or_else(Vec::new, |all| all.map(ipnet::IpNet::addr).collect()),
            mtu: spec.map_or(0, |spec| spec.mtu),
            offloads: self.offloads_of(no),
            counters: PortCounters {
                rx_packets: stats.rx_frames,
                rx_bytes: stats.rx_bytes,
                rx_errors: stats.rx_errors + stats.rx_dropped,
                tx_packets: stats.tx_frames,
                tx_bytes: stats.tx_bytes,
                tx_drops: stats.tx_dropped,
                tx_errors: stats.tx_errors,
            },
            ingress_bps: bandwidth.ingress_bps,
            egress_bps: bandwidth.egress_bps,
            drops: drops
                .map(|(reason, count)| (reason.name().to_owned(), count))
                .collect(),
        }
    }

    /// What frames the port takes: a veth everything, a TAP what the kernel agreed to, a mirror
    /// (which nothing comes in from) finished frames only.
    fn offloads_of(&self, no: PortNo) -> String {
        if let Some(tap) = self.offloads.get(&no) {
            let names = [(tap.csum, "csum"), (tap.tso, "tso"), (tap.uso, "uso")];
            let taken = names
                .into_iter()
                .filter_map(|(takes, name)| takes.then_some(name));
            return taken.collect::<Vec<_>>().join(" ");
        }
        let is_pod = self.records.get(&no).is_some_and(|r| r.kind == Kind::Pod);
        if is_pod { "csum tso uso" } else { "" }.to_owned()
    }
}

const fn link(state: LinkState) -> &'static str {
    match state {
        LinkState::Up => "up",
        LinkState::Down => "down",
        LinkState::Gone => "gone",
    }
}

/// `POST /v1/ports`.
#[utoipa::path(post, path = "/v1/ports", request_body = NewPort,
    responses((status = 200, body = Port), (status = 400), (status = 409)))]
pub(super) async fn add(
    State(state): State<RestState>,
    body: Result<Json<NewPort>, JsonRejection>,
) -> Result<Json<Port>, ApiError> {
    let Json(new) =
        body.map_err(|error| ApiError::new(ErrorCode::InvalidRequest, error.body_text()))?;
    let wanted = match new.kind {
        NewPortKind::Mirror => mirror(new)?,
        NewPortKind::Vm => vm(new)?,
    };
    let made = state.attachments.add(wanted).await;
    let made = made.map_err(|error| attach_error(&error))?;
    let mut ports = state.switch.workers().port_stats().into_iter();
    let stats = ports.find(|stats| stats.port == made.port_no());
    let stats = stats.ok_or_else(|| {
        let message = format!("port {} vanished at once", made.host_ifname());
        ApiError::new(ErrorCode::Internal, message)
    })?;
    Ok(Json(Known::of(&state).view(&state, stats)))
}

fn mirror(new: NewPort) -> Result<Wanted, ApiError> {
    if new.mac.is_some() || !new.labels.is_empty() {
        let message = "a mirror port has neither MAC nor labels";
        return Err(ApiError::new(ErrorCode::InvalidRequest, message));
    }
    Ok(wanted(Kind::Mirror, &new.ifname))
}

fn vm(new: NewPort) -> Result<Wanted, ApiError> {
    let mac = new.mac.unwrap_or_else(|| container_mac("vm", &new.ifname));
    if mac.is_multicast() || mac == MacAddr::default() {
        let message = format!("{mac} cannot be the MAC of a guest");
        return Err(ApiError::new(ErrorCode::InvalidRequest, message));
    }
    let key = ObjectKey {
        namespace: new.namespace.unwrap_or_else(|| "default".to_owned()),
        name: new.name.unwrap_or_else(|| new.ifname.to_string()),
    };
    Ok(Wanted {
        mac: Some(mac),
        pod: Some(PodIdentity {
            key,
            uid: None,
            labels: Some(new.labels),
        }),
        addresses: WantedAddresses::BuiltIn {
            requested: Vec::new(),
            routes: Vec::new(),
            dns: None,
        },
        ..wanted(Kind::Vm, &new.ifname)
    })
}

fn wanted(kind: Kind, ifname: &IfName) -> Wanted {
    Wanted {
        owner: kind.owner(ifname),
        kind,
        network: String::new(),
        netns: std::path::PathBuf::new(),
        mac: None,
        mtu: None,
        pod: None,
        addresses: WantedAddresses::None,
        host_ports: Vec::new(),
    }
}

/// `DELETE /v1/ports/{ifname}`.
#[utoipa::path(delete, path = "/v1/ports/{ifname}",
    params(("ifname" = String, Path, description = "name of the TAP")),
    responses((status = 200), (status = 404)))]
pub(super) async fn remove(
    State(state): State<RestState>,
    Path(ifname): Path<String>,
) -> Result<Json<BTreeMap<(), ()>>, ApiError> {
    let Some(port) = state.attachments.rest_port(&ifname) else {
        let message = format!("there is no VM or mirror port {ifname:?}");
        return Err(ApiError::new(ErrorCode::PortNotFound, message));
    };
    let removed = state.attachments.remove(&port.owner(), None).await;
    removed.map_err(|error| attach_error(&error))?;
    Ok(Json(BTreeMap::new()))
}

fn attach_error(error: &AttachError) -> ApiError {
    let of_step = |step: &StepError| match step {
        step if step.is_retry_later() => ErrorCode::NotReady,
        step if step.is_refused() => ErrorCode::InvalidRequest,
        _ => ErrorCode::Internal,
    };
    let code = match error {
        AttachError::Attached { .. } | AttachError::NameTaken { .. } => ErrorCode::AlreadyExists,
        AttachError::Unknown { .. } => ErrorCode::PortNotFound,
        AttachError::Mtu { .. } => ErrorCode::InvalidRequest,
        AttachError::Lease { .. }
        | AttachError::Descriptors { .. }
        | AttachError::NoNumber
        | AttachError::BrokenOff { .. } => ErrorCode::NotReady,
        AttachError::Pod { source, .. }
        | AttachError::Device { source, .. }
        | AttachError::Port { source, .. } => of_step(source),
        AttachError::NotLeased { .. }
        | AttachError::LostLeases { .. }
        | AttachError::Delegate { .. }
        | AttachError::Store { .. }
        | AttachError::Incomplete { .. }
        | AttachError::NotUndone { .. } => ErrorCode::Internal,
    };
    ApiError::new(code, chain(error))
}
