//! Records of packets through a real engine with the reconciler's rules, and their files.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;
use vswitch_api::v1::{FlowEnd, FlowOf, FlowRecord, FlowRecords, FlowTraffic};
use vswitch_api::{MacAddr, PortNo};
use vswitch_datapath::{Datapath, DatapathConfig, DropReason, Engine, Outputs, Verdict};

use super::files::{DENIED as DENIED_FILES, Line, RecordFiles};
use super::kept::Kept;
use super::merge::Merged;
use super::minute::{Counted, MAX_ALLOWED, MAX_RECORDS, Minute, SECONDS};
use super::{FlowLog, FlowLogOptions, FlowQuery, Round};
use crate::clock::MonotonicClock;
use crate::config::{Deny, FlowsConfig, RecordedShare};
use crate::reconcile::{GatewayPort, PortAttachMode, ReconcileConfig, ReconcileHandle, Reconciler};
use crate::simulate::{Packet, Protocol, first_frame};
use crate::state::{
    Attachment, ClusterChange, NamespaceRecord, ObjectKey, PodPhase, PodRecord, PolicyRecord,
};
use crate::supervise::Supervisor;

const GATEWAY: PortNo = PortNo(1);
const GATEWAY_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xfe]);
const CLIENT: (&str, &str, PortNo) = ("client", "10.0.0.10", PortNo(10));
const SERVER: (&str, &str, PortNo) = ("server", "10.0.0.11", PortNo(11));

fn key(name: &str) -> ObjectKey {
    ObjectKey {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

fn mac(port: PortNo) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, u8::try_from(port.0).unwrap()])
}

fn pod(name: &str, ip: &str, labels: &[(&str, &str)]) -> ClusterChange {
    let labels = labels.iter();
    ClusterChange::Pod(PodRecord {
        service_account: "default".to_owned(),
        key: key(name),
        uid: format!("uid-{name}"),
        labels: labels
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        ips: vec![ip.parse().unwrap()],
        phase: PodPhase::Running,
        ..PodRecord::default()
    })
}

fn attachment((name, ip, port_no): (&str, &str, PortNo)) -> Attachment {
    Attachment {
        container_id: name.to_owned(),
        ifname: "eth0".parse().unwrap(),
        network: "vswitch".to_owned(),
        netns: "/var/run/netns/x".into(),
        host_ifname: format!("vp{port_no}").parse().unwrap(),
        port_no,
        mac: mac(port_no),
        addresses: vec![format!("{ip}/24").parse().unwrap()],
        mtu: 1450,
        pod: key(name),
        delegated_ipam: None,
        host_ports: Vec::new(),
    }
}

/// Client and server; the server admits who has the label role=db.
struct Switch {
    datapath: Arc<Datapath>,
    reconcile: ReconcileHandle,
    engine: Engine,
    clock: MonotonicClock,
    folder: TempDir,
}

impl Switch {
    fn start() -> Self {
        let datapath = Datapath::new(DatapathConfig::default());
        let gateway = GatewayPort {
            port_no: GATEWAY,
            name: "vsw0".to_owned(),
            mac: GATEWAY_MAC,
            addresses: vec!["10.0.0.1".parse().unwrap()],
            mtu: 1500,
        };
        let config = ReconcileConfig {
            node_name: "node".to_owned(),
            gateway,
            pod_cidrs: vec!["10.0.0.0/24".parse().unwrap()],
            deny: Deny::Drop,
        };
        let supervisor = Supervisor::default();
        let started = Reconciler::start(Arc::clone(&datapath), config, &supervisor);
        let (reconcile, _thread) = started.unwrap();
        reconcile.cluster(vec![ClusterChange::Namespace(NamespaceRecord {
            name: "shop".to_owned(),
            labels: BTreeMap::new(),
            mode: None,
        })]);
        for of in [CLIENT, SERVER] {
            reconcile.cluster(vec![pod(of.0, of.1, &[("app", of.0)])]);
            reconcile.attach(attachment(of), PortAttachMode::default());
        }
        let spec = serde_json::json!({
            "podSelector": { "matchLabels": { "app": "server" } }, "policyTypes": ["Ingress"],
            "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "role": "db" } } }] }]
        });
        reconcile.cluster(vec![ClusterChange::Policy(PolicyRecord {
            key: key("guard"),
            spec: serde_json::from_value(spec).unwrap(),
            mode: None,
        })]);
        reconcile.cluster_synced();
        let switch = Self {
            engine: datapath.engine(),
            datapath,
            reconcile,
            clock: MonotonicClock::start(),
            folder: tempfile::tempdir().unwrap(),
        };
        switch.wait();
        switch
    }

