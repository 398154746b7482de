//! The journal's native protocol, as whoever listens at the socket sees it.

use std::fs::File;
use std::io::{IoSliceMut, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use tempfile::TempDir;

use super::super::journal::Journal;
use super::super::journal_entry::entry;
use super::super::sentence::sentence;
use super::super::sink::Writer as _;
use super::{allowed, begun, record, records};

/// Reads an entry as journald does.
fn parse(mut entry: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    while !entry.is_empty() {
        let end = entry.iter().position(|byte| *byte == b'\n').unwrap();
        let (line, rest) = (&entry[..end], &entry[end + 1..]);
        if let Some(at) = line.iter().position(|byte| *byte == b'=') {
            fields.push((text(&line[..at]), text(&line[at + 1..])));
            entry = rest;
        } else {
            let (length, rest) = rest.split_at(8);
            let length = u64::from_le_bytes(length.try_into().unwrap());
            let (value, rest) = rest.split_at(usize::try_from(length).unwrap());
            fields.push((text(line), text(value)));
            entry = rest.strip_prefix(b"\n").unwrap();
        }
    }
    fields
}

/// All values of a field.
fn values<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    let of_name = fields.iter().filter(|(of, _)| of == name);
    of_name.map(|(_, value)| value.as_str()).collect()
}

/// Listens in place of journald.
struct Listener {
    socket: UnixDatagram,
    journal: Journal,
    _folder: TempDir,
}

impl Listener {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        Self {
            socket,
            journal: Journal::open(&path).unwrap(),
            _folder: folder,
        }
    }

    /// Returns the next entry, and the file that it came in.
    fn next(&self) -> (Vec<(String, String)>, Option<File>) {
        let mut buffer = vec![0; 256 << 10];
        let mut iov = [IoSliceMut::new(&mut buffer)];
        let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let fd = self.socket.as_raw_fd();
        let message = recvmsg::<()>(fd, &mut iov, Some(&mut space), flags).unwrap();
        let (length, file) = (message.bytes, message.cmsgs().unwrap().next());
        let Some(ControlMessageOwned::ScmRights(files)) = file else {
            return (parse(&buffer[..length]), None);
        };
        assert_eq!((length, files.len()), (0, 1));
        // Opened anew: whoever owns the descriptor of the message does not matter here.
        let mut file = File::open(format!("/proc/self/fd/{}", files[0])).unwrap();
        let mut entry = Vec::new();
        file.read_to_end(&mut entry).unwrap();
        (parse(&entry), Some(file))
    }
}

#[test]
fn an_entry_has_a_sentence_and_a_field_for_each_part_of_the_record() {
    let mut listener = Listener::new();
    assert_eq!(listener.journal.write(&[record(80)]).taken, 1);
    let (fields, file) = listener.next();
    assert!(file.is_none());
    let message = sentence(&record(80));
    for (name, expected) in [
        ("MESSAGE", &[message.as_str()][..]),
        ("PRIORITY", &["4"]),
        ("SYSLOG_IDENTIFIER", &["vswitchd"]),
        ("VSWITCH_NODE", &["node-a"]),
        ("VSWITCH_VERDICT", &["denied"]),
        ("VSWITCH_REASON", &["policy_ingress"]),
        ("VSWITCH_DIRECTION", &["ingress"]),
        ("VSWITCH_SOURCE_ADDRESS", &["10.244.0.5"]),
        ("VSWITCH_SOURCE_POD", &["default/client"]),
        ("VSWITCH_SOURCE_WORKLOAD", &["Job nightly"]),
        ("VSWITCH_DESTINATION_ADDRESS", &["10.244.0.6"]),
        ("VSWITCH_DESTINATION_POD", &["default/server"]),
        ("VSWITCH_DESTINATION_WORKLOAD", &[]),
        ("VSWITCH_SERVICE", &["10.96.0.7:80"]),
        ("VSWITCH_PROTOCOL", &["TCP"]),
        ("VSWITCH_PORT", &["80"]),
        ("VSWITCH_POLICY", &["default/guard", "default/other"]),
        ("VSWITCH_RULE_TABLE", &["IngressDefault"]),
        ("VSWITCH_PACKETS", &["3"]),
        ("VSWITCH_LAST", &["2026-01-31T03:12:07Z"]),
    ] {
        assert_eq!(values(&fields, name), expected, "{name}");
    }
    // What journald takes as a field's name.
    let is_of_name = |c: char| c.is_ascii_uppercase() || c == '_';
    assert!(fields.iter().all(|(name, _)| name.chars().all(is_of_name)));
}

