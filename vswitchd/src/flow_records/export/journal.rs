//! Records as entries of systemd's journal.
//!
//! The protocol is a datagram to a socket, or a sealed memfd where that is too large: written here
//! because the crates that speak it (`tracing-journald`, which logs, `systemd-journal-logger`,
//! `libsystemd`) have the socket's path built in, which no test could take, and the first of them
//! swallows errors.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use vswitch_api::v1::FlowRecord;

use super::journal_entry::entry;
use super::sink::{Failed, Outcome, Writer};

/// Where journald listens.
pub(super) const JOURNAL: &str = "/run/systemd/journal/socket";

/// For how long an entry waits for room in journald's queue.
const PATIENCE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Journal {
    /// Opens a socket to send from; who listens may come and go.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            path: path.to_owned(),
            socket,
        })
    }

    fn send(&self, entry: &[u8]) -> io::Result<()> {
        match self.socket.send_to(entry, &self.path) {
            Ok(_) => Ok(()),
            // `sd_journal_sendv` takes both for too large.
            Err(error) if is_too_large(&error) => self.send_as_file(entry),
            Err(error) => Err(error),
        }
    }

    /// Hands over a file in memory in place of the datagram.
    fn send_as_file(&self, entry: &[u8]) -> io::Result<()> {
        let flags = MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_CLOEXEC;
        let mut file = File::from(memfd_create("vswitchd-flow-record", flags)?);
        file.write_all(entry)?;
        // journald takes nothing that could change under it.
        let seals = SealFlag::F_SEAL_SHRINK
            | SealFlag::F_SEAL_GROW
            | SealFlag::F_SEAL_WRITE
            | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        let to = UnixAddr::new(&self.path)?;
        let (nothing, files) = ([IoSlice::new(&[])], [file.as_raw_fd()]);
        let files = [ControlMessage::ScmRights(&files)];
        let from = self.socket.as_raw_fd();
        sendmsg(from, &nothing, &files, MsgFlags::empty(), Some(&to))?;
        Ok(())
    }
}

fn is_too_large(error: &io::Error) -> bool {
    let of = |errno: Errno| error.raw_os_error() == Some(errno as i32);
    of(Errno::EMSGSIZE) || of(Errno::ENOBUFS)
}

impl Writer for Journal {
    fn write(&mut self, records: &[FlowRecord]) -> Outcome {
        let mut outcome = Outcome::default();
        for record in records {
            if let Err(error) = self.send(&entry(record)) {
                let problem = match error.kind() {
                    ErrorKind::WouldBlock => "it takes no more entries".to_owned(),
                    _ => format!("sending an entry failed: {error}"),
                };
                outcome.failed = Some(Failed::with(problem));
                break;
            }
            outcome.taken += 1;
        }
        outcome
    }
}
