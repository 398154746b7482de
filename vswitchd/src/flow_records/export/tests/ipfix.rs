//! Messages to a collector of IPFIX, read as RFC 7011 says, and what becomes of them on their way.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use netflow_parser::{EnterpriseFieldDef, FieldDataType, NetflowPacket, NetflowParser};
use vswitch_api::v1::FlowRecord;

use super::super::destination::Destination;
use super::super::follow::hand_over;
use super::super::ipfix::Ipfix;
use super::super::ipfix_messages::Messages;
use super::super::ipfix_records::own;
use super::super::sink::Blocking;
use super::super::waiting::{Batch, MAX_WAITING, Waiting};
use super::{allowed, begun, record, records, round};
use crate::config::{IpfixConfig, IpfixTransport};

/// The number of an enterprise that stands for any (RFC 5612).
const ENTERPRISE: u32 = 32_473;
/// 2026-01-31T03:12:08Z.
const NOW: u64 = 1_769_829_128;
const REFRESH: u64 = 60;

/// A record: what it has of which element, by enterprise (0 for IANA's) and number.
type Record = BTreeMap<(u32, u16), Vec<u8>>;

/// What is left of a message.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }
}

/// As little of a collector as can read the messages of a session.
#[derive(Debug, Default)]
struct Collector {
    /// Enterprise, number and length of each element.
    templates: BTreeMap<u16, Vec<(u32, u16, u16)>>,
    /// How often a template was told.
    told: usize,
    records: Vec<Record>,
    /// Export time, sequence number and observation domain of each message.
    headers: Vec<(u32, u32, u32)>,
}

impl Collector {
    fn read(&mut self, message: &[u8]) {
        let mut rest = Rest(message);
        assert_eq!(rest.u16(), 10, "version");
        assert_eq!(usize::from(rest.u16()), message.len());
        self.headers.push((rest.u32(), rest.u32(), rest.u32()));
        while !rest.0.is_empty() {
            let (set, length) = (rest.u16(), rest.u16());
            assert_eq!(length % 4, 0, "sets are aligned");
            let body = Rest(rest.take(usize::from(length) - 4));
            match set {
                2 => self.read_templates(body),
                set => self.read_records(set, body),
            }
        }
    }

    fn read_templates(&mut self, mut rest: Rest<'_>) {
        while rest.0.len() >= 4 {
            let (id, count) = (rest.u16(), rest.u16());
            assert!(id >= 256);
            let element = |_| {
                let (number, length) = (rest.u16(), rest.u16());
                let is_of_enterprise = number & 0x8000 != 0;
                let enterprise = if is_of_enterprise { rest.u32() } else { 0 };
                (enterprise, number & 0x7fff, length)
            };
            let elements: Vec<_> = (0..count).map(element).collect();
            self.told += 1;
            let before = self.templates.insert(id, elements.clone());
            assert!(
                before.is_none_or(|before| before == elements),
                "another template {id}"
            );
        }
    }

    fn read_records(&mut self, template: u16, mut rest: Rest<'_>) {
        let template = &self.templates[&template];
        // What is shorter than any record is padding.
        while rest.0.len() >= 4 {
            let mut record = Record::new();
            for &(enterprise, number, length) in template {
                let length = match length {
                    65_535 => match rest.take(1) {
                        [255] => usize::from(rest.u16()),
                        [short] => usize::from(*short),
                        other => panic!("{other:?}"),
                    },
                    fixed => usize::from(fixed),
                };
                let value = rest.take(length).to_vec();
                assert!(!value.is_empty());
                let before = record.insert((enterprise, number), value);
                assert!(before.is_none(), "{enterprise}/{number} twice");
            }
            self.records.push(record);
        }
        assert!(rest.0.iter().all(|byte| *byte == 0), "padding");
    }
}

