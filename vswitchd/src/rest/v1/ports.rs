//! Ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use vswitch_api::v1::{NewPort, NewPortKind, Port, PortCounters};
use vswitch_api::{MacAddr, PortNo};
use vswitch_datapath::flow::PortClass;
use vswitch_datapath::pipeline::PortSpec;

use super::super::RestState;
use super::super::error::{ApiError, ErrorCode, chain};
use crate::clock;
use crate::host::container_mac;
use crate::port::{LinkState, PortStats};
use crate::reconcile::ReconciledState;
use crate::state::{Attachment, ObjectKey};
use crate::switch::{ExtraPort, ExtraPortError, GATEWAY_PORT, VmPortError, VmSpec};

/// `GET /v1/ports`.
#[utoipa::path(get, path = "/v1/ports", responses((status = 200, body = Vec<Port>)))]
pub(super) async fn list(State(state): State<RestState>) -> Json<Vec<Port>> {
    state.switch.sync_kernel_counters();
    let extra = state.switch.extra_ports().await;
    let ports = state.switch.workers().port_stats();
    let all = Specs::of(&state);
    let view = |stats| view(&state, &extra, &all, stats);
    Json(ports.into_iter().map(view).collect())
}

/// What is known of all ports at one moment.
struct Specs {
    specs: BTreeMap<PortNo, PortSpec>,
    state: Arc<ReconciledState>,
}

impl Specs {
    fn of(state: &RestState) -> Self {
        let specs = state.switch.datapath().ports().into_iter();
        Self {
            specs: specs.map(|spec| (spec.no, spec)).collect(),
            state: state.switch.reconcile().snapshot(),
        }
    }
}

fn view(state: &RestState, extra: &[ExtraPort], all: &Specs, stats: PortStats) -> Port {
    let no = stats.port;
    let attachment = all.state.attachments.get(&no).map(AsRef::as_ref);
    let spec = all.specs.get(&no);
    let drops = state.switch.datapath().port_drops(no).into_iter();
    let drops = drops.filter(|(_, count)| *count > 0);
    let bandwidth = state.switch.datapath().port_bandwidth(no);
    let mut port = Port {
        no: no.0,
        kind: kind(extra, no, spec).to_owned(),
        ifname: stats.ifname.to_string(),
        link: link(stats.link).to_owned(),
        pod: attachment.map(|attachment| attachment.pod.to_string()),
        mac: spec.map_or(MacAddr::default(), |spec| spec.mac),
        addresses: attachment.map(addresses).unwrap_or_default(),
        mtu: spec.map_or(0, |spec| spec.mtu),
        offloads: offloads(state, &stats),
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
    };
    if no == GATEWAY_PORT {
        port.addresses.clone_from(&state.switch.gateway().addresses);
    }
    port
}

fn addresses(attachment: &Attachment) -> Vec<std::net::IpAddr> {
    attachment
        .addresses
        .iter()
        .map(ipnet::IpNet::addr)
        .collect()
}

fn kind(extra: &[ExtraPort], no: PortNo, spec: Option<&PortSpec>) -> &'static str {
    match extra.iter().find(|port| port.port_no() == no) {
        Some(ExtraPort::Vm { .. }) => return "vm",
        Some(ExtraPort::Mirror { .. }) => return "mirror",
        None => {}
    }
    match spec.map(|spec| spec.class) {
        Some(PortClass::Pod) => "pod",
        Some(PortClass::Gateway) => "gateway",
        Some(PortClass::Uplink) => "uplink",
        Some(PortClass::Vm) => "vm",
        Some(PortClass::Mirror) => "mirror",
        Some(PortClass::Unknown) | None => "unknown",
    }
}

