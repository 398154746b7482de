//! `vsctl trace --live`: packets while they pass, merged from all nodes that are asked.
//!
//! Each daemon tells of its own part, a hop. The same packet is recognised on two nodes by its headers
//! and the sum of its payload: as it left one it comes into the other. Clocks of nodes are believed.

use std::fmt::Write as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result};
use serde::Serialize;
use vswitch_api::v1::{TraceBegun, TraceEnded, TraceHop, TraceRequest, TracedHeaders};

use super::write_steps;
use crate::output::{Format, print, write_out, yaml};
use crate::server::{Server, encode};

/// How long a hop waits for those of other nodes: longer than a packet takes, and the news of it.
const HOLD: Duration = Duration::from_millis(300);

/// How often it is looked which hops have waited.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a daemon tells; the number is that of the daemon, 0 the one that was asked first.
enum Heard {
    Begun(TraceBegun),
    Hop(Box<TraceHop>),
    Ended(usize, TraceEnded),
    /// It refused, or is gone.
    Failed(usize, Error),
}

/// A packet on its way, node by node.
#[derive(Debug, Clone, Serialize)]
struct Packet {
    hops: Vec<TraceHop>,
}

/// Traces until the first daemon has all packets that are wanted, or its time is over.
pub(crate) fn live(
    server: Server,
    peers: &[String],
    (request, count, seconds): (&TraceRequest, u64, u64),
    format: Format,
) -> Result<()> {
    let mut servers = vec![server];
    for url in peers {
        let peer = servers.first().context("the first daemon")?.peer(url);
        servers.push(peer.with_context(|| format!("peer {url}"))?);
    }
    let path = path(request, count, seconds);
    let (tell, heard) = channel();
    let asked = servers.len();
    for (number, server) in servers.into_iter().enumerate() {
        let (path, tell) = (path.clone(), tell.clone());
        // It ends with the process, and the daemon's trace with it.
        std::thread::spawn(move || listen(&server, number, &path, &tell));
    }
    let mut shown = Shown::new(format);
    follow(&heard, (asked, peers), &mut shown)?;
    shown.finish()
}

fn path(request: &TraceRequest, count: u64, seconds: u64) -> String {
    let (from, to) = (encode(&request.from), encode(&request.to));
    let mut path = format!("/v1/trace/live?from={from}&to={to}&count={count}&seconds={seconds}");
    if let Some(protocol) = &request.protocol {
        let _ = write!(path, "&protocol={}", encode(protocol));
    }
    for (name, port) in [("port", request.port), ("src_port", request.src_port)] {
        if let Some(port) = port {
            let _ = write!(path, "&{name}={port}");
        }
    }
    path
}

fn listen(server: &Server, number: usize, path: &str, tell: &Sender<Heard>) {
    let mut is_over = false;
    let listened = server.events(path, |name, data| {
        let heard = match name {
            "begun" => Heard::Begun(serde_json::from_str(data)?),
            "hop" => Heard::Hop(serde_json::from_str(data)?),
            "ended" => {
                is_over = true;
                Heard::Ended(number, serde_json::from_str(data)?)
            }
            _ => return Ok(()),
        };
        tell.send(heard).context("nobody listens")
    });
    let failure = match listened {
        Err(error) => error,
        Ok(()) if is_over => return,
        Ok(()) => Error::msg("the daemon broke off"),
    };
    let _nobody_listens = tell.send(Heard::Failed(number, failure));
}

/// Hands packets on while they come; returns when the first daemon is through.
fn follow(
    heard: &Receiver<Heard>,
    (asked, peers): (usize, &[String]),
    shown: &mut Shown,
) -> Result<()> {
    let (mut pending, mut begun, mut missing) = (Pending::default(), Vec::new(), 0);
    let mut over: Option<Instant> = None;
    loop {
        match heard.recv_timeout(LOOK_EVERY) {
            Ok(Heard::Begun(by)) => {
                begun.push(format!("{} ({})", by.node, by.port));
            }
            Ok(Heard::Hop(hop)) => pending.add(*hop, now()),
            Ok(Heard::Ended(number, ended)) => {
                if ended.lost > 0 {
                    eprintln!("vsctl: {} packets were lost to the trace", ended.lost);
                }
                if number == 0 {
                    eprintln!("vsctl: ended by {}", ended.reason);
                    over = Some(now());
                }
                continue;
            }
            Ok(Heard::Failed(0, error)) => return Err(error),
            Ok(Heard::Failed(number, error)) => {
                let peer = peers.get(number - 1).map_or("", String::as_str);
                eprintln!("vsctl: peer {peer}: {error:#}; its hops are missing");
                missing += 1;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => over = over.or_else(|| Some(now())),
        }
        if begun.len() + missing == asked && !begun.is_empty() {
            eprintln!("vsctl: tracing on {}", begun.join(", "));
            begun.clear();
            missing = 0;
        }
        let at = now();
        shown.show(pending.complete(at))?;
        if over.is_some_and(|over| at.duration_since(over) > HOLD) {
            return shown.show(pending.rest());
        }
    }
}

/// The only reader of a clock here.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn now() -> Instant {
    Instant::now()
}