/// What is expected of an element.
enum Is<'a> {
    Text(&'a str),
    Number(u64),
    Address(&'a str),
    Absent,
}

fn check(record: &Record, expected: &[(u32, u16, Is<'_>)]) {
    for (enterprise, number, expected) in expected {
        let value = record.get(&(*enterprise, *number)).map(Vec::as_slice);
        let what = format!("{enterprise}/{number}: {value:?}");
        match expected {
            Is::Text(text) => assert_eq!(value, Some(text.as_bytes()), "{what} {text}"),
            Is::Number(number) => {
                let bytes = value.unwrap_or_else(|| panic!("{what}"));
                let value = bytes
                    .iter()
                    .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
                assert_eq!(value, *number, "{what}");
            }
            Is::Address(address) => {
                let octets = match address.parse().unwrap() {
                    IpAddr::V4(address) => address.octets().to_vec(),
                    IpAddr::V6(address) => address.octets().to_vec(),
                };
                assert_eq!(value, Some(&octets[..]), "{what}");
            }
            Is::Absent => assert_eq!(value, None, "{what}"),
        }
    }
}

/// Returns what a collector makes of records, which are in one message.
fn told(records: &[FlowRecord], enterprise: Option<u32>) -> Vec<Record> {
    let (message, taken) = Messages::new(enterprise).next(records, NOW);
    assert_eq!(taken, records.len());
    let mut collector = Collector::default();
    collector.read(&message);
    collector.records
}

#[test]
fn a_denial_has_its_ends_times_packets_and_what_decided_it() {
    let of = &told(&[record(8080)], Some(ENTERPRISE))[0];
    let (first, last) = (1_769_829_118_000, 1_769_829_127_000);
    check(
        of,
        &[
            (0, 152, Is::Number(first)),
            (0, 153, Is::Number(last)),
            (0, 300, Is::Text("node-a")),
            (0, 8, Is::Address("10.244.0.5")),
            // What was asked for, and what the Service made of it.
            (0, 12, Is::Address("10.96.0.7")),
            (0, 11, Is::Number(80)),
            (0, 226, Is::Address("10.244.0.6")),
            (0, 228, Is::Number(8080)),
            (0, 4, Is::Number(6)),
            (0, 233, Is::Number(3)),
            (0, 133, Is::Number(3)),
            (0, 3, Is::Number(0)),
            (0, 136, Is::Absent),
            (0, 2, Is::Absent),
        ],
    );
    let of_ours = |number, text| (ENTERPRISE, number, Is::Text(text));
    check(
        of,
        &[
            of_ours(own::SOURCE_POD_NAMESPACE, "default"),
            of_ours(own::SOURCE_POD_NAME, "client"),
            of_ours(own::SOURCE_WORKLOAD, "Job nightly"),
            of_ours(own::DESTINATION_POD_NAMESPACE, "default"),
            of_ours(own::DESTINATION_POD_NAME, "server"),
            (ENTERPRISE, own::DESTINATION_WORKLOAD, Is::Absent),
            of_ours(own::VERDICT, "denied"),
            of_ours(own::REASON, "policy_ingress"),
            of_ours(own::DIRECTION, "ingress"),
            of_ours(own::POLICY_NAME, "default/guard,default/other"),
            of_ours(own::POLICY_RULE, "IngressDefault default/guard"),
            (ENTERPRISE, own::END, Is::Absent),
        ],
    );
}

#[test]
fn connections_have_events_and_those_that_ended_what_went_both_ways() {
    let [begun, ended] = &told(&[begun(), allowed()], Some(ENTERPRISE))[..] else {
        panic!("two records")
    };
    check(
        begun,
        &[
            (0, 233, Is::Number(1)),
            (0, 3, Is::Number(2)),
            (0, 12, Is::Address("10.244.0.6")),
            (0, 11, Is::Number(80)),
            (0, 226, Is::Absent),
            (0, 133, Is::Absent),
            (0, 136, Is::Absent),
            (0, 1, Is::Absent),
            (29_305, 1, Is::Absent),
            (ENTERPRISE, own::VERDICT, Is::Text("allowed")),
        ],
    );
    check(
        ended,
        &[
            (0, 233, Is::Number(2)),
            (0, 3, Is::Number(2)),
            (0, 136, Is::Number(3)),
            (0, 2, Is::Number(6)),
            (0, 1, Is::Number(512)),
            (29_305, 2, Is::Number(5)),
            (29_305, 1, Is::Number(2_048)),
            (ENTERPRISE, own::END, Is::Text("fin")),
            (ENTERPRISE, own::DURATION_MILLISECONDS, Is::Number(1_500)),
            (
                ENTERPRISE,
                own::POLICY_RULE,
                Is::Text("IngressRule default/guard ingress[0].from[0]"),
            ),
        ],
    );
}

#[test]
fn ends_are_of_either_family_and_icmp_has_a_type_in_the_place_of_a_port() {
    let mut v6 = record(443);
    v6.of.service = Some("[fd00:96::7]:80".to_owned());
    v6.of.source.as_mut().unwrap().address = "fd00::5".parse().unwrap();
    v6.of.destination.as_mut().unwrap().address = "fd00::6".parse().unwrap();
    let icmp = |name: &str, of: &FlowRecord| {
        let mut icmp = of.clone();
        (icmp.of.protocol, icmp.of.port) = (Some(name.to_owned()), Some(8));
        icmp.of.service = None;
        icmp
    };
    let all = [v6.clone(), icmp("ICMPv6", &v6), icmp("ICMP", &record(1))];
    let all = told(&all, None);
    check(
        &all[0],
        &[
            (0, 27, Is::Address("fd00::5")),
            (0, 28, Is::Address("fd00:96::7")),
            (0, 11, Is::Number(80)),
            (0, 282, Is::Address("fd00::6")),
            (0, 228, Is::Number(443)),
            (0, 8, Is::Absent),
        ],
    );
    check(
        &all[1],
        &[
            (0, 28, Is::Address("fd00::6")),
            (0, 4, Is::Number(58)),
            (0, 178, Is::Number(8)),
            (0, 11, Is::Absent),
        ],
    );
    check(
        &all[2],
        &[
            (0, 12, Is::Address("10.244.0.6")),
            (0, 4, Is::Number(1)),
            (0, 176, Is::Number(8)),
            (0, 11, Is::Absent),
        ],
    );
}

#[test]
fn each_verdict_and_each_end_has_its_number() {
    let verdict = |verdict: &str| {
        let mut of = record(80);
        of.of.verdict = verdict.to_owned();
        told(&[of], None)[0].get(&(0, 233)).cloned()
    };
    let events = ["denied", "cut", "would_deny"].map(verdict);
    assert_eq!(events, [Some(vec![3]), Some(vec![3]), Some(vec![4])]);
    let end = |end: &str| {
        let mut of = allowed();
        of.of.end = Some(end.to_owned());
        told(&[of], None)[0][&(0, 136)].clone()
    };
    let ends = [
        "fin", "rst", "timeout", "evicted", "cut", "replaced", "detached",
    ]
    .map(end);
    assert_eq!(ends.concat(), [3, 3, 1, 5, 4, 4, 4]);
}

#[test]
fn without_an_enterprise_number_there_are_no_elements_of_our_own() {
    let all = told(&[record(80), allowed(), begun()], None);
    for (enterprise, number) in all.iter().flat_map(BTreeMap::keys) {
        assert!([0, 29_305].contains(enterprise), "{enterprise}/{number}");
    }
}

#[test]
fn what_a_record_does_not_know_is_no_field_of_it() {
    let mut various = record(80);
    let of = &mut various.of;
    (of.source, of.destination, of.service) = (None, None, None);
    (of.protocol, of.port, of.direction, of.rule) = (None, None, None, None);
    of.policies.clear();
    let of = &told(&[various], Some(ENTERPRISE))[0];
    let absent = [8, 12, 27, 28, 4, 11, 226, 228].map(|number| (0, number, Is::Absent));
    check(of, &absent);
    let absent = [
        own::SOURCE_POD_NAME,
        own::DIRECTION,
        own::POLICY_NAME,
        own::POLICY_RULE,
    ];
    check(of, &absent.map(|number| (ENTERPRISE, number, Is::Absent)));
    check(of, &[(0, 133, Is::Number(3))]);
}

#[test]
fn messages_fit_a_packet_count_their_records_and_tell_each_template_once() {
    let mut all = records(0..600);
    all.extend(std::iter::repeat_n(allowed(), 5));
    all.push(record(600));
    let (mut messages, mut collector) = (Messages::new(Some(ENTERPRISE)), Collector::default());
    let mut taken = 0;
    while taken < all.len() {
        let before = taken;
        let (message, more) = messages.next(&all[taken..], NOW);
        assert!(message.len() <= 1_232, "{}", message.len());
        collector.read(&message);
        taken += more;
        let (time, sequence, domain) = *collector.headers.last().unwrap();
        assert_eq!(u64::from(time), NOW);
        assert_eq!(usize::try_from(sequence).unwrap(), before);
        assert_eq!(domain, crc32fast::hash(b"node-a"));
    }
    assert_eq!(collector.told, 2);
    let ports = collector
        .records
        .iter()
        .filter(|of| of.contains_key(&(0, 228)));
    let ports: Vec<_> = ports
        .map(|of| u16::from_be_bytes(of[&(0, 228)][..].try_into().unwrap()))
        .collect();
    assert_eq!(ports, (0..=600).collect::<Vec<_>>());
    assert_eq!(collector.records.len(), all.len());
    assert!(
        collector.headers.len() < all.len() / 2,
        "several in a message"
    );
}

#[test]
fn texts_that_are_too_long_are_cut_between_characters() {
    let mut long = record(80);
    long.of.policies = vec![format!("a{}", "ä".repeat(40_000)); 3];
    let mut message = Messages::new(Some(ENTERPRISE));
    let (message, taken) = message.next(&[long, record(81)], NOW);
    assert_eq!(taken, 1, "it has a message of its own");
    let mut collector = Collector::default();
    collector.read(&message);
    let text = &collector.records[0][&(ENTERPRISE, own::POLICY_NAME)];
    assert_eq!(text.len(), 1_023);
    assert!(std::str::from_utf8(text).is_ok());
}

#[test]
fn another_reader_of_messages_understands_them() {
    let all = [record(80), begun(), allowed()];
    let (message, _) = Messages::new(Some(ENTERPRISE)).next(&all, NOW);
    let of_ours = |number, kind| EnterpriseFieldDef::new(ENTERPRISE, number, "ours", kind);
    let texts = own::SOURCE_POD_NAMESPACE..=own::END;
    let mut reader = NetflowParser::builder()
        .register_enterprise_fields(texts.map(|number| of_ours(number, FieldDataType::String)))
        .register_enterprise_field(of_ours(
            own::DURATION_MILLISECONDS,
            FieldDataType::UnsignedDataNumber,
        ))
        .build()
        .unwrap();
    let read = reader.parse_bytes(&message);
    assert!(read.error.is_none(), "{:?}", read.error);
    let [NetflowPacket::IPFix(read)] = &read.packets[..] else {
        panic!("{read:?}");
    };
    // A template and a record three times.
    assert_eq!(read.flowsets.len(), 6);
    assert_eq!(read.to_be_bytes().unwrap(), message);
}

fn ipfix(transport: IpfixTransport, to: SocketAddr) -> Ipfix {
    Ipfix::new(IpfixConfig {
        transport,
        address: to.to_string(),
        enterprise: Some(ENTERPRISE),
        template_refresh: Duration::from_secs(REFRESH),
    })
}

/// A socket that a collector reads messages from.
fn listen(at: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(at).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    socket
}

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Returns the next datagram, if one is there.
fn datagram(socket: &UdpSocket) -> Option<Vec<u8>> {
    let mut buffer = [0; 4_096];
    socket.set_nonblocking(true).unwrap();
    let read = socket.recv(&mut buffer);
    read.ok().map(|length| buffer[..length].to_vec())
}

#[test]
fn templates_are_told_again_over_udp_so_that_who_comes_later_understands() {
    for address in [ANY, "[::1]:0".parse().unwrap()] {
        let socket = listen(address);
        let mut ipfix = ipfix(IpfixTransport::Udp, socket.local_addr().unwrap());
        let all = [record(80), allowed()];
        assert_eq!(ipfix.write_at(&all, NOW).taken, 2);
        let first = datagram(&socket).unwrap();
        let mut early = Collector::default();
        early.read(&first);
        assert_eq!((early.told, early.records.len()), (2, 2));

        assert_eq!(ipfix.write_at(&[], NOW + REFRESH - 1).failed, None);
        assert_eq!(datagram(&socket), None);
        assert_eq!(ipfix.write_at(&[], NOW + REFRESH).failed, None);
        let mut late = Collector::default();
        late.read(&datagram(&socket).unwrap());
        assert_eq!((late.told, late.records.len()), (2, 0));
        assert_eq!(ipfix.write_at(&[], NOW + REFRESH + 1).failed, None);
        assert_eq!(datagram(&socket), None, "once");
        ipfix.write_at(&all[1..], NOW + REFRESH + 1);
        late.read(&datagram(&socket).unwrap());
        assert_eq!((late.told, late.records.len()), (2, 1));
        // What templates are told in is no record.
        let sequences: Vec<_> = late.headers.iter().map(|header| header.1).collect();
        assert_eq!(sequences, [2, 2]);
    }
}

#[test]
fn a_port_where_nobody_listens_takes_nothing_and_all_when_somebody_does() {
    let socket = listen(ANY);
    let address = socket.local_addr().unwrap();
    drop(socket);
    let mut ipfix = ipfix(IpfixTransport::Udp, address);
    let all = records(1..4);
    for _ in 0..3 {
        let outcome = ipfix.write_at(&all, NOW);
        assert_eq!((outcome.taken, outcome.given_up), (0, 0));
        let problem = outcome.failed.unwrap().problem;
        assert!(problem.contains("refused"), "{problem}");
        // Until something was taken it goes on saying so.
        let failed = ipfix.write_at(&[], NOW).failed.unwrap();
        assert_eq!(failed.problem, problem);
    }
    let socket = listen(address);
    let outcome = ipfix.write_at(&all, NOW);
    assert_eq!((outcome.taken, outcome.failed), (3, None));
    let mut collector = Collector::default();
    collector.read(&datagram(&socket).unwrap());
    assert_eq!((collector.told, collector.records.len()), (1, 3));
    assert_eq!(collector.headers[0].1, 0, "it is another session");
    assert_eq!(ipfix.write_at(&[], NOW).failed, None);
}

/// Reads all messages of a connection until it ends.
fn read_stream(stream: &mut TcpStream, messages: usize) -> Collector {
    let mut collector = Collector::default();
    for _ in 0..messages {
        let mut head = [0; 4];
        stream.read_exact(&mut head).unwrap();
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let mut message = vec![0; length];
        message[..4].copy_from_slice(&head);
        stream.read_exact(&mut message[4..]).unwrap();
        collector.read(&message);
    }
    collector
}

#[test]
fn over_tcp_templates_are_told_once_a_connection_and_one_that_ends_is_made_anew() {
    let listener = TcpListener::bind(ANY).unwrap();
    let address = listener.local_addr().unwrap();
    let mut ipfix = ipfix(IpfixTransport::Tcp, address);
    assert_eq!(ipfix.write_at(&[record(80)], NOW).taken, 1);
    assert_eq!(ipfix.write_at(&[record(81)], NOW + REFRESH).taken, 1);
    let (mut stream, _) = listener.accept().unwrap();
    let collector = read_stream(&mut stream, 2);
    assert_eq!((collector.told, collector.records.len()), (1, 2));
    drop((stream, listener));

    let outcome = ipfix.write_at(&[record(82)], NOW);
    assert_eq!(outcome.taken, 0);
    let problem = outcome.failed.unwrap().problem;
    assert!(problem.contains("closed the connection"), "{problem}");
    let problem = ipfix.write_at(&[], NOW).failed.unwrap().problem;
    assert!(problem.contains("refused"), "it asks: {problem}");
    let listener = TcpListener::bind(address).unwrap();
    assert_eq!(ipfix.write_at(&[record(82)], NOW).taken, 1);
    let (mut stream, _) = listener.accept().unwrap();
    let collector = read_stream(&mut stream, 1);
    assert_eq!((collector.told, collector.records.len()), (1, 1));
    assert_eq!(collector.headers[0].1, 0);
}

#[tokio::test]
async fn records_that_wait_go_to_the_collector_and_are_counted() {
    let socket = listen(ANY);
    let sink = Blocking::new(ipfix(IpfixTransport::Udp, socket.local_addr().unwrap()));
    let to = Destination::new("ipfix", "there".to_owned());
    let waiting = Waiting::new(MAX_WAITING);
    waiting.add(Batch::of(round(0, 0..40)));
    waiting.close();
    hand_over(&sink, &waiting, &to).await;
    assert_eq!((to.exported(), to.lost(), to.problem()), (40, 0, None));
    let mut collector = Collector::default();
    while let Some(message) = datagram(&socket) {
        collector.read(&message);
    }
    assert_eq!(collector.records.len(), 40);
}
