//! Records on their way: what waits, what is lost, and what each destination gets.

mod file;
mod ipfix;
mod journal;
mod otlp;

use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::sync::{broadcast, watch};
use vswitch_api::v1::FlowRecord;

use super::destination::Destination;
use super::follow::{hand_over, take_in};
use super::sentence::sentence;
use super::sink::{Failed, Outcome, Sink};
use super::waiting::{Batch, MAX_WAITING, Waiting};
use crate::flow_records::Round;
use crate::supervise::Ended;

/// A record of a port.
fn record(port: u16) -> FlowRecord {
    serde_json::from_value(json!({
        "node": "node-a", "verdict": "denied", "reason": "policy_ingress", "direction": "ingress",
        "source": {"address": "10.244.0.5", "pod": "default/client", "workload": "Job nightly"},
        "destination": {"address": "10.244.0.6", "pod": "default/server"},
        "service": "10.96.0.7:80", "protocol": "TCP", "port": port,
        "policies": ["default/guard", "default/other"],
        "rule": {"table": "IngressDefault", "kind": "NetworkPolicy", "name": "default/guard", "part": ""},
        "packets": 3, "connections": 0,
        "first": "2026-01-31T03:11:58Z", "last": "2026-01-31T03:12:07Z",
        "explanation": {"reason": "pod default/server is isolated for ingress", "nearest_miss": {
            "rule": {"policy": "default/guard", "part": "ingress[0].from[0]"},
            "reason": "peer does not match",
            "advice": {"text": "would pass with label a=b on pod default/client"}
        }}
    }))
    .unwrap()
}

/// A record of connections that were allowed and have ended.
fn allowed() -> FlowRecord {
    serde_json::from_value(json!({
        "node": "node-a", "verdict": "allowed", "reason": "policy", "direction": "ingress",
        "source": {"address": "10.244.0.5", "pod": "default/client"},
        "destination": {"address": "10.244.0.6", "pod": "default/server"},
        "protocol": "TCP", "port": 80, "policies": ["default/guard"], "end": "fin", "event": "end",
        "allowed_by": [{"table": "IngressRule", "kind": "NetworkPolicy", "name": "default/guard",
            "part": "ingress[0].from[0]"}],
        "packets": 0, "connections": 2,
        "first": "2026-01-31T03:11:58Z", "last": "2026-01-31T03:12:07Z",
        "traffic": {"sent": {"packets": 6, "bytes": 512}, "received": {"packets": 5, "bytes": 2048},
            "duration_ms": 1500}
    }))
    .unwrap()
}

/// The same when they began.
fn begun() -> FlowRecord {
    let mut record = allowed();
    (record.of.end, record.of.event) = (None, Some("begin".to_owned()));
    record.traffic = None;
    record
}

fn records(ports: std::ops::Range<u16>) -> Vec<FlowRecord> {
    ports.map(record).collect()
}

fn round(before: u64, ports: std::ops::Range<u16>) -> Arc<Round> {
    let records = records(ports);
    Arc::new(Round { before, records })
}

fn ports(records: &[FlowRecord]) -> Vec<u16> {
    records.iter().map(|of| of.of.port.unwrap()).collect()
}

#[test]
fn a_sentence_says_who_whom_how_often_and_what_would_have_helped() {
    assert_eq!(
        sentence(&record(80)),
        "denied: default/client -> default/server TCP 80 (asked for 10.96.0.7:80) by \
         default/guard, default/other (ingress), 3 packets: pod default/server is isolated for \
         ingress; nearest rule default/guard ingress[0].from[0]: peer does not match; would pass \
         with label a=b on pod default/client"
    );
    let mut various = record(80);
    (various.packets, various.connections) = (0, 1);
    various.explanation = None;
    let of = &mut various.of;
    (of.source, of.destination, of.service) = (None, None, None);
    (of.protocol, of.port, of.direction) = (None, None, None);
    of.verdict = "would_deny".to_owned();
    assert_eq!(
        sentence(&various),
        "would deny: various -> various - by default/guard, default/other, 1 connection"
    );
}

#[test]
fn a_sentence_says_that_allowed_connections_began_what_they_carried_and_how_they_ended() {
    assert_eq!(
        sentence(&begun()),
        "allowed: default/client -> default/server TCP 80 by default/guard (ingress), 2 \
         connections began"
    );
    assert_eq!(
        sentence(&allowed()),
        "allowed: default/client -> default/server TCP 80 by default/guard (ingress), 2 \
         connections ended (fin), 512 bytes sent, 2048 received"
    );
}