/// Hops that may have others of the same packet to come.
#[derive(Debug, Default)]
struct Pending {
    hops: Vec<(Instant, TraceHop)>,
}

impl Pending {
    fn add(&mut self, hop: TraceHop, now: Instant) {
        self.hops.push((now, hop));
    }

    /// Takes out the packets of which no more is awaited.
    fn complete(&mut self, now: Instant) -> Vec<Packet> {
        let mut complete = Vec::new();
        for group in grouped(std::mem::take(&mut self.hops)) {
            let has_waited = |(since, _): &(Instant, TraceHop)| now.duration_since(*since) >= HOLD;
            if group.iter().all(has_waited) {
                complete.push(packet(group));
            } else {
                self.hops.extend(group);
            }
        }
        complete
    }

    fn rest(&mut self) -> Vec<Packet> {
        let groups = grouped(std::mem::take(&mut self.hops));
        groups.into_iter().map(packet).collect()
    }
}

type Waiting = (Instant, TraceHop);

fn packet(group: Vec<Waiting>) -> Packet {
    let hops = group.into_iter().map(|(_, hop)| hop).collect();
    Packet { hops }
}

/// Puts hops of the same packet together, in the order of its way; packets are in that of time.
fn grouped(mut hops: Vec<Waiting>) -> Vec<Vec<Waiting>> {
    hops.sort_by(|(_, a), (_, b)| a.time.cmp(&b.time));
    let mut groups: Vec<Vec<Waiting>> = Vec::new();
    for hop in hops {
        let leads_to = |a: &TraceHop, b: &TraceHop| {
            let is_elsewhere = a.node != b.node;
            is_elsewhere && a.left_as.as_ref() == Some(&b.packet)
        };
        let is_behind = |group: &Vec<Waiting>| {
            let last = group.last();
            last.is_some_and(|(_, last)| leads_to(last, &hop.1))
        };
        // The clock of its node may be behind.
        let is_before = |group: &Vec<Waiting>| {
            let first = group.first();
            first.is_some_and(|(_, first)| leads_to(&hop.1, first))
        };
        if let Some(at) = groups.iter().position(is_behind) {
            groups[at].push(hop);
        } else if let Some(at) = groups.iter().position(is_before) {
            groups[at].insert(0, hop);
        } else {
            groups.push(vec![hop]);
        }
    }
    groups
}

/// What is printed.
struct Shown {
    format: Format,
    count: u64,
    /// For a document of all of them.
    kept: Vec<Packet>,
}

impl Shown {
    fn new(format: Format) -> Self {
        Self {
            format,
            count: 0,
            kept: Vec::new(),
        }
    }

