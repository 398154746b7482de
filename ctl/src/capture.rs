//! `vsctl capture`: packets of a pod as pcapng, for Wireshark and tshark.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{ErrorKind, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::server::{Server, encode};

/// `capture`.
#[derive(Debug, Args)]
#[command(after_help = "\
FILTER is made of these words, all of which must hold: tcp, udp, sctp, icmp, arp, ip, ip6, dropped,
host ADDRESS, net NETWORK, port NUMBER. `and` between them may be left out.

  vsctl capture client -w client.pcapng
  vsctl capture client tcp and port 80 -w - | tshark -r -
  vsctl capture shop/web dropped --seconds 600 -w - | tshark -r - -T fields -e frame.comment

Each packet has a comment with its verdict and the policies and rules that led to it. In and out are
seen from the pod; what was denied on its way to the pod is there as well. While a pod is captured
none of its connections takes the fast path, so that every packet is seen: it is slower meanwhile.
At most four captures at once.")]
pub(crate) struct CaptureArgs {
    /// NAMESPACE/POD, POD (in namespace default), or the host interface of a port (`vsctl show`).
    pod: String,
    /// Which packets: all by default.
    filter: Vec<String>,
    /// File to write; `-` is standard output.
    #[arg(short, long, value_name = "FILE")]
    write: PathBuf,
    /// End after so many packets.
    #[arg(short, long, value_name = "PACKETS", default_value_t = 100_000)]
    count: u64,
    /// End after so much time.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// End when the file has so many megabytes.
    #[arg(long, default_value_t = 64)]
    megabytes: u64,
    /// Bytes of each packet: the default holds whole packets of an MTU of 1500.
    #[arg(long, value_name = "BYTES", default_value_t = 2048)]
    snaplen: u64,
}

impl CaptureArgs {
    fn path(&self) -> String {
        let mut path = format!("/v1/captures?pod={}", encode(&self.pod));
        let filter = self.filter.join(" ");
        if !filter.is_empty() {
            let _ = write!(path, "&filter={}", encode(&filter));
        }
        let (count, seconds) = (self.count, self.seconds);
        let (megabytes, snaplen) = (self.megabytes, self.snaplen);
        let _ = write!(
            path,
            "&count={count}&seconds={seconds}&megabytes={megabytes}&snaplen={snaplen}"
        );
        path
    }
}

/// Captures until a limit is reached or nobody reads any more.
pub(crate) fn capture(server: &Server, args: &CaptureArgs) -> Result<()> {
    let to_stdout = args.write == Path::new("-");
    if to_stdout && std::io::stdout().is_terminal() {
        bail!(
            "a capture is no text: write it to a file, or pipe it: vsctl capture … -w - | tshark -r -"
        );
    }
    let mut out: Option<Box<dyn Write>> = None;
    let (mut blocks, mut told) = (Blocks::default(), Figures::default());
    server.pieces(&args.path(), |piece| {
        let out = match &mut out {
            Some(out) => out,
            // The daemon took it: only now is a file that was there before given up.
            None => out.insert(open(&args.write, to_stdout)?),
        };
        let whole = blocks.add(piece)?;
        match out.write_all(&whole).and_then(|()| out.flush()) {
            Err(error) if to_stdout && error.kind() == ErrorKind::BrokenPipe => return Ok(false),
            written => written.with_context(|| format!("write {}", args.write.display()))?,
        }
        if blocks.figures.ended.is_none() && blocks.figures != told {
            told = blocks.figures.clone();
            eprintln!("vsctl: {}", told.text());
        }
        Ok(true)
    })?;
    if blocks.figures.ended.is_some() {
        eprintln!("vsctl: {}", blocks.figures.text());
    }
    Ok(())
}

fn open(path: &Path, to_stdout: bool) -> Result<Box<dyn Write>> {
    if to_stdout {
        return Ok(Box::new(std::io::stdout().lock()));
    }
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    Ok(Box::new(file))
}

/// What the daemon says of the capture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Figures {
    captured: u64,
    lost: u64,
    lost_by_kernel: u64,
    ended: Option<String>,
}