#[tokio::test]
async fn beyond_the_bound_the_oldest_are_lost_and_counted_and_the_others_come_in_order() {
    let waiting = Waiting::new(10);
    assert_eq!(waiting.add(Batch::of(round(0, 0..6))), 0);
    assert_eq!(waiting.add(Batch::of(round(6, 6..12))), 2);
    assert_eq!(waiting.add(Batch::of(round(12, 12..12))), 0, "nothing");
    assert_eq!(waiting.add(Batch::of(round(12, 20..32))), 12);
    waiting.close();
    let mut got = Vec::new();
    while let Some(batch) = waiting.next(4).await {
        assert!(batch.len() <= 4);
        got.extend(ports(batch.records()));
    }
    assert_eq!(got, (22..32).collect::<Vec<_>>());
}

#[tokio::test]
async fn rounds_that_were_missed_are_counted_by_their_records() {
    let (tell, rounds) = broadcast::channel(4);
    let to = Destination::new("file", "there".to_owned());
    let waiting = Waiting::new(MAX_WAITING);
    let (stop, stopped) = watch::channel(false);
    let mut told = 0;
    let tell_some = |count: u64, told: &mut u64| {
        for _ in 0..count {
            tell.send(round(*told, 0..3)).unwrap();
            *told += 3;
        }
    };
    let taking = take_in(rounds, &waiting, &to, stopped);
    let telling = async {
        tell_some(1, &mut told);
        while !tell.is_empty() {
            tokio::task::yield_now().await;
        }
        // Ten at once, of which four can wait.
        tell_some(10, &mut told);
        stop.send_replace(true);
    };
    let (ended, ()) = tokio::join!(taking, telling);
    assert_eq!(ended, Ended::AsTold);
    let mut taken = 0;
    while let Some(batch) = waiting.next(100).await {
        taken += batch.len();
    }
    assert_eq!((taken, to.lost()), (15, 18));
}

#[tokio::test]
async fn the_end_of_the_records_ends_the_part_early() {
    let (tell, rounds) = broadcast::channel::<Arc<Round>>(4);
    drop(tell);
    let to = Destination::new("file", "there".to_owned());
    let (_stop, stopped) = watch::channel(false);
    let ended = take_in(rounds, &Waiting::new(1), &to, stopped).await;
    assert!(matches!(ended, Ended::Early(_)), "{ended:?}");
}

/// Does with a batch what it is told, one outcome a batch, then takes everything.
#[derive(Default)]
struct Told {
    outcomes: Mutex<Vec<Outcome>>,
    got: Mutex<Vec<FlowRecord>>,
    hangs: bool,
}

impl Sink for Told {
    async fn send(&self, batch: Batch) -> Outcome {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        let outcome = match batch.is_empty() {
            true => None,
            false => self.outcomes.lock().unwrap().pop(),
        };
        let outcome = outcome.unwrap_or(Outcome {
            taken: batch.len(),
            ..Outcome::default()
        });
        let taken = &batch.records()[..outcome.taken];
        self.got.lock().unwrap().extend_from_slice(taken);
        outcome
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_taken_is_handed_over_again_and_what_is_given_up_is_lost() {
    let outcomes = vec![
        Outcome {
            taken: 1,
            given_up: 2,
            failed: Some(Failed::with("half of it".to_owned())),
        },
        Outcome {
            failed: Some(Failed::with("it is away".to_owned())),
            ..Outcome::default()
        },
    ];
    let sink = Told {
        outcomes: Mutex::new(outcomes),
        ..Told::default()
    };
    let to = Destination::new("file", "there".to_owned());
    let waiting = Waiting::new(MAX_WAITING);
    waiting.add(Batch::of(round(0, 0..6)));
    waiting.close();
    let check = async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let said = to.problem().unwrap();
        assert_eq!(
            said,
            "flow records do not go to there: it is away; 0 are lost"
        );
    };
    tokio::join!(hand_over(&sink, &waiting, &to), check);
    assert_eq!(ports(&sink.got.lock().unwrap()), [0, 3, 4, 5]);
    assert_eq!((to.exported(), to.lost(), to.problem()), (4, 2, None));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_hangs_is_said_and_holds_nobody_up() {
    let sink = Told {
        hangs: true,
        ..Told::default()
    };
    let to = Destination::new("file", "there".to_owned());
    let waiting = Waiting::new(10);
    let (tell, rounds) = broadcast::channel(4);
    let (_stop, stopped) = watch::channel(false);
    let telling = async {
        for number in 0..40 {
            tell.send(round(number * 3, 0..3)).unwrap();
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            assert!(tell.is_empty(), "all that was told is taken in");
        }
    };
    tokio::select! {
        _ = take_in(rounds, &waiting, &to, stopped) => panic!("it goes on"),
        () = hand_over(&sink, &waiting, &to) => panic!("it hangs"),
        () = telling => {}
    }
    assert_eq!(to.lost(), 40 * 3 - 10);
    assert!(
        to.problem()
            .unwrap()
            .contains("no answer for more than 10 s")
    );
}
