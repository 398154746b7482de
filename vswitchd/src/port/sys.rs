//! System calls of the ports: AF_PACKET sockets, TAP ioctls, interface queries.
//!
//! The only module of `port` with unsafe code. Every function takes descriptors by reference, so
//! they are open for the call, and hands out safe types. Constants that libc lacks are from
//! `linux/if_packet.h` and `linux/ethtool.h`.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::fs::OpenOptions;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use vswitch_api::MacAddr;
use vswitch_datapath::packet::{Frame, VNET_HDR_LEN, VnetHeader};

use super::{MAX_BATCH, Received};

// struct virtio_net_hdr comes in the host's byte order, VnetHeader reads little-endian.
const _: () = assert!(
    cfg!(target_endian = "little"),
    "the virtio-net header is read as it stands"
);

const PACKET_STATISTICS: c_int = 6;
const PACKET_AUXDATA: c_int = 8;
const PACKET_VNET_HDR: c_int = 15;
const PACKET_IGNORE_OUTGOING: c_int = 23;
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;
const ETH_P_8021Q: u16 = 0x8100;
// From linux/ethtool.h and linux/sockios.h.
const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETH_SS_FEATURES: u32 = 4;
const ETH_GSTRING_LEN: usize = 32;

/// Socket buffers per port: about 60 super-frames (a 64 KiB frame is charged some 130 KB), the
/// kernel doubles the value. A limit, not a reservation.
const SOCKET_BUFFER_BYTES: c_int = 4 << 20;

/// `struct tpacket_auxdata`.
#[repr(C)]
#[derive(Clone, Copy)]
struct AuxData {
    status: u32,
    len: u32,
    snaplen: u32,
    mac: u16,
    net: u16,
    vlan_tci: u16,
    vlan_tpid: u16,
}

/// `CMSG_SPACE(sizeof(struct tpacket_auxdata))` is 40 on 64-bit; `u64` keeps it aligned.
const CONTROL_WORDS: usize = 5;
const _: () = assert!(size_of::<AuxData>() == 20 && size_of::<libc::cmsghdr>() <= 16);

/// A system call that failed, by name.
pub(super) type StepError = (&'static str, io::Error);

/// Returns whether `error` only says that there is nothing to do now.
pub(super) fn is_try_again(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn check_len(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default()
}

// ---- AF_PACKET ----

/// Opens a packet socket that receives nothing yet (protocol 0), with all options set.
///
/// PACKET_QDISC_BYPASS stays off: a chained bandwidth plugin shapes in the qdisc.
pub(super) fn packet_socket() -> Result<OwnedFd, StepError> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket(2) takes plain numbers.
    let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) }).map_err(|e| ("socket", e))?;
    // SAFETY: the kernel just returned this descriptor and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    for (level, option, value, step) in [
        (libc::SOL_PACKET, PACKET_VNET_HDR, 1, "PACKET_VNET_HDR"),
        (
            libc::SOL_PACKET,
            PACKET_IGNORE_OUTGOING,
            1,
            "PACKET_IGNORE_OUTGOING",
        ),
        (libc::SOL_PACKET, PACKET_AUXDATA, 1, "PACKET_AUXDATA"),
        (
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            SOCKET_BUFFER_BYTES,
            "SO_RCVBUFFORCE",
        ),
        (
            libc::SOL_SOCKET,
            libc::SO_SNDBUFFORCE,
            SOCKET_BUFFER_BYTES,
            "SO_SNDBUFFORCE",
        ),
    ] {
        set_option(&socket, level, option, value).map_err(|error| (step, error))?;
    }
    Ok(socket)
}

fn set_option(fd: &OwnedFd, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            length_of::<c_int>(),
        )
    };
    check(result).map(drop)
}

/// Binds to one interface for every protocol; frames arrive from here on.
pub(super) fn bind_packet_socket(socket: &OwnedFd, if_index: c_int) -> Result<(), StepError> {
    // SAFETY: sockaddr_ll is plain numbers; zero is a valid value of each.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be();
    address.sll_ifindex = if_index;
    // SAFETY: the pointer and length describe `address`, which outlives the call.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            length_of::<libc::sockaddr_ll>(),
        )
    };
    check(result).map(drop).map_err(|error| ("bind", error))
}

/// Reads and resets the count of frames that did not fit the receive buffer.
pub(super) fn take_packet_drops(socket: &OwnedFd) -> io::Result<u64> {
    let mut stats = [0_u32; 2]; // struct tpacket_stats: tp_packets, tp_drops
    let mut len = length_of::<[u32; 2]>();
    // SAFETY: the pointer and `len` describe `stats`; the kernel writes at most `len` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_STATISTICS,
            (&raw mut stats).cast(),
            &raw mut len,
        )
    };
    check(result).map(|_| u64::from(stats[1]))
}