    fn wait(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let in_force = self.reconcile.wait_until_in_force();
        runtime.unwrap().block_on(in_force).unwrap();
    }

    fn log(&self) -> FlowLog {
        FlowLog::open(
            options(self.folder.path(), 64 << 20),
            Arc::clone(&self.datapath),
            self.reconcile.clone(),
            self.clock,
        )
    }

    fn send(&mut self, port: PortNo, src: IpAddr) -> Verdict {
        let packet = Packet {
            src,
            dst: SERVER.1.parse().unwrap(),
            protocol: Protocol::Udp,
            src_port: 4_000,
            dst_port: 53,
        };
        let from = if port == GATEWAY {
            GATEWAY_MAC
        } else {
            mac(port)
        };
        let mut frame = first_frame(&packet, from, GATEWAY_MAC);
        let now = self.clock.now();
        self.engine
            .process(port, &mut frame, now, &mut Outputs::default())
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.reconcile.stop();
    }
}

fn options(folder: &Path, max_bytes: u64) -> FlowLogOptions {
    FlowLogOptions {
        node: "node".to_owned(),
        folder: folder.to_owned(),
        keep: FlowsConfig {
            keep: Duration::from_secs(86_400),
            max_bytes,
            events: false,
            connections: RecordedShare::OFF,
            connection_starts: false,
        },
    }
}

const DENIED: Verdict = Verdict::Drop(DropReason::PolicyIngress);

fn everything() -> FlowQuery {
    FlowQuery {
        limit: 100_000,
        ..FlowQuery::default()
    }
}

fn only(answer: &FlowRecords) -> &FlowRecord {
    let [record] = &answer.records[..] else {
        panic!("{answer:?}");
    };
    record
}

#[test]
fn a_record_says_who_whom_which_policy_what_was_lacking_and_when() {
    let mut switch = Switch::start();
    let log = switch.log();
    let mut followed = log.subscribe();
    for _ in 0..3 {
        assert_eq!(switch.send(CLIENT.2, CLIENT.1.parse().unwrap()), DENIED);
    }
    let answer = log.query(&FlowQuery::default());
    let record = only(&answer);
    let of = &record.of;
    assert_eq!(
        (of.verdict.as_str(), of.reason.as_str()),
        ("denied", "policy_ingress")
    );
    assert_eq!(of.direction.as_deref(), Some("ingress"));
    let pod = |end: &Option<FlowEnd>| end.as_ref().unwrap().pod.clone().unwrap();
    assert_eq!(
        (pod(&of.source), pod(&of.destination)),
        ("shop/client".to_owned(), "shop/server".to_owned())
    );
    assert_eq!((of.protocol.as_deref(), of.port), (Some("UDP"), Some(53)));
    assert_eq!(of.policies, ["shop/guard"]);
    assert_eq!(of.rule.as_ref().unwrap().kind, "NetworkPolicy");
    assert_eq!((record.packets, record.connections, answer.lost), (3, 0, 0));
    let explanation = record.explanation.as_ref().unwrap();
    let miss = explanation.nearest_miss.as_ref().unwrap();
    assert_eq!(miss.rule.policy, "shop/guard");
    let advice = &miss.advice.as_ref().unwrap().text;
    assert!(advice.contains("role=db on pod shop/client"), "{advice}");
    let first = followed.try_recv().unwrap();
    let told = &first.records;
    assert_eq!((told.len(), told[0].packets), (1, 3));
    assert_eq!(told[0].explanation, record.explanation);

    switch.send(CLIENT.2, CLIENT.1.parse().unwrap());
    let asked = |change: fn(&mut FlowQuery)| {
        let mut query = everything();
        change(&mut query);
        log.query(&query).records.len()
    };
    assert_eq!(log.query(&everything()).records[0].packets, 4);
    let second = followed.try_recv().unwrap();
    assert_eq!(second.records[0].packets, 1, "of its second alone");
    assert_eq!((first.before, second.before), (0, 1));
    assert_eq!(asked(|query| query.from = "shop/client".parse().ok()), 1);
    assert_eq!(asked(|query| query.to = "shop/client".parse().ok()), 0);
    assert_eq!(asked(|query| query.with = "10.0.0.11".parse().ok()), 1);
    assert_eq!(
        asked(|query| query.policy = Some("shop/guard".to_owned())),
        1
    );
    assert_eq!(
        asked(|query| query.policy = Some("shop/other".to_owned())),
        0
    );
    assert_eq!(asked(|query| query.until = Some(1_000)), 0);
    assert_eq!(asked(|query| query.limit = 0), 0);
}