impl Figures {
    fn text(&self) -> String {
        let mut text = format!("{} packets captured, {} lost", self.captured, self.lost);
        if self.lost_by_kernel > 0 {
            let _ = write!(text, ", {} before the switch had them", self.lost_by_kernel);
        }
        if let Some(ended) = &self.ended {
            let _ = write!(text, "; {ended}");
        }
        text
    }
}

/// Type of an Interface Statistics Block, and longest block that is believed: one packet.
const STATISTICS: u32 = 5;
const MAX_BLOCK: usize = 1 << 20;

/// Pieces of a capture, made whole blocks: what is written can be read, whenever it breaks off.
#[derive(Debug, Default)]
struct Blocks {
    pending: Vec<u8>,
    figures: Figures,
}

impl Blocks {
    /// Takes a piece; returns the blocks that are complete with it.
    fn add(&mut self, piece: &[u8]) -> Result<Vec<u8>> {
        self.pending.extend_from_slice(piece);
        let mut end = 0;
        while let Some(len) = word(&self.pending, end + 4) {
            let len = usize::try_from(len)?;
            if !(12..=MAX_BLOCK).contains(&len) {
                bail!("the daemon sent a block of {len} bytes");
            }
            let Some(block) = self.pending.get(end..end + len) else {
                break;
            };
            if word(block, 0) == Some(STATISTICS) {
                self.figures = figures(block.get(20..len - 4).unwrap_or_default());
            }
            end += len;
        }
        let rest = self.pending.split_off(end);
        Ok(std::mem::replace(&mut self.pending, rest))
    }
}

/// Reads the options of an Interface Statistics Block.
fn figures(mut options: &[u8]) -> Figures {
    let mut figures = Figures::default();
    while let Some(&[a, b, c, d]) = options.first_chunk() {
        let (code, len) = (
            u16::from_le_bytes([a, b]),
            u16::from_le_bytes([c, d]).into(),
        );
        let Some(value) = options.get(4..4_usize.saturating_add(len)) else {
            break;
        };
        let number = value
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        match code {
            1 => figures.ended = Some(String::from_utf8_lossy(value).into_owned()),
            5 => figures.lost = number,
            7 => figures.lost_by_kernel = number,
            8 => figures.captured = number,
            _ => {}
        }
        options = options
            .get(4 + len.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    figures
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(block_type: u32, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len() + 12).unwrap().to_le_bytes();
        [&block_type.to_le_bytes(), &len[..], body, &len].concat()
    }

    fn option(code: u16, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(value.len()).unwrap().to_le_bytes();
        let padding = vec![0; value.len().next_multiple_of(4) - value.len()];
        [&code.to_le_bytes(), &len[..], value, &padding].concat()
    }

    #[test]
    fn only_whole_blocks_are_handed_on() {
        let file = [block(1, &[7; 8]), block(6, &[8; 40])].concat();
        let mut blocks = Blocks::default();
        let mut out = Vec::new();
        for (at, byte) in file.iter().enumerate() {
            let whole = blocks.add(&[*byte]).unwrap();
            let lengths = match at + 1 {
                20 => 20,
                72 => 52,
                _ => 0,
            };
            assert_eq!(whole.len(), lengths, "after {} bytes", at + 1);
            out.extend(whole);
        }
        assert_eq!(out, file);
    }

    #[test]
    fn a_length_that_cannot_be_is_refused() {
        let refused = Blocks::default().add(&[6, 0, 0, 0, 4, 0, 0, 0]);
        assert!(refused.unwrap_err().to_string().contains("4 bytes"));
    }

    #[test]
    fn statistics_say_what_was_lost_and_why_it_ended() {
        let options = [
            option(2, &[0; 8]),
            option(1, b"ended by count"),
            option(5, &3_u64.to_le_bytes()),
            option(8, &10_u64.to_le_bytes()),
            option(0, &[]),
        ];
        let mut blocks = Blocks::default();
        let body = [vec![0; 12], options.concat()].concat();
        blocks.add(&block(STATISTICS, &body)).unwrap();
        let said = blocks.figures.text();
        assert_eq!(said, "10 packets captured, 3 lost; ended by count");
    }
}