/// What frames the port takes: a veth everything, a TAP what the kernel agreed to, a mirror
/// (which nothing comes in from) finished frames only.
fn offloads(state: &RestState, stats: &PortStats) -> String {
    if let Some(tap) = state.switch.tap_offloads(stats.port) {
        let names = [(tap.csum, "csum"), (tap.tso, "tso"), (tap.uso, "uso")];
        let taken = names
            .into_iter()
            .filter_map(|(takes, name)| takes.then_some(name));
        return taken.collect::<Vec<_>>().join(" ");
    }
    let snapshot = state.switch.reconcile().snapshot();
    let is_veth = snapshot.attachments.contains_key(&stats.port);
    if is_veth {
        "csum tso uso".to_owned()
    } else {
        String::new()
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
    let made = match new.kind {
        NewPortKind::Mirror => add_mirror(&state, &new).await?,
        NewPortKind::Vm => {
            let spec = vm_spec(&new)?;
            state
                .vms
                .add(spec, clock::unix_seconds())
                .await
                .map_err(|e| vm_error(&e))?
        }
    };
    let ports = state.switch.workers().port_stats();
    let stats = ports.into_iter().find(|stats| stats.port == made.port_no());
    let stats = stats.ok_or_else(|| {
        ApiError::new(
            ErrorCode::Internal,
            format!("port {} vanished at once", made.ifname()),
        )
    })?;
    let extra = state.switch.extra_ports().await;
    Ok(Json(view(&state, &extra, &Specs::of(&state), stats)))
}

async fn add_mirror(state: &RestState, new: &NewPort) -> Result<ExtraPort, ApiError> {
    let foreign = new.mac.is_some() || !new.labels.is_empty();
    if foreign {
        let message = "a mirror port has neither MAC nor labels";
        return Err(ApiError::new(ErrorCode::InvalidRequest, message));
    }
    let made = state
        .switch
        .add_extra_port(&new.ifname, |port_no| ExtraPort::Mirror {
            ifname: new.ifname.clone(),
            port_no,
        });
    made.await.map_err(|error| port_error(&error))
}

fn vm_spec(new: &NewPort) -> Result<VmSpec, ApiError> {
    let mac = new.mac.unwrap_or_else(|| container_mac("vm", &new.ifname));
    if mac.is_multicast() || mac == MacAddr::default() {
        let message = format!("{mac} cannot be the MAC of a guest");
        return Err(ApiError::new(ErrorCode::InvalidRequest, message));
    }
    let namespace = new
        .namespace
        .clone()
        .unwrap_or_else(|| "default".to_owned());
    let name = new.name.clone().unwrap_or_else(|| new.ifname.to_string());
    Ok(VmSpec {
        ifname: new.ifname.clone(),
        pod: ObjectKey { namespace, name },
        mac,
        labels: new.labels.clone(),
    })
}

/// `DELETE /v1/ports/{ifname}`.
#[utoipa::path(delete, path = "/v1/ports/{ifname}",
    params(("ifname" = String, Path, description = "name of the TAP")),
    responses((status = 200), (status = 404)))]
pub(super) async fn remove(
    State(state): State<RestState>,
    Path(ifname): Path<String>,
) -> Result<Json<BTreeMap<(), ()>>, ApiError> {
    let removed = state.vms.remove(&ifname, clock::unix_seconds()).await;
    removed.map_err(|error| vm_error(&error))?;
    Ok(Json(BTreeMap::new()))
}

fn vm_error(error: &VmPortError) -> ApiError {
    match error {
        VmPortError::Port(error) => port_error(error),
        VmPortError::Pod { source, .. } if source.code < 500 => {
            ApiError::new(ErrorCode::InvalidRequest, chain(error))
        }
        VmPortError::Lease { .. } | VmPortError::Stopping => {
            ApiError::new(ErrorCode::NotReady, chain(error))
        }
        VmPortError::Pod { .. } => ApiError::new(ErrorCode::Internal, chain(error)),
    }
}

fn port_error(error: &ExtraPortError) -> ApiError {
    let code = match error {
        ExtraPortError::Exists { .. } => ErrorCode::AlreadyExists,
        ExtraPortError::NotFound { .. } => ErrorCode::PortNotFound,
        _ => ErrorCode::Internal,
    };
    ApiError::new(code, chain(error))
}