#[test]
fn a_policy_that_changes_to_allow_is_explained_no_more_and_the_connection_it_cuts_is_told() {
    let mut switch = Switch::start();
    let log = switch.log();
    let relabel = |role| {
        let labels = [("app", "client"), ("role", role)];
        vec![pod(CLIENT.0, CLIENT.1, &labels)]
    };
    switch.reconcile.cluster(relabel("db"));
    switch.wait();
    let client = CLIENT.1.parse().unwrap();
    assert_eq!(switch.send(CLIENT.2, client), Verdict::Forward(SERVER.2));
    switch.reconcile.cluster(relabel("web"));
    switch.wait();
    assert_eq!(switch.send(CLIENT.2, client), DENIED);
    let answer = log.query(&everything());
    let record = only(&answer);
    assert_eq!(record.of.verdict, "cut");
    assert_eq!((record.packets, record.connections), (1, 1));
    assert!(record.explanation.is_some());
}

fn stranger(number: u32) -> IpAddr {
    std::net::Ipv4Addr::from_bits(0xac10_0000 + number).into()
}

/// The packets of each sender.
fn by_sender(answer: &FlowRecords) -> BTreeMap<IpAddr, u64> {
    let records = answer.records.iter();
    records
        .map(|record| (record.of.source.as_ref().unwrap().address, record.packets))
        .collect()
}

#[test]
fn ten_thousand_pairs_and_a_million_packets_are_exact_and_there_after_a_kill() {
    const PAIRS: u32 = 10_000;
    let mut switch = Switch::start();
    let log = switch.log();
    let mut frames: Vec<_> = (0..PAIRS)
        .map(|number| {
            let packet = Packet {
                src: stranger(number),
                dst: SERVER.1.parse().unwrap(),
                protocol: Protocol::Udp,
                src_port: 4_000,
                dst_port: 53,
            };
            first_frame(&packet, GATEWAY_MAC, GATEWAY_MAC)
        })
        .collect();
    let mut out = Outputs::default();
    for _second in 0..10 {
        for _ in 0..10 {
            for frame in &mut frames {
                let now = switch.clock.now();
                let verdict = switch.engine.process(GATEWAY, frame, now, &mut out);
                assert_eq!(verdict, DENIED);
            }
        }
        log.keep();
    }
    let expected: BTreeMap<IpAddr, u64> =
        (0..PAIRS).map(|number| (stranger(number), 100)).collect();
    let answer = log.query(&everything());
    assert_eq!((answer.lost, &answer.problems), (0, &Vec::new()));
    assert_eq!(by_sender(&answer), expected);
    // A process that is killed does nothing more.
    drop(log);
    let answer = switch.log().query(&everything());
    assert_eq!(
        (by_sender(&answer), answer.problems),
        (expected, Vec::new())
    );
}

/// A record of a sender.
fn of(number: u32) -> FlowOf {
    let end = |address: IpAddr, pod: Option<&str>| FlowEnd {
        address,
        pod: pod.map(str::to_owned),
        workload: None,
        is_node: false,
    };
    FlowOf {
        verdict: "denied".to_owned(),
        reason: "policy_ingress".to_owned(),
        direction: Some("ingress".to_owned()),
        source: Some(end(stranger(number), None)),
        destination: Some(end(SERVER.1.parse().unwrap(), Some("shop/server"))),
        service: None,
        protocol: Some("TCP".to_owned()),
        port: Some(80),
        policies: vec!["shop/guard".to_owned()],
        rule: None,
        allowed_by: Vec::new(),
        end: None,
        event: None,
    }
}

fn counted(packets: u64, at: u64) -> Counted {
    Counted {
        packets,
        connections: 0,
        first: at,
        last: at,
        explanation: None,
        traffic: None,
    }
}

/// 2026-01-31T03:12:00Z.
const NOW: u64 = 1_769_829_120;

