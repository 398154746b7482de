//! Keys and values of the BPF maps, laid out as in `vswitchd/bpf/kernel_path.c`. Plain bytes, so
//! that reading and writing them needs no unsafe code.

use std::net::IpAddr;

use vswitch_datapath::conntrack::Tuple;

use super::memory::Way;

/// `struct flow_key`.
pub(super) type Key = [u8; 56];
/// `struct flow`.
pub(super) type Flow = [u8; 8];

/// `struct translation`.
pub(super) type Translation = [u8; 72];

/// `TO_GATEWAY`.
const TO_GATEWAY: u16 = 1;
/// `IS_TRANSLATED`.
const IS_TRANSLATED: u16 = 2;

/// A device that packets leave through, in the kernel's terms.
#[derive(Debug, Clone, Copy)]
pub(super) struct Device {
    pub(super) if_index: u32,
    /// Whether it is the gateway: packets go into the host's stack.
    pub(super) is_gateway: bool,
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

/// Returns the key of packets that come in through the device with these MACs.
pub(super) fn key(tuple: &Tuple, macs: &[u8; 12], if_index: u32) -> Key {
    let family = if tuple.src.is_ipv4() { 4 } else { 6 };
    Fields::<56>::new()
        .put(&if_index.to_ne_bytes())
        .put(&[family, tuple.proto])
        .put(&tuple.tp_src.to_be_bytes())
        .put(&tuple.tp_dst.to_be_bytes())
        .put(&[0; 2])
        .put(macs)
        .address(tuple.src)
        .address(tuple.dst)
        .bytes
}

/// Returns what leads from a direction's key to its connection.
pub(super) fn flow(slot: u32, direction: usize, id: u32) -> Flow {
    let direction = u32::from(direction != 0);
    Fields::<8>::new()
        .put(&(slot * 2 + direction).to_ne_bytes())
        .put(&id.to_ne_bytes())
        .bytes
}

/// Returns what packets of a connection look like when they leave, either way.
pub(super) fn translation([original, reply]: &[Tuple; 2]) -> Translation {
    [original, reply]
        .iter()
        .fold(Fields::<72>::new(), |fields, leaves_as| {
            fields
                .address(leaves_as.src)
                .address(leaves_as.dst)
                .put(&leaves_as.tp_src.to_be_bytes())
                .put(&leaves_as.tp_dst.to_be_bytes())
        })
        .bytes
}

/// Returns where packets go that come with a tuple, with which MACs and how large.
pub(super) fn way(
    (tuple, is_translated): (&Tuple, bool),
    leave_with: &[u8; 12],
    mtu: u16,
    to: Device,
) -> Way {
    let flags =
        (u16::from(to.is_gateway) * TO_GATEWAY) | (u16::from(is_translated) * IS_TRANSLATED);
    let bytes = Fields::<24>::new()
        .put(&to.if_index.to_ne_bytes())
        .put(&mtu.to_ne_bytes())
        .put(&flags.to_ne_bytes())
        .put(leave_with)
        .put(&tuple.tp_src.to_be_bytes())
        .put(&tuple.tp_dst.to_be_bytes())
        .bytes;
    let (words, _) = bytes.as_chunks::<4>();
    let mut way = Way::default();
    for (word, bytes) in way.iter_mut().zip(words) {
        *word = u32::from_ne_bytes(*bytes);
    }
    way
}
