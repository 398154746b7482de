//! `vsctl ping`: probes from inside the switch, on behalf of a pod.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use vswitch_api::v1::{ProbeOutcome, ProbeRequest, ProbeResult};

use crate::explain::{self, split_protocol};
use crate::output::{Format, print, write_out};
use crate::server::Server;
use crate::trace::split_port;

/// From one probe to the next.
const EVERY: Duration = Duration::from_secs(1);

/// `ping`.
#[derive(Debug, Args)]
#[command(after_help = "\
  vsctl ping client server:80
  vsctl ping shop/web svc/db:5432 -c 3
  vsctl ping client server

The switch sends a TCP SYN, a UDP datagram without data or an echo request as if the pod had: from its
port, with its addresses, by the policies that hold for it. The pod needs no tools and hears nothing;
what a TCP server has opened is reset. A denied probe is a denial of the pod's, and is recorded as one.
UDP servers that do not answer an empty datagram cannot be told from a loss.

Exit codes: 0 if any was answered; else of the last one: 2 denied or dropped by the switch (or no such
pod), 3 refused by the receiver, 4 no answer.")]
pub(crate) struct PingArgs {
    /// The pod of this node to send for: NAMESPACE/POD, POD (in namespace default), or an address of it.
    from: String,
    /// Receiver: the same forms, any address, or a Service (svc/NAME, svc/NAMESPACE/NAME), then :PORT or
    /// :PORT/PROTOCOL; without a port an echo request is sent.
    to: String,
    /// Send a UDP datagram.
    #[arg(long, conflicts_with = "icmp")]
    udp: bool,
    /// Send an echo request.
    #[arg(long)]
    icmp: bool,
    /// How many to send, one a second.
    #[arg(short, long, value_name = "PROBES", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=86_400))]
    count: u32,
    /// How long to wait for each answer, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1_000,
        value_parser = clap::value_parser!(u64).range(1..=10_000))]
    timeout: u64,
}

impl PingArgs {
    fn request(&self) -> Result<ProbeRequest> {
        let (target, protocol) = split_protocol(&self.to);
        let (to, port) = split_port(target)?;
        let protocol = match (protocol, self.udp, self.icmp, port) {
            (Some(protocol), false, false, _) => protocol,
            (Some(protocol), ..) => {
                bail!("{protocol} stands behind the port, and a flag beside it")
            }
            (None, true, ..) => "udp",
            (None, _, true, Some(port)) => bail!("an echo request has no port: leave out :{port}"),
            (None, _, true, None) | (None, false, false, None) => "icmp",
            (None, ..) => "tcp",
        };
        Ok(ProbeRequest {
            from: self.from.clone(),
            to,
            protocol: Some(protocol.to_owned()),
            port,
            timeout_ms: Some(self.timeout),
        })
    }
}

/// Sends probes; the exit code says where they ended.
pub(crate) fn ping(server: &Server, args: &PingArgs, format: Format) -> Result<ExitCode> {
    let request = args.request()?;
    let mut results: Vec<ProbeResult> = Vec::new();
    for number in 1..=args.count {
        if number > 1 {
            sleep(EVERY);
        }
        let result: ProbeResult = server.post("/v1/probes", &request)?;
        match format {
            Format::Table | Format::Wide => write_out(&text(number, &result, results.last()))?,
            Format::Jsonl => print(format, &result, String::new)?,
            Format::Json | Format::Yaml => {}
        }
        results.push(result);
    }
    match format {
        Format::Json | Format::Yaml => print(format, &results, String::new)?,
        Format::Table | Format::Wide if results.len() > 1 => write_out(&figures(&results))?,
        Format::Table | Format::Wide | Format::Jsonl => {}
    }
    Ok(ExitCode::from(exit_code(&results)))
}

fn exit_code(results: &[ProbeResult]) -> u8 {
    let is_answered = |result: &ProbeResult| result.outcome == ProbeOutcome::Answered;
    if results.iter().any(is_answered) {
        return 0;
    }
    match results.last().map(|result| result.outcome) {
        Some(ProbeOutcome::Denied | ProbeOutcome::Dropped) => 2,
        Some(ProbeOutcome::Refused) => 3,
        Some(ProbeOutcome::NoAnswer) => 4,
        Some(ProbeOutcome::Answered) | None => 0,
    }
}

/// Returns a line, and why it was not answered if that is not what was said of the one before.
fn text(number: u32, result: &ProbeResult, before: Option<&ProbeResult>) -> String {
    let mut out = format!("{number}: {}", result.summary);
    if let Some(endpoint) = &result.endpoint {
        let _ = write!(out, " (endpoint {endpoint})");
    }
    if let (Some(_), Some(way)) = (&result.answer, &result.way) {
        let _ = write!(out, ", to {way}");
    }
    out.push('\n');
    let is_known = before.is_some_and(|before| before.explanation == result.explanation);
    if let Some(explanation) = result.explanation.as_ref().filter(|_| !is_known) {
        let _ = write!(out, "\n{}", explain::text(explanation));
    }
    out
}