fn minute(number: u64, senders: std::ops::Range<u32>) -> Minute {
    let mut minute = Minute::new(number, MAX_RECORDS);
    for sender in senders {
        minute.add(of(sender), &counted(1, number * SECONDS));
    }
    minute
}

fn open(folder: &Path, max_bytes: u64) -> (RecordFiles, Vec<Line>) {
    let bounds = (max_bytes, u64::MAX);
    let (files, lines, problems) = RecordFiles::open(folder, DENIED_FILES, bounds).unwrap();
    assert_eq!(problems, Vec::<String>::new());
    (files, lines)
}

fn merged(files: &RecordFiles) -> (Vec<(FlowOf, Counted)>, Vec<String>) {
    let mut merged = Merged::default();
    let reader = files.reader();
    let problems = reader.read(|line| merged.add(line.minute, line.of, line.counted));
    (merged.into_records(), problems)
}

fn size_of(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).unwrap();
    files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum()
}

#[test]
fn the_minute_goes_on_after_a_kill_and_one_that_is_in_two_places_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), 1 << 20);
    let mut kept = Kept::open(&options, NOW);
    kept.denied.minute.add(of(1), &counted(5, NOW));
    kept.write();
    let current = folder.path().join("current.jsonl");
    let (before, _) = (fs::read(&current).unwrap(), drop(kept));

    let mut kept = Kept::open(&options, NOW + 1);
    assert_eq!(
        kept.denied.minute.records[&of(1)].packets,
        5,
        "the same minute"
    );
    kept.denied.minute.add(of(1), &counted(2, NOW + 1));
    kept.write();
    kept.turn_to(NOW + SECONDS);
    assert!(!current.exists(), "it is among those that are over");
    // Killed between the two.
    fs::write(&current, before).unwrap();
    drop(kept);
    let kept = Kept::open(&options, NOW + SECONDS);
    assert!(kept.denied.minute.records.is_empty());
    let (files, _) = open(folder.path(), 1 << 20);
    let (records, problems) = merged(&files);
    let expected = Counted {
        last: NOW + 1,
        ..counted(7, NOW)
    };
    assert_eq!((records, problems), (vec![(of(1), expected)], Vec::new()));
}

#[test]
fn records_of_many_minutes_are_one_and_the_files_never_take_more_than_they_may() {
    const MAX: u64 = 256 << 10;
    let folder = tempfile::tempdir().unwrap();
    let (mut files, _) = open(folder.path(), MAX);
    let first = NOW / SECONDS;
    for number in first..first + 200 {
        let minute = minute(number, 0..40);
        assert_eq!(files.write_current(&minute).unwrap(), 0);
        let with_next = size_of(folder.path()) + MAX / 8;
        assert!(
            with_next <= MAX,
            "{with_next} with the file that replaces the current one"
        );
        files.append(&minute, number * SECONDS).unwrap();
        assert!(size_of(folder.path()) <= MAX);
    }
    let (records, problems) = merged(&files);
    assert_eq!((records.len(), problems), (40, Vec::new()));
    for (_, counted) in &records {
        assert_eq!(counted.last, (first + 199) * SECONDS);
        // Old minutes went, and no more of them than had to: half of the room is full.
        assert!(counted.packets < 200, "{}", counted.packets);
    }
    assert!(size_of(folder.path()) > MAX / 2);
    // A restart knows as much.
    let (again, _) = open(folder.path(), MAX);
    assert_eq!(merged(&again).0, records);
}

#[test]
fn a_minute_that_has_no_room_says_for_how_many_records() {
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = open(folder.path(), 64 << 10);
    let left_out = files.write_current(&minute(NOW / SECONDS, 0..100)).unwrap();
    assert!(size_of(folder.path()) <= 8 << 10);
    drop(files);
    let (_, lines) = open(folder.path(), 64 << 10);
    assert_eq!(lines.len() + left_out, 100);
}

