//! Blocks of a pcapng file (draft-ietf-opsawg-pcapng): a section with one Ethernet interface, its
//! packets with comments, its statistics.
//!
//! Written here, since the crates for it are a first release of years ago (pcapng-writer), or bring
//! a second thiserror and a third syn into the daemon, or are a release candidate (pcap-file 2, 3).

/// Block types (section 11.1 of the draft).
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;

/// Options of any block.
const END_OF_OPTIONS: u16 = 0;
const COMMENT: u16 = 1;

/// What is said of the interface.
#[derive(Debug)]
pub(super) struct Interface<'a> {
    /// Its name, for people.
    pub(super) name: &'a str,
    /// What it is behind that name.
    pub(super) description: &'a str,
    /// The filter, empty if there is none.
    pub(super) filter: &'a str,
    /// Bytes of a packet that are kept at most.
    pub(super) snaplen: u32,
}

/// Direction of a packet, in `epb_flags`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Direction {
    Inbound = 1,
    Outbound = 2,
}

/// A packet.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    /// Nanoseconds since 1970.
    pub(super) time: u64,
    pub(super) direction: Direction,
    /// Its length, of which `bytes` may be a part.
    pub(super) len: usize,
    pub(super) bytes: &'a [u8],
    pub(super) comment: &'a str,
}

/// Figures of a capture so far.
#[derive(Debug, Default)]
pub(super) struct Statistics {
    /// Nanoseconds since 1970: of these figures, and of the capture's begin.
    pub(super) time: u64,
    pub(super) began: u64,
    /// When it ended, and why.
    pub(super) ended: Option<(u64, &'static str)>,
    /// Packets that the filter admitted and that found no room.
    pub(super) lost: u64,
    /// Packets that the kernel had no room for.
    pub(super) lost_by_kernel: u64,
    /// Packets in the file.
    pub(super) delivered: u64,
}

/// Writes the blocks that a file begins with.
pub(super) fn begin(out: &mut Vec<u8>, interface: &Interface<'_>) {
    block(out, SECTION_HEADER, |out| {
        out.extend(0x1a2b_3c4d_u32.to_le_bytes());
        out.extend([1, 0, 0, 0]);
        // Of unknown length.
        out.extend(u64::MAX.to_le_bytes());
        let application = concat!("vswitchd ", env!("CARGO_PKG_VERSION"));
        option(out, 4, application.as_bytes());
        option(out, END_OF_OPTIONS, &[]);
    });
    block(out, INTERFACE_DESCRIPTION, |out| {
        out.extend(ETHERNET.to_le_bytes());
        out.extend([0, 0]);
        out.extend(interface.snaplen.to_le_bytes());
        option(out, 2, interface.name.as_bytes());
        option(out, 3, interface.description.as_bytes());
        // Time stamps are nanoseconds: 10 to the power of -9.
        option(out, 9, &[9]);
        if !interface.filter.is_empty() {
            // 0: in the language of libpcap, of which it is a part.
            option(out, 11, &[&[0], interface.filter.as_bytes()].concat());
        }
        option(out, END_OF_OPTIONS, &[]);
    });
}

/// Writes a packet.
pub(super) fn packet(out: &mut Vec<u8>, packet: &Packet<'_>) {
    block(out, ENHANCED_PACKET, |out| {
        out.extend([0; 4]);
        out.extend(halves(packet.time));
        out.extend(length(packet.bytes.len()).to_le_bytes());
        out.extend(length(packet.len).to_le_bytes());
        out.extend(packet.bytes);
        pad(out, packet.bytes.len());
        option(out, COMMENT, packet.comment.as_bytes());
        option(out, 2, &(packet.direction as u32).to_le_bytes());
        option(out, END_OF_OPTIONS, &[]);
    });
}

/// Writes how the capture stands.
pub(super) fn statistics(out: &mut Vec<u8>, figures: &Statistics) {
    block(out, INTERFACE_STATISTICS, |out| {
        out.extend([0; 4]);
        out.extend(halves(figures.time));
        option(out, 2, &halves(figures.began));
        if let Some((at, why)) = figures.ended {
            option(out, 3, &halves(at));
            option(out, COMMENT, why.as_bytes());
        }
        let numbers = [
            (5, figures.lost),
            (6, figures.delivered + figures.lost),
            (7, figures.lost_by_kernel),
            (8, figures.delivered),
        ];
        for (code, number) in numbers {
            option(out, code, &number.to_le_bytes());
        }
        option(out, END_OF_OPTIONS, &[]);
    });
}

/// Writes a block: its type, its length, what is in it, its length again.
fn block(out: &mut Vec<u8>, block_type: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(block_type.to_le_bytes());
    out.extend([0; 4]);
    body(out);
    let total = length(out.len() - start + 4).to_le_bytes();
    out.extend(total);
    if let Some(field) = out.get_mut(start + 4..start + 8) {
        field.copy_from_slice(&total);
    }
}

/// Writes an option; of a text that is too long for one, the beginning.
fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
    let value = value.get(..usize::from(len)).unwrap_or(value);
    out.extend(code.to_le_bytes());
    out.extend(len.to_le_bytes());
    out.extend(value);
    pad(out, value.len());
}