fn figures(results: &[ProbeResult]) -> String {
    let answers = results
        .iter()
        .filter(|one| one.outcome == ProbeOutcome::Answered);
    let times: Vec<u64> = answers
        .filter_map(|result| Some(result.answer.as_ref()?.after_us))
        .collect();
    let mut out = format!("\n{} sent, {} answered", results.len(), times.len());
    if let (Some(least), Some(most)) = (times.iter().min(), times.iter().max()) {
        let count = u64::try_from(times.len()).unwrap_or(u64::MAX);
        let mean = times.iter().sum::<u64>() / count;
        let millis = |micros: u64| format!("{}.{:03}", micros / 1_000, micros % 1_000);
        let (least, mean, most) = (millis(*least), millis(mean), millis(*most));
        let _ = write!(out, ", {least}/{mean}/{most} ms (least, mean, most)");
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vswitch_api::v1::ProbeAnswer;

    use super::*;

    fn asked(to: &str, flags: (bool, bool)) -> Result<(String, Option<u16>, String)> {
        let args = PingArgs {
            from: "client".to_owned(),
            to: to.to_owned(),
            udp: flags.0,
            icmp: flags.1,
            count: 1,
            timeout: 1_000,
        };
        let request = args.request()?;
        Ok((request.to, request.port, request.protocol.unwrap()))
    }

    #[test]
    fn the_protocol_is_that_of_the_flag_or_follows_from_the_port() {
        let expect = |to: &str, port, protocol: &str| (to.to_owned(), port, protocol.to_owned());
        let none = (false, false);
        for (to, flags, expected) in [
            ("server:80", none, expect("server", Some(80), "tcp")),
            ("server", none, expect("server", None, "icmp")),
            ("fd00::1", none, expect("fd00::1", None, "icmp")),
            (
                "server:53",
                (true, false),
                expect("server", Some(53), "udp"),
            ),
            ("server:53/udp", none, expect("server", Some(53), "udp")),
            ("[fd00::1]:80", none, expect("fd00::1", Some(80), "tcp")),
        ] {
            assert_eq!(asked(to, flags).unwrap(), expected, "{to}");
        }
        let refused = |to, flags| asked(to, flags).unwrap_err().to_string();
        assert!(refused("server:80", (false, true)).contains(":80"));
        assert!(refused("server:53/udp", (true, false)).contains("udp"));
        assert!(refused("server:http", none).contains("\"http\""));
    }

    fn result(outcome: ProbeOutcome, after_us: Option<u64>) -> ProbeResult {
        let answer = after_us.map(|after_us| ProbeAnswer {
            kind: "syn_ack".to_owned(),
            text: "SYN-ACK".to_owned(),
            from: "10.0.0.2".to_owned(),
            after_us,
        });
        ProbeResult {
            outcome,
            packet: String::new(),
            answer,
            endpoint: None,
            way: Some("default/server".to_owned()),
            drop_reason: None,
            policies: Vec::new(),
            explanation: None,
            summary: "said".to_owned(),
        }
    }

    #[test]
    fn one_answer_is_success_else_the_last_one_tells() {
        let code = |outcomes: &[ProbeOutcome]| {
            let results: Vec<_> = outcomes.iter().map(|one| result(*one, None)).collect();
            exit_code(&results)
        };
        assert_eq!(code(&[ProbeOutcome::Answered, ProbeOutcome::NoAnswer]), 0);
        assert_eq!(code(&[ProbeOutcome::NoAnswer, ProbeOutcome::Denied]), 2);
        assert_eq!(code(&[ProbeOutcome::Dropped]), 2);
        assert_eq!(code(&[ProbeOutcome::Denied, ProbeOutcome::Refused]), 3);
        assert_eq!(code(&[ProbeOutcome::NoAnswer]), 4);
    }

    #[test]
    fn people_get_a_line_a_probe_and_figures_at_the_end() {
        let answered = |after| result(ProbeOutcome::Answered, Some(after));
        assert_eq!(text(1, &answered(10), None), "1: said, to default/server\n");
        let lost = result(ProbeOutcome::NoAnswer, None);
        assert_eq!(
            figures(&[answered(1_000), answered(3_500), lost]),
            "\n3 sent, 2 answered, 1.000/2.250/3.500 ms (least, mean, most)\n"
        );
    }

    #[test]
    fn an_explanation_is_told_once() {
        let direction = json!({"allowed": true, "here": true, "reason": "r", "isolated_by": [],
            "near_misses": []});
        let explanation = json!({"allowed": false, "summary": "denied: because", "tables":
            {"allowed": false}, "egress": direction, "ingress": direction});
        let denied = ProbeResult {
            explanation: serde_json::from_value(explanation).unwrap(),
            ..result(ProbeOutcome::Denied, None)
        };
        assert!(text(1, &denied, None).contains("denied: because"));
        assert_eq!(text(2, &denied, Some(&denied)), "2: said\n");
    }
}