#[test]
fn what_policies_in_audit_would_deny_is_no_warning() {
    let mut would_deny = record(80);
    would_deny.of.verdict = "would_deny".to_owned();
    assert_eq!(values(&parse(&entry(&would_deny)), "PRIORITY"), ["6"]);
}

#[test]
fn an_entry_of_allowed_connections_has_what_they_carried_and_every_rule_that_allowed_them() {
    let mut both = allowed();
    let mut egress = both.of.allowed_by[0].clone();
    egress.table = "EgressRule".to_owned();
    both.of.allowed_by.insert(0, egress);
    let fields = parse(&entry(&both));
    for (name, expected) in [
        ("PRIORITY", &["6"][..]),
        ("VSWITCH_VERDICT", &["allowed"]),
        ("VSWITCH_RULE_TABLE", &["EgressRule", "IngressRule"]),
        ("VSWITCH_RULE_PART", &["ingress[0].from[0]"; 2]),
        ("VSWITCH_EVENT", &["end"]),
        ("VSWITCH_END", &["fin"]),
        ("VSWITCH_CONNECTIONS", &["2"]),
        ("VSWITCH_SENT_PACKETS", &["6"]),
        ("VSWITCH_SENT_BYTES", &["512"]),
        ("VSWITCH_RECEIVED_PACKETS", &["5"]),
        ("VSWITCH_RECEIVED_BYTES", &["2048"]),
        ("VSWITCH_DURATION_MS", &["1500"]),
    ] {
        assert_eq!(values(&fields, name), expected, "{name}");
    }
    let fields = parse(&entry(&begun()));
    assert_eq!(values(&fields, "VSWITCH_EVENT"), ["begin"]);
    for name in ["VSWITCH_END", "VSWITCH_SENT_BYTES", "VSWITCH_DURATION_MS"] {
        assert_eq!(values(&fields, name), [""; 0], "{name}");
    }
}

#[test]
fn a_value_of_several_lines_stands_behind_its_length_and_breaks_no_field() {
    let mut forged = record(80);
    let name = "x\nPRIORITY=0\nMESSAGE=all is well";
    forged.of.rule.as_mut().unwrap().part = name.to_owned();
    let fields = parse(&entry(&forged));
    assert_eq!(values(&fields, "VSWITCH_RULE_PART"), [name]);
    assert_eq!(values(&fields, "PRIORITY"), ["4"]);
}

#[test]
fn an_entry_that_no_datagram_holds_comes_as_a_sealed_file() {
    let mut listener = Listener::new();
    let mut large = record(80);
    large.of.policies = (0..20_000).map(|n| format!("shop/policy-{n:05}")).collect();
    assert_eq!(
        listener.journal.write(&[large.clone(), record(81)]).taken,
        2
    );
    let (fields, file) = listener.next();
    assert_eq!(values(&fields, "MESSAGE"), [sentence(&large)]);
    assert_eq!(values(&fields, "VSWITCH_POLICY").len(), 64);
    let seals = fcntl(file.unwrap(), FcntlArg::F_GET_SEALS).unwrap();
    let seals = SealFlag::from_bits_retain(seals);
    let all = ["SHRINK", "GROW", "WRITE", "SEAL"].map(|of| format!("F_SEAL_{of}"));
    let named = |of: &String| seals.contains(SealFlag::from_name(of).unwrap());
    assert!(all.iter().all(named), "{seals:?}");
    assert_eq!(values(&listener.next().0, "VSWITCH_PORT"), ["81"]);
}

#[test]
fn a_journald_that_is_away_or_full_is_said_and_gets_the_rest_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let mut journal = Journal::open(&path).unwrap();
    let outcome = journal.write(&records(0..2));
    assert_eq!((outcome.taken, outcome.given_up), (0, 0));
    let said = outcome.failed.unwrap().problem;
    assert!(said.contains("No such file"), "{said}");

    let socket = UnixDatagram::bind(&path).unwrap();
    assert_eq!(journal.write(&records(0..2)).taken, 2);
    let outcome = journal.write(&records(2..3_000));
    let said = outcome.failed.unwrap().problem;
    assert!(said.contains("takes no more"), "{said}");
    drop(socket);
    std::fs::remove_file(&path).unwrap();

    let socket = UnixDatagram::bind(&path).unwrap();
    assert_eq!(journal.write(&records(7..8)).taken, 1);
    let mut buffer = vec![0; 64 << 10];
    let length = socket.recv(&mut buffer).unwrap();
    assert_eq!(values(&parse(&buffer[..length]), "VSWITCH_PORT"), ["7"]);
}