#[test]
fn what_is_too_old_goes() {
    let folder = tempfile::tempdir().unwrap();
    let keep = (1 << 20, 3_600);
    let (mut files, ..) = RecordFiles::open(folder.path(), DENIED_FILES, keep).unwrap();
    let number = NOW / SECONDS;
    files.append(&minute(number, 0..1), NOW).unwrap();
    let path = folder.path().join("records-0000000001.jsonl");
    let hours_ago = |hours: u64| {
        let time = std::time::UNIX_EPOCH + Duration::from_secs(NOW - hours * 3_600 - 1);
        let file = fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(time).unwrap();
    };
    hours_ago(0);
    files.append(&minute(number + 1, 1..2), NOW).unwrap();
    assert_eq!(merged(&files).0.len(), 2);
    hours_ago(1);
    files.append(&minute(number + 2, 2..3), NOW).unwrap();
    let (records, _) = merged(&files);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].0, of(2));
}

#[test]
fn damage_anywhere_costs_its_own_record_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (mut files, _) = open(folder.path(), 1 << 20);
    let number = NOW / SECONDS;
    files.append(&minute(number, 0..3), NOW).unwrap();
    let path = folder.path().join("records-0000000001.jsonl");
    let whole = fs::read(&path).unwrap();
    let lines = |bytes: &[u8]| {
        bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .count()
    };
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let (mut files, _) = open(folder.path(), 1 << 20);
        files.append(&minute(number + 1, 7..8), NOW).unwrap();
        let (records, problems) = merged(&files);
        let is_cut = length > 0 && whole[length - 1] != b'\n' && whole[length] != b'\n';
        let kept = lines(&whole[..length]) - usize::from(is_cut);
        assert_eq!(records.len(), kept + 1, "cut to {length}");
        assert_eq!(
            problems.len(),
            usize::from(is_cut),
            "cut to {length}: {problems:?}"
        );
        let is_named = problems
            .iter()
            .all(|of| of.contains("records-0000000001.jsonl"));
        assert!(is_named, "{problems:?}");
    }
    for garbage in [
        &b"\xff\xfe\0"[..],
        b"{}",
        b"[[[[[[",
        b"{\"minute\":-1}",
        b"\n\n\n\"\n",
    ] {
        fs::write(folder.path().join("current.jsonl"), garbage).unwrap();
        let opened = RecordFiles::open(folder.path(), DENIED_FILES, (1 << 20, u64::MAX));
        let (_, lines, problems) = opened.unwrap();
        assert!(lines.is_empty());
        assert!(problems[0].contains("current.jsonl"), "{problems:?}");
    }
}

#[test]
fn a_folder_that_cannot_be_used_is_named_and_records_are_there_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flows");
    fs::write(&file, "in the way").unwrap();
    let mut switch = Switch::start();
    let log = FlowLog::open(
        options(&file, 1 << 20),
        Arc::clone(&switch.datapath),
        switch.reconcile.clone(),
        switch.clock,
    );
    switch.send(CLIENT.2, CLIENT.1.parse().unwrap());
    log.keep();
    let answer = log.query(&everything());
    assert_eq!(only(&answer).packets, 1);
    let named = file.display().to_string();
    assert!(answer.problems[0].contains(&named), "{:?}", answer.problems);
}

#[test]
fn more_records_than_a_minute_tells_apart_are_counted_together_by_their_rule() {
    let mut minute = Minute::new(NOW / SECONDS, MAX_RECORDS);
    let beyond = 5;
    let most = u32::try_from(MAX_RECORDS).unwrap();
    for sender in 0..most + beyond {
        minute.add(of(sender), &counted(2, NOW));
    }
    minute.add(of(0), &counted(1, NOW));
    assert_eq!(minute.records.len(), MAX_RECORDS + 1);
    assert_eq!(minute.records[&of(0)].packets, 3);
    let rest: Vec<_> = minute
        .records
        .iter()
        .filter(|(of, _)| of.source.is_none())
        .collect();
    assert_eq!(rest[0].1.packets, u64::from(beyond) * 2);
    assert_eq!(rest[0].0.policies, ["shop/guard"]);
}

fn recording(folder: &Path, connections: RecordedShare) -> FlowLogOptions {
    let mut options = options(folder, 64 << 20);
    options.keep.connections = connections;
    options
}

fn allowed() -> FlowQuery {
    FlowQuery {
        allowed: true,
        ..everything()
    }
}

impl Switch {
    /// The client has the label that the server admits.
    fn admit(&self) {
        let labels = [("app", "client"), ("role", "db")];
        self.reconcile
            .cluster(vec![pod(CLIENT.0, CLIENT.1, &labels)]);
        self.wait();
    }