    fn show(&mut self, packets: Vec<Packet>) -> Result<()> {
        for packet in packets {
            self.count += 1;
            match self.format {
                Format::Table | Format::Wide => write_out(&text(self.count, &packet))?,
                Format::Jsonl => print(self.format, &packet, String::new)?,
                Format::Yaml => write_out(&format!("---\n{}", yaml(&packet)?))?,
                Format::Json => self.kept.push(packet),
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        match self.format {
            Format::Json => print(self.format, &self.kept, String::new),
            _ => Ok(()),
        }
    }
}

fn text(number: u64, packet: &Packet) -> String {
    let Some(first) = packet.hops.first() else {
        return String::new();
    };
    let mut out = format!("packet {number}: {}\n", headers(&first.packet));
    for hop in &packet.hops {
        write_hop(&mut out, hop);
    }
    out.push('\n');
    out
}

fn write_hop(out: &mut String, hop: &TraceHop) {
    let way = if hop.is_reply { "reply" } else { "request" };
    let _ = writeln!(
        out,
        "  {} {}: {way} in from {}",
        hop.time, hop.node, hop.in_port
    );
    if hop.was_in_kernel {
        let kernel =
            "the kernel forwarded the connection until then; traced, it goes through a worker";
        let _ = writeln!(out, "    {kernel}");
    }
    write_steps(out, &hop.steps, "    ");
    if !hop.ct_state.is_empty() {
        let _ = writeln!(out, "    connection: {}", hop.ct_state);
    }
    if let Some(translation) = &hop.translation {
        let (group, endpoint) = (&translation.group, &translation.endpoint);
        let _ = writeln!(out, "    service {group}: endpoint {endpoint}");
    }
    let left = hop.left_as.as_ref().filter(|left| **left != hop.packet);
    if let Some(left) = left {
        let _ = writeln!(out, "    left as {} -> {}", left.source, left.destination);
    }
    match &hop.way {
        Some(way) => {
            let _ = writeln!(out, "    out to {way}: {}", hop.summary);
        }
        None => {
            let _ = writeln!(out, "    {}", hop.summary);
        }
    }
    if hop.is_sender_told {
        out.push_str("    its sender was told\n");
    }
}

fn headers(of: &TracedHeaders) -> String {
    let mut out = format!("{} {} -> {}", of.protocol, of.source, of.destination);
    if let Some(flags) = &of.tcp_flags {
        let _ = write!(out, " {flags}");
    }
    for (name, number) in [("seq", of.tcp_seq), ("ack", of.tcp_ack)] {
        if let Some(number) = number {
            let _ = write!(out, " {name} {number}");
        }
    }
    if let Some(icmp_type) = of.icmp_type {
        let _ = write!(out, " type {icmp_type}");
    }
    if let Some(id) = of.ip_id {
        let _ = write!(out, " id {id}");
    }
    let _ = write!(out, ", {} bytes", of.payload_bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(destination: &str, seq: u32) -> TracedHeaders {
        TracedHeaders {
            protocol: "TCP".to_owned(),
            source: "10.0.0.1:5000".to_owned(),
            destination: destination.to_owned(),
            ip_id: Some(7),
            tcp_flags: Some("SYN".to_owned()),
            tcp_seq: Some(seq),
            tcp_ack: None,
            icmp_type: None,
            payload_bytes: 0,
            payload_checksum: 0,
        }
    }

    fn hop(node: &str, second: u32, came: TracedHeaders, left: Option<TracedHeaders>) -> TraceHop {
        TraceHop {
            node: node.to_owned(),
            time: format!("2026-01-31T03:12:{second:02}.000000Z"),
            is_reply: false,
            in_port: "default/client".to_owned(),
            packet: came,
            left_as: left,
            steps: Vec::new(),
            ct_state: "+new+trk".to_owned(),
            translation: None,
            was_in_kernel: false,
            verdict: "forwarded".to_owned(),
            drop_reason: None,
            is_sender_told: false,
            way: Some("node b, by vsw0 and vxlan".to_owned()),
            policies: Vec::new(),
            summary: "allowed: no policy isolates the pods".to_owned(),
        }
    }

    /// Nodes of each packet.
    fn nodes(hops: &[TraceHop]) -> Vec<String> {
        let at = now();
        let hops = hops.iter().map(|hop| (at, hop.clone())).collect();
        let groups = grouped(hops).into_iter();
        groups
            .map(|group| group.iter().map(|(_, hop)| hop.node.as_str()).collect())
            .collect()
    }

    #[test]
    fn a_packet_is_followed_from_node_to_node_by_what_it_left_as() {
        let (asked, behind) = (named("10.96.0.1:80", 1), named("10.0.1.2:8080", 1));
        let other = named("10.0.1.2:8080", 2);
        let first = hop("a", 1, asked, Some(behind.clone()));
        let second = hop("b", 2, behind.clone(), Some(behind.clone()));
        let foreign = hop("b", 3, other.clone(), Some(other));
        let hops = [second, foreign, first];
        assert_eq!(nodes(&hops), ["ab", "b"]);
        // The clock of the second node is behind.
        let mut late = hops;
        late[2].time = "2026-01-31T03:12:30.000000Z".to_owned();
        assert_eq!(nodes(&late), ["ab", "b"]);
    }

    #[test]
    fn what_passes_a_node_twice_is_two_packets() {
        let came = named("10.0.1.2:80", 1);
        let again = |second| hop("a", second, came.clone(), Some(came.clone()));
        assert_eq!(nodes(&[again(1), again(2)]), ["a", "a"]);
    }

    #[test]
    fn a_hop_waits_for_those_of_other_nodes() {
        let came = named("10.0.1.2:80", 1);
        let mut pending = Pending::default();
        let at = now();
        pending.add(hop("a", 1, came.clone(), Some(came.clone())), at);
        assert!(pending.complete(at).is_empty());
        let later = at + HOLD / 2;
        pending.add(hop("b", 2, came, None), later);
        assert!(pending.complete(at + HOLD).is_empty());
        let complete = pending.complete(later + HOLD);
        assert_eq!(complete[0].hops.len(), 2);
        assert!(pending.rest().is_empty());
    }

    #[test]
    fn people_see_packet_nodes_and_verdicts() {
        let (asked, behind) = (named("10.96.0.1:80", 1), named("10.0.1.2:8080", 1));
        let hops = vec![hop("a", 1, asked, Some(behind))];
        assert_eq!(
            text(3, &Packet { hops }),
            "packet 3: TCP 10.0.0.1:5000 -> 10.96.0.1:80 SYN seq 1 id 7, 0 bytes\n  \
               2026-01-31T03:12:01.000000Z a: request in from default/client\n    \
                 connection: +new+trk\n    \
                 left as 10.0.0.1:5000 -> 10.0.1.2:8080\n    \
                 out to node b, by vsw0 and vxlan: allowed: no policy isolates the pods\n\n"
        );
    }
}