/// Everything begins at a multiple of four bytes.
fn pad(out: &mut Vec<u8>, len: usize) {
    out.extend(std::iter::repeat_n(0, len.wrapping_neg() % 4));
}

/// A time stamp is written as its upper and its lower half.
fn halves(time: u64) -> [u8; 8] {
    time.rotate_left(32).to_le_bytes()
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Type and body of each block, their lengths checked.
    fn blocks(mut file: &[u8]) -> Vec<(u32, &[u8])> {
        let mut blocks = Vec::new();
        while !file.is_empty() {
            let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
            let len = usize::try_from(word(4)).unwrap();
            assert_eq!((len % 4, word(len - 4)), (0, word(4)));
            blocks.push((word(0), &file[8..len - 4]));
            file = &file[len..];
        }
        blocks
    }

    /// Code and value of each option; what follows the end of them is an error.
    fn options(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
        let mut options = Vec::new();
        loop {
            let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            let (code, len) = (half(0), usize::from(half(2)));
            if code == END_OF_OPTIONS {
                assert_eq!(bytes, [0; 4]);
                return options;
            }
            options.push((code, &bytes[4..4 + len]));
            bytes = &bytes[4 + len.next_multiple_of(4)..];
        }
    }

    #[test]
    fn a_file_begins_with_a_section_and_its_interface() {
        let mut file = Vec::new();
        let interface = Interface {
            name: "default/client eth0",
            description: "port 7",
            filter: "tcp",
            snaplen: 2_048,
        };
        begin(&mut file, &interface);
        let [
            (SECTION_HEADER, section),
            (INTERFACE_DESCRIPTION, description),
        ] = blocks(&file)[..]
        else {
            panic!("{file:?}");
        };
        assert_eq!(section[..8], [0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0]);
        assert_eq!(description[..8], [1, 0, 0, 0, 0, 8, 0, 0]);
        let said = options(&description[8..]);
        let wanted: [(u16, &[u8]); 4] = [
            (2, b"default/client eth0"),
            (3, b"port 7"),
            (9, &[9]),
            (11, b"\0tcp"),
        ];
        assert_eq!(said, wanted);
    }

    #[test]
    fn a_packet_has_its_time_its_direction_and_its_comment() {
        for len in 60..64 {
            let mut file = Vec::new();
            let bytes = vec![7; len];
            packet(
                &mut file,
                &Packet {
                    time: 0x1122_3344_5566_7788,
                    direction: Direction::Outbound,
                    len: 1_514,
                    bytes: &bytes,
                    comment: "dropped",
                },
            );
            let [(ENHANCED_PACKET, body)] = blocks(&file)[..] else {
                panic!("{file:?}");
            };
            let words: Vec<u32> = body[..20]
                .chunks(4)
                .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
                .collect();
            let captured = u32::try_from(len).unwrap();
            assert_eq!(words, [0, 0x1122_3344, 0x5566_7788, captured, 1_514]);
            assert_eq!(body[20..20 + len], bytes);
            let said = options(&body[20 + len.next_multiple_of(4)..]);
            let wanted: [(u16, &[u8]); 2] = [(1, b"dropped"), (2, &[2, 0, 0, 0])];
            assert_eq!(said, wanted);
        }
    }

    #[test]
    fn statistics_tell_what_was_lost_and_why_it_ended() {
        let mut file = Vec::new();
        let figures = Statistics {
            ended: Some((5, "count")),
            lost: 3,
            lost_by_kernel: 4,
            delivered: 10,
            ..Statistics::default()
        };
        statistics(&mut file, &figures);
        let [(INTERFACE_STATISTICS, body)] = blocks(&file)[..] else {
            panic!("{file:?}");
        };
        let numbers: Vec<(u16, u64)> = options(&body[12..])
            .into_iter()
            .filter(|(code, _)| (5..=8).contains(code))
            .map(|(code, value)| (code, u64::from_le_bytes(value.try_into().unwrap())))
            .collect();
        assert_eq!(numbers, [(5, 3), (6, 13), (7, 4), (8, 10)]);
        assert!(options(&body[12..]).contains(&(COMMENT, b"count")));
    }
}