    fn recording(&self, connections: RecordedShare) -> FlowLog {
        self.log_of(recording(self.folder.path(), connections))
    }

    /// Records connections when they begin as well.
    fn recording_starts(&self, connections: RecordedShare) -> FlowLog {
        let mut options = recording(self.folder.path(), connections);
        options.keep.connection_starts = true;
        self.log_of(options)
    }

    fn log_of(&self, options: FlowLogOptions) -> FlowLog {
        let (datapath, reconcile) = (Arc::clone(&self.datapath), self.reconcile.clone());
        FlowLog::open(options, datapath, reconcile, self.clock)
    }

    /// Has a connection of the client begin, and end because its ports are gone.
    fn connect_and_end(&mut self) {
        let client = CLIENT.1.parse().unwrap();
        assert_eq!(self.send(CLIENT.2, client), Verdict::Forward(SERVER.2));
        self.datapath.flush_connections(|_| true);
    }
}

#[test]
fn a_connection_that_ended_is_told_with_names_traffic_end_and_what_allowed_it() {
    let mut switch = Switch::start();
    switch.admit();
    let log = switch.recording(RecordedShare::ALL);
    switch.connect_and_end();
    switch.connect_and_end();
    let answer = log.query(&allowed());
    assert_eq!(
        (answer.recording.as_str(), answer.lost_connections),
        ("all", 0)
    );
    let record = only(&answer);
    let of = &record.of;
    let pod = |end: &Option<FlowEnd>| end.as_ref().unwrap().pod.clone().unwrap();
    assert_eq!(
        (pod(&of.source), pod(&of.destination)),
        ("shop/client".to_owned(), "shop/server".to_owned())
    );
    assert_eq!(
        (of.verdict.as_str(), of.reason.as_str()),
        ("allowed", "policy")
    );
    assert_eq!((of.protocol.as_deref(), of.port), (Some("UDP"), Some(53)));
    assert_eq!(
        (of.event.as_deref(), of.end.as_deref()),
        (Some("end"), Some("cut"))
    );
    assert_eq!(of.direction.as_deref(), Some("ingress"));
    assert_eq!(of.policies, ["shop/guard"]);
    let [rule] = &of.allowed_by[..] else {
        panic!("{of:?}");
    };
    assert_eq!(
        (rule.table.as_str(), rule.name.as_str()),
        ("IngressRule", "shop/guard")
    );
    assert_eq!((record.packets, record.connections), (0, 2));
    let traffic = record.traffic.unwrap();
    assert_eq!((traffic.sent.packets, traffic.received.packets), (2, 0));
    // IPv4 and UDP headers around nothing.
    assert_eq!(traffic.sent.bytes, 2 * 28);
    assert_eq!(log.query(&everything()).records, [], "nothing was denied");

    let asked = |change: fn(&mut FlowQuery)| {
        let mut query = allowed();
        change(&mut query);
        log.query(&query).records.len()
    };
    assert_eq!(asked(|query| query.port = Some(53)), 1);
    assert_eq!(asked(|query| query.port = Some(54)), 0);
    assert_eq!(asked(|query| query.from = "shop/client".parse().ok()), 1);
    assert_eq!(asked(|query| query.from = "shop/server".parse().ok()), 0);
    let guard = |query: &mut FlowQuery| query.policy = Some("shop/guard".to_owned());
    assert_eq!(asked(guard), 1);
}

/// Event, connections and whether there is traffic of each record.
fn events(records: &[FlowRecord]) -> Vec<(Option<&str>, u64, bool)> {
    let of = |record: &'_ FlowRecord| (record.connections, record.traffic.is_some());
    records
        .iter()
        .map(|record| (record.of.event.as_deref(), of(record)))
        .map(|(event, (connections, is_known))| (event, connections, is_known))
        .collect()
}

