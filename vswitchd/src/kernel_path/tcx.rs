//! A program at the tcx hook of a device that stays there when the process ends.
//!
//! A link (`BPF_LINK_CREATE`) ends with its process: the kernel waits for an RCU grace period for
//! each, 10 to 20 ms, under the lock of all of the node's network configuration; and again when
//! the next process attaches. A program that is attached without a link (`BPF_PROG_ATTACH`) goes
//! with its device, and putting another one in its place waits for nothing.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::programs::SchedClassifier;
use aya::programs::tc::TcAttachType;
use vswitch_api::IfName;

/// `enum bpf_cmd` of linux/bpf.h.
const BPF_PROG_ATTACH: libc::c_long = 8;
/// `enum bpf_attach_type`.
const BPF_TCX_INGRESS: u32 = 46;
/// Flags of `BPF_PROG_ATTACH`.
const BPF_F_REPLACE: u32 = 1 << 2;

/// `struct { … }` of `BPF_PROG_ATTACH` in `union bpf_attr`; zero where nothing is said.
#[repr(C)]
#[derive(Default)]
struct ProgAttach {
    target_ifindex: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
    relative_fd: u32,
    expected_revision: u64,
}

/// Attaches `program` to what the device receives, in place of the one of that name that an
/// earlier process left there.
///
/// # Errors
/// The kernel lacks tcx (Linux 6.6), the device is gone, or the capability (CAP_NET_ADMIN) is
/// missing.
pub(super) fn attach_ingress(
    ifname: &IfName,
    if_index: u32,
    name: &str,
    program: BorrowedFd<'_>,
) -> io::Result<()> {
    let (_, present) = SchedClassifier::query_tcx(ifname.as_str(), TcAttachType::Ingress)
        .map_err(io::Error::other)?;
    let mut earlier = present
        .iter()
        .filter(|info| info.name_as_str() == Some(name));
    let Some(earlier) = earlier.next() else {
        return prog_attach(if_index, program, None);
    };
    let earlier = earlier.fd().map_err(io::Error::other)?;
    match prog_attach(if_index, program, Some(earlier.as_fd())) {
        // It is this very program, of a port that this process had on the device before: the
        // kernel does not put a program in its own place (`bpf_mprog_attach`).
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        attached => attached,
    }
}

fn prog_attach(
    if_index: u32,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    // A descriptor is not negative.
    let number = |fd: BorrowedFd<'_>| u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX);
    let attr = ProgAttach {
        target_ifindex: if_index,
        attach_bpf_fd: number(program),
        attach_type: BPF_TCX_INGRESS,
        attach_flags: replaced.map_or(0, |_| BPF_F_REPLACE),
        replace_bpf_fd: replaced.map_or(0, number),
        ..ProgAttach::default()
    };
    // SAFETY: the pointer and size describe `attr`, which outlives the call; the kernel takes an
    // attribute that is shorter than its own as one with zeros behind it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_ATTACH,
            &raw const attr,
            size_of::<ProgAttach>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
