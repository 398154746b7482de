//! When what is noted again. Pure: the time is a parameter, in seconds since 1970.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::objects::ObjectId;

/// The object that something is to be said of.
pub(super) type Subject = ObjectId;

/// After which what is still so is noted again: before an API server forgets it, which by default
/// is after an hour.
const AGAIN_AFTER: u64 = 1_800;

/// What is to be said, and when.
#[derive(Debug)]
pub(super) struct Plan {
    node: String,
    /// Within which the nodes of a cluster note the same, in seconds.
    spread: u64,
    /// By whether it is of a HostEndpoint, and by object.
    said: BTreeMap<(bool, Subject), (String, u64)>,
}

impl Plan {
    pub(super) fn new(node: &str, spread: Duration) -> Self {
        Self {
            node: node.to_owned(),
            spread: spread.as_secs(),
            said: BTreeMap::new(),
        }
    }

    /// Replaces what there is to say of HostEndpoints, or of all else. What is new is due after a
    /// moment.
    pub(super) fn replace(
        &mut self,
        host_endpoints: bool,
        mut messages: BTreeMap<Subject, String>,
        now: u64,
    ) {
        self.said.retain(|(of, subject), (said, _)| {
            if *of != host_endpoints {
                return true;
            }
            let is_same = messages.get(subject).is_some_and(|message| message == said);
            if is_same {
                messages.remove(subject);
            }
            is_same
        });
        for (subject, message) in messages {
            let due = now + self.moment(&subject);
            self.said.insert((host_endpoints, subject), (message, due));
        }
    }

    /// Returns what is due, which is due again later.
    pub(super) fn due(&mut self, now: u64) -> Vec<(Subject, String)> {
        let due = self.said.iter_mut().filter(|(_, (_, at))| *at <= now);
        due.map(|((_, subject), (message, at))| {
            *at = now + AGAIN_AFTER;
            (subject.clone(), message.clone())
        })
        .collect()
    }

    /// Returns when something is due next.
    pub(super) fn next(&self) -> Option<u64> {
        self.said.values().map(|(_, at)| *at).min()
    }

    /// How long this node waits before it notes something of an object.
    fn moment(&self, (_, namespace, name): &Subject) -> u64 {
        let text = [self.node.as_str(), namespace, name].join("\n");
        u64::from(crc32fast::hash(text.as_bytes())) % (self.spread + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Resource;

    fn messages(of: &[(&str, &str)]) -> BTreeMap<Subject, String> {
        let message = |(name, message): &(&str, &str)| {
            let subject = (
                Resource::GlobalNetworkPolicy,
                String::new(),
                (*name).to_owned(),
            );
            (subject, (*message).to_owned())
        };
        of.iter().map(message).collect()
    }

    fn due(plan: &mut Plan, now: u64) -> Vec<String> {
        let due = plan.due(now).into_iter();
        due.map(|((_, _, name), message)| format!("{name}: {message}"))
            .collect()
    }

    #[test]
    fn what_is_new_is_said_at_once_and_what_stays_every_half_hour() {
        let mut plan = Plan::new("node-a", Duration::ZERO);
        assert_eq!(plan.next(), None);
        plan.replace(false, messages(&[("a", "one"), ("b", "one")]), 100);
        assert_eq!(due(&mut plan, 100), ["a: one", "b: one"]);
        assert_eq!(due(&mut plan, 101), [""; 0]);
        assert_eq!(plan.next(), Some(1_900));
        plan.replace(false, messages(&[("a", "one"), ("b", "two")]), 200);
        plan.replace(true, messages(&[("h", "x")]), 200);
        assert_eq!(due(&mut plan, 200), ["b: two", "h: x"]);
        plan.replace(false, messages(&[("a", "one")]), 300);
        assert_eq!(due(&mut plan, 1_899), [""; 0]);
        assert_eq!(due(&mut plan, 2_000), ["a: one", "h: x"]);
    }

    #[test]
    fn nodes_say_the_same_at_other_times_within_the_spread() {
        let first = |number: u64| {
            let mut plan = Plan::new(&format!("node-{number}"), Duration::from_secs(10));
            plan.replace(false, messages(&[("a", "one")]), 100);
            plan.next().unwrap()
        };
        let mut times: Vec<u64> = (0..100).map(first).collect();
        times.sort_unstable();
        times.dedup();
        assert_eq!(times, (100..=110).collect::<Vec<_>>());
    }
}
