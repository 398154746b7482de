//! A packet socket on an interface inside a namespace, to send frames no stack would send, and to
//! count those that pass.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};

use crate::Namespace;

/// An AF_PACKET socket bound to one interface.
#[derive(Debug)]
pub struct RawSocket {
    fd: OwnedFd,
}

impl RawSocket {
    /// Opens the socket inside `namespace`.
    ///
    /// # Errors
    /// Fails if the namespace cannot be entered or has no such interface.
    pub fn open(namespace: &Namespace, ifname: &str) -> Result<Self> {
        let netns = File::open(namespace.path())?;
        let ifname = ifname.to_owned();
        // A namespace belongs to a thread: this one ends with the socket made.
        std::thread::spawn(move || {
            nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET)?;
            let index = nix::net::if_::if_nametoindex(ifname.as_str())?;
            Self::bind(index)
        })
        .join()
        .expect("the helper thread does not panic")
        .context("open packet socket")
    }

    fn bind(index: u32) -> Result<Self> {
        let protocol = u16::to_be(0x0003);
        // SAFETY: socket(2) takes no pointers; a fresh descriptor is owned by nobody else.
        let fd = unsafe {
            let fd = libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                i32::from(protocol),
            );
            if fd < 0 {
                return Err(io::Error::last_os_error().into());
            }
            OwnedFd::from_raw_fd(fd)
        };
        // SAFETY: sockaddr_ll is plain data for which zero is a valid value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET)?;
        address.sll_protocol = protocol;
        address.sll_ifindex = i32::try_from(index)?;
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())?;
        // SAFETY: the pointer and length describe `address`, which outlives the call.
        let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) };
        if bound < 0 {
            return Err(io::Error::last_os_error().into());
        }
        Ok(Self { fd })
    }

    /// Sends one frame as it is.
    ///
    /// # Errors
    /// Fails if the kernel refuses it.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and length describe `frame`, which outlives the call.
        let sent =
            unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Takes out all frames that came in or went out since; returns how many.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn drain(&self) -> io::Result<usize> {
        let mut byte = [0_u8];
        for taken in 0.. {
            // SAFETY: the pointer and length describe `byte`, which outlives the call.
            let received = unsafe {
                let buffer = byte.as_mut_ptr().cast();
                libc::recv(self.fd.as_raw_fd(), buffer, byte.len(), libc::MSG_DONTWAIT)
            };
            if received < 0 {
                let error = io::Error::last_os_error();
                return match error.kind() {
                    io::ErrorKind::WouldBlock => Ok(taken),
                    _ => Err(error),
                };
            }
        }
        unreachable!("a range without end")
    }
}
