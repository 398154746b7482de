//! Keys and values of the BPF maps, laid out as in `vswitchd/bpf/kernel_path.c`. Plain bytes, so
//! that reading and writing them needs no unsafe code.

use std::net::IpAddr;

use vswitch_datapath::{KernelFlow, TcpProgress};

/// `struct flow_key`.
pub(super) type Key = [u8; 56];
/// `struct flow`.
pub(super) type Flow = [u8; 40];
/// `struct usage`.
pub(super) type Usage = [u8; 32];

/// `TO_GATEWAY`.
const TO_GATEWAY: u16 = 1;

/// Where a flow's packets go, in the kernel's terms.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    /// Index of the device that they leave through.
    pub(super) if_index: u32,
    /// Whether that is the gateway: they go into the host's stack.
    pub(super) to_gateway: bool,
}

/// Writes the fields of a structure one after the other.
struct Fields<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Fields<N> {
    const fn new() -> Self {
        Self {
            bytes: [0; N],
            at: 0,
        }
    }

    fn put(mut self, field: &[u8]) -> Self {
        if let Some(room) = self.bytes.get_mut(self.at..self.at + field.len()) {
            room.copy_from_slice(field);
        }
        self.at += field.len();
        self
    }

    fn address(self, address: IpAddr) -> Self {
        let mut field = [0; 16];
        match address {
            IpAddr::V4(v4) => field[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => field = v6.octets(),
        }
        self.put(&field)
    }
}

/// Returns the key of a flow that comes in through the device.
pub(super) fn key(flow: &KernelFlow, if_index: u32) -> Key {
    let tuple = &flow.tuple;
    let family = if tuple.src.is_ipv4() { 4 } else { 6 };
    Fields::<56>::new()
        .put(&if_index.to_ne_bytes())
        .put(&[family, tuple.proto])
        .put(&tuple.tp_src.to_be_bytes())
        .put(&tuple.tp_dst.to_be_bytes())
        .put(&[0; 2])
        .put(&flow.macs)
        .address(tuple.src)
        .address(tuple.dst)
        .bytes
}

/// Returns what is done with its packets.
pub(super) fn flow(flow: &KernelFlow, generation: u64, slot: FlowSlot, way: Way) -> Flow {
    let flags = if way.to_gateway { TO_GATEWAY } else { 0 };
    Fields::<40>::new()
        .put(&generation.to_ne_bytes())
        .put(&slot.slot.to_ne_bytes())
        .put(&way.if_index.to_ne_bytes())
        .put(&u32::from(flow.mtu).to_ne_bytes())
        .put(&flags.to_ne_bytes())
        .put(&flow.leaves_with)
        .put(&[0; 2])
        .put(&slot.id.to_ne_bytes())
        .bytes
}

/// Where what goes by of a flow is counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct FlowSlot {
    pub(super) slot: u32,
    /// The flow's number among those that have had the slot; not 0.
    pub(super) id: u32,
}

/// What went by in a slot, ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Where TCP has come, and which flow's that is.
    pub(super) tcp: (u32, TcpProgress),
}

impl Default for Total {
    fn default() -> Self {
        Self::from([0; 32])
    }
}

impl From<Usage> for Total {
    fn from(usage: Usage) -> Self {
        let (words, _) = usage.as_chunks::<8>();
        let [packets, bytes, progress, more] = [0, 1, 2, 3].map(|at| words[at]);
        let halves = |word: [u8; 8]| {
            let word = u64::from_ne_bytes(word);
            // Little-endian, as the whole of `port` is.
            (word & u64::from(u32::MAX), word >> 32)
        };
        let narrow = |half: u64| u32::try_from(half).unwrap_or_default();
        let ((seq_end, ack), (window, id)) = (halves(progress), halves(more));
        Self {
            packets: u64::from_ne_bytes(packets),
            bytes: u64::from_ne_bytes(bytes),
            tcp: (
                narrow(id),
                TcpProgress {
                    seq_end: narrow(seq_end),
                    ack: narrow(ack),
                    window: u16::try_from(window).unwrap_or(u16::MAX),
                },
            ),
        }
    }
}
