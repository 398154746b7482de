//! The thread and its handle.

use std::sync::{Arc, Condvar, Mutex};

use vswitch_api::{Epoch, PortNo};
use vswitch_datapath::DropReason;
use vswitch_datapath::pipeline::{PortUpdate, RuleId, TableId, Transaction};

use super::{GATEWAY, attachment, config, pod};
use crate::policy::tests::program::Program;
use crate::reconcile::{PortAttachMode, Publish, ReconcileHandle, ReconcileStopped, Reconciler};
use crate::rules::RuleDelta;
use crate::supervise::Supervisor;

/// Keeps what is published; holds publication up while it is shut.
#[derive(Debug, Default)]
struct Journal {
    published: Mutex<Vec<Transaction>>,
    is_shut: Mutex<bool>,
    opened: Condvar,
}

impl Journal {
    fn shut(&self, is_shut: bool) {
        *self.is_shut.lock().unwrap() = is_shut;
        self.opened.notify_all();
    }

    fn published(&self) -> Vec<Transaction> {
        self.published.lock().unwrap().clone()
    }
}

impl Publish for Journal {
    fn publish(&self, changes: Transaction) -> Epoch {
        let shut = self.is_shut.lock().unwrap();
        drop(self.opened.wait_while(shut, |shut| *shut).unwrap());
        let mut published = self.published.lock().unwrap();
        published.push(changes);
        Epoch(u64::try_from(published.len()).unwrap())
    }
}

fn wait_until_in_force(handle: &ReconcileHandle) -> Result<Epoch, ReconcileStopped> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(handle.wait_until_in_force())
}

fn start() -> (Arc<Journal>, ReconcileHandle, std::thread::JoinHandle<()>) {
    let journal = Arc::new(Journal::default());
    let (handle, thread) =
        Reconciler::start(Arc::clone(&journal), config(), &Supervisor::default()).unwrap();
    (journal, handle, thread)
}

#[test]
fn the_base_rules_and_the_gateway_are_there_at_once() {
    let (journal, handle, _thread) = start();
    assert_eq!(wait_until_in_force(&handle), Ok(Epoch(1)));
    let first = &journal.published()[0];
    assert!(matches!(first.ports.as_slice(), [PortUpdate::Upsert(spec)] if spec.no == GATEWAY));
    assert!(
        first
            .add_rules
            .iter()
            .any(|rule| rule.origin.kind == "Gateway")
    );
    handle.stop();
}

#[test]
fn what_was_sent_is_in_force_when_the_wait_ends_and_isolated_until_synced() {
    let (journal, handle, _thread) = start();
    handle.cluster(vec![pod("a", &[])]);
    handle.attach(
        attachment(10, "a", &["10.0.0.10/24"]),
        PortAttachMode::default(),
    );
    wait_until_in_force(&handle).unwrap();
    let isolating = || {
        let mut installed = Program::default();
        for changes in journal.published() {
            installed.apply(RuleDelta {
                remove_rules: changes.remove_rules,
                add_rules: changes.add_rules,
                sets: changes.sets,
            });
        }
        let drop = vswitch_datapath::Action::Drop(DropReason::PodUnknown);
        let rules = installed.rules.into_values();
        rules
            .filter(|rule| rule.actions.contains(&drop))
            .map(|rule| rule.table)
            .collect::<Vec<_>>()
    };
    let mut tables = isolating();
    tables.sort_unstable();
    let both_ways = [
        TableId::EgressAdminTier,
        TableId::EgressDefault,
        TableId::IngressAdminTier,
        TableId::IngressDefault,
    ];
    assert_eq!(tables, both_ways);
    handle.cluster_synced();
    let epoch = wait_until_in_force(&handle).unwrap();
    let snapshot = handle.snapshot();
    assert!(isolating().is_empty());
    assert_eq!(snapshot.epoch, epoch);
    assert!(snapshot.attachments.contains_key(&PortNo(10)));
    let removed: Vec<RuleId> = journal
        .published()
        .into_iter()
        .flat_map(|t| t.remove_rules)
        .collect();
    assert_eq!(
        removed.len(),
        5,
        "these, and the node's way past the tables of tiers"
    );
    handle.stop();
}

#[test]
fn a_burst_is_taken_together() {
    let (journal, handle, _thread) = start();
    wait_until_in_force(&handle).unwrap();
    journal.shut(true);
    for port in 10..60 {
        let address = format!("10.0.0.{port}/24");
        handle.attach(
            attachment(port, "a", &[&address]),
            PortAttachMode::default(),
        );
    }
    journal.shut(false);
    wait_until_in_force(&handle).unwrap();
    // The first, whatever was under way when publication was held up, and the rest.
    assert!(
        journal.published().len() <= 3,
        "{}",
        journal.published().len()
    );
    assert_eq!(handle.snapshot().attachments.len(), 50);
    handle.stop();
}

#[test]
fn telling_what_is_known_publishes_nothing() {
    let (journal, handle, _thread) = start();
    handle.cluster(vec![pod("a", &["10.0.1.1"])]);
    handle.set_node_addresses(vec!["192.168.0.1".parse().unwrap()]);
    wait_until_in_force(&handle).unwrap();
    let published = journal.published().len();
    handle.cluster(vec![pod("a", &["10.0.1.1"])]);
    handle.set_node_addresses(vec!["192.168.0.1".parse().unwrap()]);
    handle.detach(PortNo(77));
    handle.set_admin_flows(Vec::new());
    wait_until_in_force(&handle).unwrap();
    assert_eq!(journal.published().len(), published);
    handle.stop();
}

#[test]
fn a_stopped_reconciler_ends_its_thread_and_says_so() {
    let (_journal, handle, thread) = start();
    wait_until_in_force(&handle).unwrap();
    handle.stop();
    thread.join().unwrap();
    handle.detach(PortNo(1));
    handle.cluster_synced();
    assert_eq!(wait_until_in_force(&handle), Err(ReconcileStopped));
}