#[test]
fn a_connection_that_begins_is_told_before_it_ends_and_kept_beside_its_end() {
    let mut switch = Switch::start();
    switch.admit();
    let log = switch.recording_starts(RecordedShare::ALL);
    let (mut followed, mut recorded) = (log.subscribe_allowed(), log.subscribe_recorded());
    let client = CLIENT.1.parse().unwrap();
    assert_eq!(switch.send(CLIENT.2, client), Verdict::Forward(SERVER.2));
    let begin = (Some("begin"), 1, false);
    let answer = log.query(&allowed());
    assert_eq!(events(&answer.records), [begin]);
    let record = only(&answer);
    let of = &record.of;
    assert_eq!(
        of.source.as_ref().unwrap().pod.as_deref(),
        Some("shop/client")
    );
    assert_eq!((of.protocol.as_deref(), of.port), (Some("UDP"), Some(53)));
    assert_eq!((of.verdict.as_str(), of.end.as_deref()), ("allowed", None));
    assert_eq!(of.policies, ["shop/guard"]);
    assert_eq!(of.allowed_by[0].table, "IngressRule");
    assert_eq!(record.packets, 0);
    assert_eq!(record.first, record.last);
    for told in [&mut followed, &mut recorded] {
        assert_eq!(told.try_recv().unwrap().records, answer.records);
    }

    switch.datapath.flush_connections(|_| true);
    let end = (Some("end"), 1, true);
    assert_eq!(events(&log.query(&allowed()).records), [end, begin]);
    for told in [&mut followed, &mut recorded] {
        assert_eq!(events(&told.try_recv().unwrap().records), [end]);
    }
    let asked = |change: fn(&mut FlowQuery)| {
        let mut query = allowed();
        change(&mut query);
        log.query(&query).records.len()
    };
    assert_eq!(asked(|query| query.port = Some(53)), 2);
    assert_eq!(asked(|query| query.from = "shop/server".parse().ok()), 0);
    assert_eq!(log.query(&everything()).records, [], "nothing was denied");

    // They are there after a kill.
    log.keep();
    drop((log, followed, recorded));
    let log = switch.recording_starts(RecordedShare::OFF);
    assert_eq!(events(&log.query(&allowed()).records), [end, begin]);
}

#[test]
fn beginnings_are_told_to_who_follows_if_they_are_recorded_and_not_kept_unless_ends_are() {
    let mut switch = Switch::start();
    switch.admit();
    let (begin, end) = ((Some("begin"), 1, false), (Some("end"), 1, true));
    for (starts, told) in [(false, vec![end]), (true, vec![begin, end])] {
        let log = match starts {
            true => switch.recording_starts(RecordedShare::OFF),
            false => switch.recording(RecordedShare::OFF),
        };
        switch.connect_and_end();
        let mut followed = log.subscribe_allowed();
        assert!(followed.try_recv().is_err(), "nobody listened");
        switch.connect_and_end();
        log.keep();
        assert_eq!(events(&followed.try_recv().unwrap().records), told);
        assert_eq!(log.query(&allowed()).records, []);
    }
}

#[test]
fn of_one_in_so_many_as_many_begin_as_end() {
    let mut switch = Switch::start();
    switch.admit();
    let log = switch.recording_starts("1/10".parse().unwrap());
    for _ in 0..300 {
        switch.connect_and_end();
    }
    let answer = log.query(&allowed());
    let [(Some("end"), ended, true), (Some("begin"), begun, false)] = events(&answer.records)[..]
    else {
        panic!("{answer:?}");
    };
    assert_eq!(begun, ended);
    assert!((10..60).contains(&begun), "{begun} of 300");
}

#[test]
fn connections_are_there_after_a_kill_and_do_not_displace_denials() {
    let mut switch = Switch::start();
    let log = switch.recording(RecordedShare::ALL);
    assert_eq!(switch.send(CLIENT.2, CLIENT.1.parse().unwrap()), DENIED);
    switch.admit();
    switch.connect_and_end();
    log.keep();
    drop(log);
    // Whatever is recorded from now on, what was is shown until it is too old.
    let log = switch.recording(RecordedShare::OFF);
    assert_eq!(only(&log.query(&allowed())).connections, 1);
    assert_eq!(only(&log.query(&everything())).packets, 1);
    switch.connect_and_end();
    assert_eq!(only(&log.query(&allowed())).connections, 1, "it is off");
}

#[test]
fn who_follows_hears_of_all_connections_and_nothing_else_is_kept() {
    let mut switch = Switch::start();
    switch.admit();
    let log = switch.recording(RecordedShare::OFF);
    switch.connect_and_end();
    let mut followed = log.subscribe_allowed();
    let mut denied = log.subscribe();
    switch.connect_and_end();
    log.keep();
    let told = followed.try_recv().unwrap();
    let [told] = told.records.as_slice() else {
        panic!("one: {told:?}");
    };
    assert_eq!(told.connections, 1);
    assert_eq!(told.of.policies, ["shop/guard"]);
    assert!(denied.try_recv().is_err());
    assert_eq!(log.query(&allowed()).records, []);
    drop(followed);
    log.keep();
    switch.connect_and_end();
    let mut again = log.subscribe_allowed();
    log.keep();
    assert!(again.try_recv().is_err(), "nobody listened when it ended");
}