/// Receives up to [`MAX_BATCH`] frames in one call; the good ones end up at the front.
pub(super) fn recv_frames(socket: &OwnedFd, frames: &mut [Frame]) -> io::Result<Received> {
    let mut headers = [[0_u8; VNET_HDR_LEN]; MAX_BATCH];
    let mut control = [[0_u64; CONTROL_WORDS]; MAX_BATCH];
    // SAFETY: iovec and mmsghdr are pointers and numbers; zero (null, empty) is valid for each.
    let mut iovecs: [[libc::iovec; 2]; MAX_BATCH] = unsafe { zeroed() };
    // SAFETY: as above.
    let mut messages: [libc::mmsghdr; MAX_BATCH] = unsafe { zeroed() };
    let count = frames.len().min(MAX_BATCH);
    for (i, frame) in frames.iter_mut().enumerate().take(count) {
        let room = frame.receive_room();
        iovecs[i] = [
            libc::iovec {
                iov_base: headers[i].as_mut_ptr().cast(),
                iov_len: VNET_HDR_LEN,
            },
            libc::iovec {
                iov_base: room.as_mut_ptr().cast(),
                iov_len: room.len(),
            },
        ];
        let message = &mut messages[i].msg_hdr;
        message.msg_iov = iovecs[i].as_mut_ptr();
        message.msg_iovlen = 2;
        message.msg_control = control[i].as_mut_ptr().cast();
        message.msg_controllen = size_of::<[u64; CONTROL_WORDS]>();
    }
    // SAFETY: each of the `count` messages points to a header, a frame's room and a control buffer
    // with their true lengths; all of them outlive the call and nothing else refers to them.
    let received = check(unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            c_uint::try_from(count).unwrap_or_default(),
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
        )
    })?;
    let received = usize::try_from(received).unwrap_or_default().min(count);
    let mut good = 0;
    for i in 0..received {
        let len = messages[i].msg_len as usize;
        if messages[i].msg_hdr.msg_flags & libc::MSG_TRUNC != 0 || len < VNET_HDR_LEN {
            continue;
        }
        frames[i].set_received(len - VNET_HDR_LEN, VnetHeader::parse(&headers[i]));
        if let Some((tpid, tci)) = vlan_tag(&messages[i].msg_hdr) {
            frames[i].insert_vlan_tag(tpid, tci);
        }
        frames.swap(good, i);
        good += 1;
    }
    Ok(Received {
        frames: good,
        bad: received - good,
    })
}

/// Returns the VLAN tag that the kernel took out of the frame, if it says there was one.
fn vlan_tag(message: &libc::msghdr) -> Option<(u16, u16)> {
    // SAFETY: the kernel filled msg_control and msg_controllen of this message; the CMSG functions
    // stay within them.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: not null, so it points to a whole cmsghdr inside the control buffer.
        let cmsg = unsafe { *header };
        if cmsg.cmsg_level == libc::SOL_PACKET && cmsg.cmsg_type == PACKET_AUXDATA {
            // SAFETY: the kernel writes a whole tpacket_auxdata for this type; the data may be
            // unaligned, hence read_unaligned.
            let aux = unsafe { libc::CMSG_DATA(header).cast::<AuxData>().read_unaligned() };
            if aux.status & TP_STATUS_VLAN_VALID == 0 {
                return None;
            }
            let has_tpid = aux.status & TP_STATUS_VLAN_TPID_VALID != 0;
            return Some((
                if has_tpid { aux.vlan_tpid } else { ETH_P_8021Q },
                aux.vlan_tci,
            ));
        }
        // SAFETY: as for CMSG_FIRSTHDR; `header` came from it.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}

/// Sends up to [`MAX_BATCH`] frames in one call; returns how many the kernel took.
pub(super) fn send_frames(socket: &OwnedFd, frames: &[&Frame]) -> io::Result<usize> {
    let mut headers = [[0_u8; VNET_HDR_LEN]; MAX_BATCH];
    // SAFETY: iovec and mmsghdr are pointers and numbers; zero (null, empty) is valid for each.
    let mut iovecs: [[libc::iovec; 2]; MAX_BATCH] = unsafe { zeroed() };
    // SAFETY: as above.
    let mut messages: [libc::mmsghdr; MAX_BATCH] = unsafe { zeroed() };
    let count = frames.len().min(MAX_BATCH);
    for (i, frame) in frames.iter().enumerate().take(count) {
        headers[i] = frame.vnet.emit();
        iovecs[i] = frame_iovecs(&headers[i], frame.bytes());
        messages[i].msg_hdr.msg_iov = iovecs[i].as_mut_ptr();
        messages[i].msg_hdr.msg_iovlen = 2;
    }
    // SAFETY: each of the `count` messages points to a header and a frame with their true lengths;
    // both outlive the call, and sending only reads them.
    let sent = check(unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            c_uint::try_from(count).unwrap_or_default(),
            libc::MSG_DONTWAIT,
        )
    })?;
    Ok(usize::try_from(sent).unwrap_or_default())
}

