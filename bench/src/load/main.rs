//! Load generators for `make bench-peers` and `make flood`: each mode is one side of one kind of work.
//!
//! A process works inside the namespace it is started in, says `ready` once others may come,
//! prints one JSON line as its result, and ends when its standard input closes or its time is
//! over: nothing outlives the harness. The side that measures also takes the machine's
//! processor time at the edges of the measured window.

#![allow(clippy::disallowed_methods, reason = "it measures real time")]

mod connect;
mod control;
mod datagrams;
mod echo;
mod flood;
mod mesh;
mod questions;
mod stream;
mod window;

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::control::Control;
use crate::flood::Kind;
use crate::window::WindowArgs;

/// One side of one kind of work.
#[derive(Debug, Parser)]
#[command(name = "vswitch-load")]
struct Args {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Accepts TCP streams and measures what comes.
    StreamReceive {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        streams: usize,
        #[command(flatten)]
        window: WindowArgs,
    },
    /// Fills TCP streams until told to stop.
    StreamSend {
        #[arg(long)]
        to: SocketAddrV4,
        #[arg(long)]
        streams: usize,
    },
    /// Sends each byte of a TCP connection back.
    Echo {
        #[arg(long)]
        port: u16,
    },
    /// Sends a byte, waits for it to come back, and measures how long that takes.
    RequestResponse {
        #[arg(long)]
        to: SocketAddrV4,
        #[command(flatten)]
        window: WindowArgs,
    },
    /// Answers one byte on each connection and closes it; listens on as many ports as threads.
    Answer {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        threads: u16,
    },
    /// Connects, sends a byte, reads the answer to its end, closes; again and again.
    Connect {
        #[arg(long)]
        to: SocketAddrV4,
        #[arg(long)]
        threads: u16,
        #[command(flatten)]
        window: WindowArgs,
    },
    /// Counts UDP datagrams.
    DatagramReceive {
        #[arg(long)]
        port: u16,
        #[command(flatten)]
        window: WindowArgs,
    },
    /// Sends UDP datagrams as fast as it can until told to stop.
    DatagramSend {
        #[arg(long)]
        to: SocketAddrV4,
        /// Bytes of payload.
        #[arg(long)]
        size: usize,
    },
    /// Sends each UDP datagram back.
    AnswerQuestions {
        #[arg(long)]
        port: u16,
    },
    /// Sends a UDP datagram from a fresh port, waits for it to come back; again and again.
    AskQuestions {
        #[arg(long)]
        to: SocketAddrV4,
        #[arg(long)]
        threads: u16,
        #[command(flatten)]
        window: WindowArgs,
    },
    /// Sends packets of ever new flows as fast as it can until told to stop.
    Flood {
        /// The ports are random.
        #[arg(long)]
        to: Ipv4Addr,
        #[arg(long)]
        kind: Kind,
    },
    /// Keeps one core busy, without a packet, until told to stop.
    Burn,
    /// Sends to every peer in turn, and takes in what they send.
    Mesh {
        #[arg(long)]
        port: u16,
        /// Addresses in the order in which they are visited.
        #[arg(long, value_delimiter = ',')]
        peers: Vec<Ipv4Addr>,
        /// Bytes to each.
        #[arg(long)]
        bytes: u64,
    },
}

fn main() -> Result<()> {
    let control = Control::listen();
    match Args::parse().mode {
        Mode::StreamReceive {
            port,
            streams,
            window,
        } => stream::receive(port, streams, window),
        Mode::StreamSend { to, streams } => stream::send(to, streams, &control),
        Mode::Echo { port } => echo::serve(port),
        Mode::RequestResponse { to, window } => echo::ask(to, window),
        Mode::Answer { port, threads } => connect::answer(port, threads),
        Mode::Connect {
            to,
            threads,
            window,
        } => connect::connect(to, threads, window),
        Mode::DatagramReceive { port, window } => datagrams::receive(port, window),
        Mode::DatagramSend { to, size } => datagrams::send(to, size, &control),
        Mode::AnswerQuestions { port } => questions::answer(port),
        Mode::AskQuestions {
            to,
            threads,
            window,
        } => questions::ask(to, threads, window),
        Mode::Flood { to, kind } => flood::send(to, kind, &control),
        Mode::Burn => flood::burn(&control),
        Mode::Mesh { port, peers, bytes } => mesh::run(port, &peers, bytes, &control),
    }
}
