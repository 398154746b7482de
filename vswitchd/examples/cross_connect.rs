//! Joins two veth host ends with the port layer alone, to measure it against a straight veth:
//! `cross_connect <ifname> <ifname> [workers] [spin_polls] [batch]`, until killed.

use std::sync::Arc;

use anyhow::Context;
use vswitch_api::PortNo;
use vswitch_datapath::packet::Frame;
use vswitch_datapath::{DropReason, Outputs, Timestamp, Verdict};
use vswitchd::clock::MonotonicClock;
use vswitchd::port::open_veth;
use vswitchd::supervise::Supervisor;
use vswitchd::worker::{FrameProcessor, WorkerConfig, WorkerDatapath, WorkerPool};

#[derive(Debug)]
struct Cable;

impl WorkerDatapath for Cable {
    type Processor = Self;

    fn processor(self: &Arc<Self>) -> Self {
        Self
    }

    fn expire(&self, _now: Timestamp) -> usize {
        0
    }
}

impl FrameProcessor for Cable {
    fn process(
        &mut self,
        in_port: PortNo,
        _frame: &mut Frame,
        _now: Timestamp,
        _out: &mut Outputs,
    ) -> Verdict {
        Verdict::Forward(PortNo(3 - in_port.0))
    }

    fn count_drop(&mut self, _reason: DropReason) {}
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let text = |at: usize| args.get(at).map(String::as_str);
    let mut config = WorkerConfig::new(MonotonicClock::start());
    config.workers = text(3).unwrap_or("1").parse().context("workers")?;
    config.spin_polls = text(4).unwrap_or("16").parse().context("spin_polls")?;
    config.batch = text(5).unwrap_or("32").parse().context("batch")?;
    let (events, _notices) = tokio::sync::mpsc::channel(16);
    let pool = WorkerPool::start(&Arc::new(Cable), config, events, &Supervisor::default())?;
    for no in [1_u32, 2] {
        let ifname = text(no as usize).context("two interface names")?.parse()?;
        pool.attach(open_veth(PortNo(no), &ifname, None, None)?)?;
    }
    loop {
        std::thread::park();
    }
}
