//! Ports, attachments and leases.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;
use vswitch_api::v1::{AttachmentView, Lease, NewPort, NewPortKind, Port};
use vswitch_api::{IfName, MacAddr};

use crate::output::{Format, bytes, columns, print, write_out};
use crate::server::{Server, encode};

/// `add-port`.
#[derive(Debug, Args)]
pub(crate) struct AddPort {
    /// vm: TAP with offloads, an address and policies like a pod's; mirror: plain TAP for copies.
    #[arg(value_enum)]
    kind: PortKind,
    /// Name of the TAP interface.
    ifname: IfName,
    /// Namespace of the Pod object that stands for a VM.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Name of the Pod object that stands for a VM [default: the interface's name].
    #[arg(long)]
    name: Option<String>,
    /// MAC address that the guest uses.
    #[arg(long)]
    mac: Option<MacAddr>,
    /// Label of the Pod object, KEY=VALUE; may be repeated.
    #[arg(short, long = "label")]
    labels: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PortKind {
    Vm,
    Mirror,
}

/// `del-port`.
#[derive(Debug, Args)]
pub(crate) struct DelPort {
    /// Name of the TAP interface.
    ifname: IfName,
}

/// Shows ports with addresses and main counters.
pub(crate) fn show(server: &Server, format: Format) -> Result<()> {
    let ports: Vec<Port> = server.get("/v1/ports")?;
    print(format, &ports, || {
        let header = [
            "NO",
            "KIND",
            "POD",
            "ADDRESSES",
            "MAC",
            "INTERFACE",
            "LINK",
            "MTU",
            "IN-LIMIT",
            "OUT-LIMIT",
            "RX",
            "TX",
            "DROPS",
        ];
        columns(&header, ports.iter().map(summary_row))
    })
}

fn summary_row(port: &Port) -> Vec<String> {
    let addresses: Vec<String> = port.addresses.iter().map(ToString::to_string).collect();
    let counters = &port.counters;
    let drops: u64 = port.drops.values().sum::<u64>() + counters.tx_drops;
    vec![
        port.no.to_string(),
        port.kind.clone(),
        port.pod.clone().unwrap_or_else(|| "-".to_owned()),
        addresses.join(","),
        port.mac.to_string(),
        port.ifname.clone(),
        port.link.clone(),
        port.mtu.to_string(),
        rate(port.ingress_bps),
        rate(port.egress_bps),
        format!("{} ({})", counters.rx_packets, bytes(counters.rx_bytes)),
        format!("{} ({})", counters.tx_packets, bytes(counters.tx_bytes)),
        drops.to_string(),
    ]
}

/// Bits per second, as the annotations of pods have them.
fn rate(bps: Option<u64>) -> String {
    let Some(bps) = bps else {
        return "-".to_owned();
    };
    let units = [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")];
    let whole = units.into_iter().find(|(unit, _)| bps % unit == 0);
    whole.map_or_else(
        || bps.to_string(),
        |(unit, suffix)| format!("{}{suffix}", bps / unit),
    )
}

/// Shows every counter of every port.
pub(crate) fn dump_ports(server: &Server, format: Format) -> Result<()> {
    let ports: Vec<Port> = server.get("/v1/ports")?;
    print(format, &ports, || {
        let mut out = String::new();
        for port in &ports {
            let _ = writeln!(
                out,
                "port {} {} ({}): link={} mtu={} offloads={}",
                port.no,
                port.ifname,
                port.pod.as_deref().unwrap_or(&port.kind),
                port.link,
                port.mtu,
                if port.offloads.is_empty() {
                    "none"
                } else {
                    &port.offloads
                },
            );
            let c = &port.counters;
            let _ = writeln!(
                out,
                "  rx packets={} bytes={} errors={}",
                c.rx_packets, c.rx_bytes, c.rx_errors
            );
            let _ = writeln!(
                out,
                "  tx packets={} bytes={} drops={} errors={}",
                c.tx_packets, c.tx_bytes, c.tx_drops, c.tx_errors
            );
            for (reason, count) in &port.drops {
                let _ = writeln!(out, "  dropped {reason}={count}");
            }
        }
        out
    })
}

/// Shows what CNI ADD attached.
pub(crate) fn dump_attachments(server: &Server, format: Format) -> Result<()> {
    let attachments: Vec<AttachmentView> = server.get("/v1/attachments")?;
    print(format, &attachments, || {
        let header = [
            "POD",
            "PORT",
            "ADDRESSES",
            "IFNAME",
            "HOST",
            "NETNS",
            "CONTAINER",
        ];
        columns(
            &header,
            attachments.iter().map(|a| {
                let addresses: Vec<String> = a.addresses.iter().map(ToString::to_string).collect();
                vec![
                    a.pod.clone(),
                    a.port.to_string(),
                    addresses.join(","),
                    a.ifname.clone(),
                    a.host_ifname.clone(),
                    a.netns.clone(),
                    a.container_id.clone(),
                ]
            }),
        )
    })
}

/// Shows addresses in use and resting.
pub(crate) fn dump_leases(server: &Server, format: Format) -> Result<()> {
    let leases: Vec<Lease> = server.get("/v1/leases")?;
    print(format, &leases, || {
        columns(
            &["ADDRESS", "STATE", "CONTAINER", "IFNAME"],
            leases.iter().map(|lease| {
                let state = lease.rests_seconds.map_or_else(
                    || "in use".to_owned(),
                    |seconds| format!("rests {seconds} s"),
                );
                vec![
                    lease.address.to_string(),
                    state,
                    lease.container_id.clone().unwrap_or_else(|| "-".to_owned()),
                    lease.ifname.clone().unwrap_or_else(|| "-".to_owned()),
                ]
            }),
        )
    })
}

/// Adds a port.
pub(crate) fn add_port(server: &Server, args: &AddPort, format: Format) -> Result<()> {
    let kind = match args.kind {
        PortKind::Vm => NewPortKind::Vm,
        PortKind::Mirror => NewPortKind::Mirror,
    };
    let body = NewPort {
        kind,
        ifname: args.ifname.clone(),
        namespace: Some(args.namespace.clone()),
        name: args.name.clone(),
        mac: args.mac,
        labels: labels(&args.labels)?,
    };
    let port: Port = server.post("/v1/ports", &body)?;
    print(format, &port, || {
        format!("port {} {} added\n", port.no, port.ifname)
    })
}

fn labels(arguments: &[String]) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for argument in arguments {
        let Some((key, value)) = argument.split_once('=') else {
            bail!("label {argument:?} is not KEY=VALUE");
        };
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

/// Removes a port.
pub(crate) fn del_port(server: &Server, args: &DelPort) -> Result<()> {
    let _: Value = server.delete(&format!("/v1/ports/{}", encode(args.ifname.as_str())))?;
    write_out(&format!("port {} removed\n", args.ifname))
}
