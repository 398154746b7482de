//! Rules, admin flows and address sets.

use std::fmt::Write as _;

use anyhow::Result;
use clap::Args;
use serde_json::Value;
use vswitch_api::v1::{AddressSet, AdminFlow, Flow};

use crate::output::{Format, columns, print, write_out};
use crate::server::{Server, encode};

/// `dump-flows`.
#[derive(Debug, Args)]
pub(crate) struct DumpFlows {
    /// Number or name of a table, e.g. 80 or IngressRule.
    table: Option<String>,
}

/// `add-flow`.
#[derive(Debug, Args)]
pub(crate) struct AddFlow {
    /// Name of the flow; an existing one of that name is replaced.
    name: String,
    /// Priority, the highest wins.
    #[arg(short, long, default_value_t = 100)]
    priority: u16,
    /// Match in OVS syntax, e.g. `tcp,nw_dst=10.244.0.5,tp_dst=80`; empty matches everything.
    #[arg(short, long = "match", default_value = "")]
    matches: String,
    /// Actions, e.g. `drop` or `mirror:5,goto_table:40`.
    #[arg(short, long)]
    actions: String,
}

/// `del-flow`.
#[derive(Debug, Args)]
pub(crate) struct DelFlow {
    /// Name of the flow.
    name: String,
}

/// Shows the rules of all tables, or of one.
pub(crate) fn dump_flows(server: &Server, args: &DumpFlows, format: Format) -> Result<()> {
    let path = match &args.table {
        Some(table) => format!("/v1/flows?table={}", encode(table)),
        None => "/v1/flows".to_owned(),
    };
    let flows: Vec<Flow> = server.get(&path)?;
    print(format, &flows, || {
        let mut out = String::new();
        let mut table = None;
        for flow in &flows {
            if table != Some(flow.table) {
                let _ = writeln!(out, "table {} {}", flow.table, flow.table_name);
                table = Some(flow.table);
            }
            let _ = writeln!(out, "  {}", line(flow));
        }
        out
    })
}

/// Returns a rule on one line, as ovs-ofctl prints them.
pub(crate) fn line(flow: &Flow) -> String {
    let origin = &flow.origin;
    let part = if origin.part.is_empty() {
        String::new()
    } else {
        format!(" {}", origin.part)
    };
    format!(
        "cookie={}, n_packets={}, n_bytes={}, priority={}{}{} actions={}  # {} {}{part}",
        flow.cookie,
        flow.packets,
        flow.bytes,
        flow.priority,
        if flow.matches.is_empty() { "" } else { "," },
        flow.matches,
        flow.actions,
        origin.kind,
        origin.name,
    )
}

/// Adds or replaces an admin flow.
pub(crate) fn add_flow(server: &Server, args: &AddFlow) -> Result<()> {
    let flow = AdminFlow {
        name: args.name.clone(),
        priority: args.priority,
        matches: args.matches.clone(),
        actions: args.actions.clone(),
    };
    let _: Value = server.post("/v1/flows", &flow)?;
    write_out(&format!("flow {} in force\n", args.name))
}

/// Deletes an admin flow.
pub(crate) fn del_flow(server: &Server, args: &DelFlow) -> Result<()> {
    let _: Value = server.delete(&format!("/v1/flows/{}", encode(&args.name)))?;
    write_out(&format!("flow {} deleted\n", args.name))
}

/// Shows address sets.
pub(crate) fn dump_sets(server: &Server, format: Format) -> Result<()> {
    let sets: Vec<AddressSet> = server.get("/v1/address-sets")?;
    print(format, &sets, || {
        columns(
            &["SET", "SIZE", "MEMBERS"],
            sets.iter().map(|set| {
                let members: Vec<String> = set.members.iter().map(ToString::to_string).collect();
                vec![
                    set.name.clone(),
                    members.len().to_string(),
                    members.join(","),
                ]
            }),
        )
    })
}