/// Header and frame for a call that only reads them.
fn frame_iovecs(header: &[u8; VNET_HDR_LEN], frame: &[u8]) -> [libc::iovec; 2] {
    [
        libc::iovec {
            iov_base: header.as_ptr().cast_mut().cast(),
            iov_len: VNET_HDR_LEN,
        },
        libc::iovec {
            iov_base: frame.as_ptr().cast_mut().cast(),
            iov_len: frame.len(),
        },
    ]
}

// ---- TAP ----

/// Opens the clone device; it is no interface yet.
pub(super) fn open_tun() -> io::Result<OwnedFd> {
    OpenOptions::new()
        .read(true)
        .write(true)
        // std adds O_CLOEXEC.
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .map(OwnedFd::from)
}

fn ifreq(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is a name and a union of numbers and pointers; zero is valid for each.
    let mut request: libc::ifreq = unsafe { zeroed() };
    if name.len() >= libc::IFNAMSIZ || name.contains('\0') {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

fn name_of(request: &libc::ifreq) -> String {
    let bytes = request.ifr_name.map(|c| c.to_ne_bytes()[0]);
    CStr::from_bytes_until_nul(&bytes)
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Runs an ioctl whose argument is a `struct ifreq`.
fn ifreq_ioctl(
    fd: &impl AsRawFd,
    number: libc::Ioctl,
    request: &mut libc::ifreq,
) -> io::Result<()> {
    // SAFETY: every caller passes a number whose argument is a struct ifreq, read or written in
    // place; `request` is one and is borrowed exclusively for the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), number, std::ptr::from_mut(request)) }).map(drop)
}

/// Makes or attaches to the TAP `name`, with virtio-net header; returns its actual name.
pub(super) fn tun_set_iff(tap: &OwnedFd, name: &str) -> io::Result<String> {
    let mut request = ifreq(name)?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags =
        i16::try_from(flags).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    ifreq_ioctl(tap, libc::TUNSETIFF, &mut request)?;
    Ok(name_of(&request))
}

/// States that the virtio-net header has no `num_buffers`.
pub(super) fn tun_set_vnet_hdr_len(tap: &OwnedFd) -> io::Result<()> {
    let len = c_int::try_from(VNET_HDR_LEN).unwrap_or_default();
    // SAFETY: TUNSETVNETHDRSZ reads one int through the pointer.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const len) }).map(drop)
}

/// Asks for offloads (`TUN_F_*`).
pub(super) fn tun_set_offload(tap: &OwnedFd, bits: c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes the bits as its argument, no pointer.
    let result = unsafe {
        libc::ioctl(
            tap.as_raw_fd(),
            libc::TUNSETOFFLOAD,
            libc::c_ulong::from(bits),
        )
    };
    check(result).map(drop)
}

/// Makes the device outlive its descriptor, or not.
pub(super) fn tun_set_persist(tap: &OwnedFd, persistent: bool) -> io::Result<()> {
    let value = libc::c_ulong::from(persistent);
    // SAFETY: TUNSETPERSIST takes the value as its argument, no pointer.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETPERSIST, value) }).map(drop)
}

/// Sets the MAC address; the TAP's own descriptor does it in whatever namespace the device is.
pub(super) fn tun_set_mac(tap: &OwnedFd, mac: MacAddr) -> io::Result<()> {
    let mut request = ifreq("")?;
    // SAFETY: sockaddr is plain numbers; zero is valid for each.
    let mut address: libc::sockaddr = unsafe { zeroed() };
    address.sa_family = libc::ARPHRD_ETHER;
    for (to, from) in address.sa_data.iter_mut().zip(mac.0) {
        *to = c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_hwaddr = address;
    ifreq_ioctl(tap, libc::SIOCSIFHWADDR, &mut request)
}

/// Reads one frame; `false` means that it was too short to be one.
pub(super) fn read_frame(tap: &OwnedFd, frame: &mut Frame) -> io::Result<bool> {
    let mut header = [0_u8; VNET_HDR_LEN];
    let room = frame.receive_room();
    let iovecs = [
        libc::iovec {
            iov_base: header.as_mut_ptr().cast(),
            iov_len: VNET_HDR_LEN,
        },
        libc::iovec {
            iov_base: room.as_mut_ptr().cast(),
            iov_len: room.len(),
        },
    ];
    // SAFETY: the two iovecs describe `header` and the frame's room, both borrowed exclusively.
    let len = check_len(unsafe { libc::readv(tap.as_raw_fd(), iovecs.as_ptr(), 2) })?;
    if len <= VNET_HDR_LEN {
        return Ok(false);
    }
    frame.set_received(len - VNET_HDR_LEN, VnetHeader::parse(&header));
    Ok(true)
}

/// Writes one frame; the kernel takes it whole or not at all.
pub(super) fn write_frame(tap: &OwnedFd, frame: &Frame) -> io::Result<()> {
    let header = frame.vnet.emit();
    let iovecs = frame_iovecs(&header, frame.bytes());
    // SAFETY: the two iovecs describe `header` and the frame; writing only reads them.
    check_len(unsafe { libc::writev(tap.as_raw_fd(), iovecs.as_ptr(), 2) }).map(drop)
}

/// Makes reads and writes return at once.
pub(super) fn set_nonblocking(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: F_GETFL takes no argument.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: F_SETFL takes a number.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(drop)
}

// ---- interfaces ----

/// Opens a socket for interface ioctls in the namespace of the calling thread.
pub(super) fn control_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: socket(2) takes plain numbers.
    let fd = check(unsafe { libc::socket(libc::AF_INET, kind, 0) })?;
    // SAFETY: the kernel just returned this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Returns the index of the interface.
pub(super) fn if_index(socket: &OwnedFd, name: &str) -> io::Result<c_int> {
    let mut request = ifreq(name)?;
    ifreq_ioctl(socket, libc::SIOCGIFINDEX, &mut request)?;
    // SAFETY: SIOCGIFINDEX filled this member; every bit pattern is a number.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex })
}

/// Returns the name of the interface with this index.
pub(super) fn if_name(socket: &impl AsFd, if_index: c_int) -> io::Result<String> {
    let mut request = ifreq("")?;
    request.ifr_ifru.ifru_ifindex = if_index;
    ifreq_ioctl(&socket.as_fd(), libc::SIOCGIFNAME, &mut request)?;
    Ok(name_of(&request))
}

/// Returns whether the interface is administratively up.
pub(super) fn if_is_up(socket: &impl AsFd, name: &str) -> io::Result<bool> {
    let mut request = ifreq(name)?;
    ifreq_ioctl(&socket.as_fd(), libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: SIOCGIFFLAGS filled this member; every bit pattern is a number.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(c_int::from(flags) & libc::IFF_UP != 0)
}

// ---- offload features ----

/// Runs an ethtool command on the structure that `words` holds.
///
/// # Safety
///
/// `words` must be as large as everything that the kernel reads and writes for the command in
/// its first word.
unsafe fn ethtool(socket: &OwnedFd, name: &str, words: &mut [u32]) -> io::Result<()> {
    let mut request = ifreq(name)?;
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    ifreq_ioctl(socket, SIOCETHTOOL, &mut request)
}

/// Returns the names of all features that the kernel knows; the position is the bit.
pub(super) fn feature_names(socket: &OwnedFd, name: &str) -> Result<Vec<String>, StepError> {
    // struct ethtool_sset_info: cmd, reserved, a 64-bit mask of string sets, one length.
    let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0];
    // SAFETY: the mask has one bit, so the kernel writes one length at most: five words.
    unsafe { ethtool(socket, name, &mut info) }.map_err(|error| ("ETHTOOL_GSSET_INFO", error))?;
    let count = info[4] as usize;
    // struct ethtool_gstrings: cmd, string set, length, strings.
    let mut strings = vec![0; 3 + count * ETH_GSTRING_LEN / size_of::<u32>()];
    strings[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, info[4]]);
    // SAFETY: there is room for the strings that the kernel has just counted; their number is
    // constant while it runs.
    unsafe { ethtool(socket, name, &mut strings) }.map_err(|error| ("ETHTOOL_GSTRINGS", error))?;
    let bytes: Vec<u8> = strings[3..].iter().flat_map(|w| w.to_ne_bytes()).collect();
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|byte| *byte == 0);
        String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
    };
    Ok(bytes.chunks_exact(ETH_GSTRING_LEN).map(text).collect())
}

/// Switches off the features whose bit is set; `bits` has one for each of [`feature_names`].
pub(super) fn clear_features(socket: &OwnedFd, name: &str, bits: &[bool]) -> Result<(), StepError> {
    let blocks = bits.chunks(32).map(|block| {
        let set = block.iter().enumerate().filter(|(_, bit)| **bit);
        set.fold(0_u32, |mask, (at, _)| mask | 1 << at)
    });
    // struct ethtool_sfeatures: cmd, blocks, and for each block what to change and to what.
    let length = u32::try_from(blocks.len()).unwrap_or_default();
    let mut words = vec![ETHTOOL_SFEATURES, length];
    words.extend(blocks.flat_map(|valid| [valid, 0]));
    // SAFETY: the kernel reads as many blocks as the second word says, if it is the number it
    // has itself, and writes nothing behind them.
    unsafe { ethtool(socket, name, &mut words) }.map_err(|error| ("ETHTOOL_SFEATURES", error))
}
