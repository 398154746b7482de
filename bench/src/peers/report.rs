//! The table on standard output and the JSON document.

use std::fmt::Write as _;

use clap::ValueEnum as _;
use serde_json::{Map, Value, json};

use crate::fabric::Peer;
use crate::gate::{Bar, Limit};
use crate::machine::Machine;
use crate::rounds::{Plan, Results};
use crate::samples::{Metric, Samples};

/// Prints a line.
#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// Peers that anything was measured of, in a fixed order.
fn measured_peers(samples: &Samples) -> Vec<Peer> {
    let has_any = |peer| {
        Metric::ALL
            .iter()
            .any(|&metric| !samples.values(peer, metric).is_empty())
    };
    let peers = Peer::value_variants().iter().copied();
    peers.filter(|&peer| has_any(peer)).collect()
}

/// Prints medians, ratios and bars.
pub(crate) fn print(results: &Results, bars: &[Bar]) {
    let samples = &results.samples;
    let peers = measured_peers(samples);
    say("\nMedians over the rounds");
    say(&table(samples, &peers, |metric, peer| {
        samples.median(peer, metric).map(|value| metric.show(value))
    }));
    say(
        "Ratio of vswitchd to each peer (of rates: more is better; of times and CPU: less is better)",
    );
    let others: Vec<Peer> = peers
        .into_iter()
        .filter(|&peer| peer != Peer::Vswitchd)
        .collect();
    say(&table(samples, &others, |metric, peer| {
        let ratio = samples.ratio(metric, Peer::Vswitchd, peer)?;
        Some(format!("{ratio:.2}"))
    }));
    if let Some(limit) = results.generator {
        say(&format!(
            "Generator of new connections: {:.0}/s over loopback, {:.0} % of a core in its own code\n",
            limit.connections_per_s,
            limit.own_share * 100.0
        ));
    }
    say("Required ratios of vswitchd");
    for bar in bars {
        say(&bar_line(bar));
    }
    say(&format!(
        "\n{:.0} seconds; the hypervisor took {:.1} % of the processors' time",
        results.seconds,
        results.steal_share * 100.0
    ));
}

fn bar_line(bar: &Bar) -> String {
    let (sign, limit) = match bar.limit {
        Limit::AtLeast(limit) => (">=", limit),
        Limit::AtMost(limit) => ("<=", limit),
    };
    let measured = bar
        .measured
        .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    let (key, peer) = (bar.metric.key(), bar.peer);
    format!(
        "  {key:26} / {peer:10} {measured:>6}  {sign} {limit:.1}  {}",
        bar.verdict()
    )
}

/// One line a metric, one column a peer; lines without any value are left out.
fn table(
    samples: &Samples,
    peers: &[Peer],
    cell: impl Fn(Metric, Peer) -> Option<String>,
) -> String {
    let mut out = format!("{:28}", "");
    for peer in peers {
        let _ = write!(out, "{peer:>11}");
    }
    out.push('\n');
    for metric in Metric::ALL {
        if peers
            .iter()
            .all(|&peer| samples.values(peer, metric).is_empty())
        {
            continue;
        }
        let _ = write!(out, "{:28}", metric.title());
        for &peer in peers {
            let _ = write!(
                out,
                "{:>11}",
                cell(metric, peer).unwrap_or_else(|| "-".to_owned())
            );
        }
        out.push('\n');
    }
    out
}

/// Returns everything that was measured.
pub(crate) fn json(machine: &Machine, plan: &Plan, results: &Results, bars: &[Bar]) -> Value {
    let samples = &results.samples;
    let peers: Map<String, Value> = measured_peers(samples)
        .into_iter()
        .map(|peer| (peer.to_string(), peer_json(samples, peer)))
        .collect();
    let generator = results.generator.map(|limit| {
        json!({"loopback_connections_per_s": limit.connections_per_s, "own_core_share": limit.own_share})
    });
    json!({"machine": machine.json(), "rounds": plan.rounds, "window_ms": plan.window_ms,
        "policies": plan.policies, "seconds": results.seconds, "steal_share": results.steal_share,
        "generator": generator, "peers": peers,
        "required": bars.iter().map(bar_json).collect::<Vec<_>>()})
}

fn peer_json(samples: &Samples, peer: Peer) -> Value {
    let measured = Metric::ALL.into_iter().filter_map(|metric| {
        let median = samples.median(peer, metric)?;
        let ratio = samples.ratio(metric, Peer::Vswitchd, peer);
        let value = json!({"median": median, "vswitchd_ratio": ratio,
            "rounds": samples.values(peer, metric)});
        Some((metric.key().to_owned(), value))
    });
    Value::Object(measured.collect())
}

fn bar_json(bar: &Bar) -> Value {
    let (kind, limit) = match bar.limit {
        Limit::AtLeast(limit) => ("at_least", limit),
        Limit::AtMost(limit) => ("at_most", limit),
    };
    json!({"metric": bar.metric.key(), "peer": bar.peer.to_string(), kind: limit,
        "measured": bar.measured, "verdict": bar.verdict()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_column_for_each_peer_and_no_empty_line() {
        let mut samples = Samples::default();
        samples.add(Peer::Veth, Metric::OneStream, 12.5);
        samples.add(Peer::Vswitchd, Metric::OneStream, 10.0);
        let peers = measured_peers(&samples);
        assert_eq!(peers, [Peer::Veth, Peer::Vswitchd]);
        let text = table(&samples, &peers, |metric, peer| {
            samples.median(peer, metric).map(|value| metric.show(value))
        });
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0], ["veth", "vswitchd"]);
        assert_eq!(lines[1], ["TCP,", "1", "stream,", "Gb/s", "12.50", "10.00"]);
    }

    #[test]
    fn a_bar_names_what_was_measured_required_and_the_verdict() {
        let bar = Bar {
            metric: Metric::OneStream,
            peer: Peer::Veth,
            limit: Limit::AtLeast(0.8),
            measured: Some(0.5),
        };
        let line = bar_line(&bar);
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            words,
            [
                "tcp_1_stream_gbps",
                "/",
                "veth",
                "0.50",
                ">=",
                "0.8",
                "missed"
            ]
        );
    }
}