#[test]
fn who_follows_what_is_recorded_hears_of_denials_and_of_connections_that_are_kept() {
    let mut switch = Switch::start();
    let heard = |log: &FlowLog, followed: &mut Receiver<Arc<Round>>| {
        log.keep();
        let Ok(round) = followed.try_recv() else {
            return Vec::new();
        };
        let records = round.records.iter();
        let mut heard: Vec<_> = records
            .map(|of| (of.of.verdict.clone(), of.packets, of.connections))
            .collect();
        heard.sort();
        heard
    };
    let log = switch.recording(RecordedShare::ALL);
    let mut recorded = log.subscribe_recorded();
    assert_eq!(switch.send(CLIENT.2, CLIENT.1.parse().unwrap()), DENIED);
    switch.admit();
    switch.connect_and_end();
    let record = |verdict: &str, packets, connections| (verdict.to_owned(), packets, connections);
    assert_eq!(
        heard(&log, &mut recorded),
        [record("allowed", 0, 1), record("denied", 1, 0)]
    );
    drop(log);
    let log = switch.recording(RecordedShare::OFF);
    let mut recorded = log.subscribe_recorded();
    // Somebody looks on, which is no reason to send it elsewhere.
    let _followed = log.subscribe_allowed();
    switch.connect_and_end();
    assert_eq!(heard(&log, &mut recorded), []);
}

#[test]
fn a_pod_that_has_left_has_a_name_in_its_last_connections() {
    let mut switch = Switch::start();
    switch.admit();
    let log = switch.recording(RecordedShare::ALL);
    let client = CLIENT.1.parse().unwrap();
    assert_eq!(switch.send(CLIENT.2, client), Verdict::Forward(SERVER.2));
    log.keep();
    switch.reconcile.detach(SERVER.2);
    switch
        .reconcile
        .cluster(vec![ClusterChange::PodGone(key(SERVER.0))]);
    switch.wait();
    let answer = log.query(&allowed());
    let of = &only(&answer).of;
    assert_eq!(of.end.as_deref(), Some("detached"));
    let server = of.destination.as_ref().unwrap();
    assert_eq!(server.pod.as_deref(), Some("shop/server"));
    assert_eq!(of.policies, ["shop/guard"]);
}

#[test]
fn what_connections_had_no_room_is_in_the_records_of_its_minute() {
    let mut switch = Switch::start();
    switch.admit();
    let log = switch.recording(RecordedShare::ALL);
    let client = CLIENT.1.parse().unwrap();
    // All connections are between the same ends and ports: one shard, with its part of the room.
    let most: u64 = 65_536 / 64;
    for _ in 0..most + 5 {
        assert_eq!(switch.send(CLIENT.2, client), Verdict::Forward(SERVER.2));
        switch.datapath.flush_connections(|_| true);
    }
    let answer = log.query(&allowed());
    assert_eq!(answer.lost_connections, 5);
    let mut counts: Vec<_> = answer
        .records
        .iter()
        .map(|of| (of.of.reason.as_str(), of.connections))
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, [("lost", 5), ("policy", most)]);
}

#[test]
fn kinds_of_connections_beyond_the_room_of_a_minute_are_counted_by_their_rules() {
    let mut minute = Minute::new(NOW / SECONDS, MAX_ALLOWED);
    let most = u32::try_from(MAX_ALLOWED).unwrap();
    for sender in 0..most + 3 {
        let ended = Counted {
            connections: 1,
            traffic: Some(FlowTraffic {
                duration_ms: sender.into(),
                ..FlowTraffic::default()
            }),
            ..counted(0, NOW)
        };
        minute.add(of(sender), &ended);
    }
    assert_eq!(minute.records.len(), MAX_ALLOWED + 1);
    let rest = minute.records.iter().find(|(of, _)| of.source.is_none());
    let counted = rest.unwrap().1;
    assert_eq!(counted.connections, 3);
    assert_eq!(counted.traffic.unwrap().duration_ms, u64::from(most) + 2);
}
