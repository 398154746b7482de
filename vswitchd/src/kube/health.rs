//! State of each watcher, for status, metrics and readiness. A change of state is logged once.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vswitch_datapath::Timestamp;

use super::watched::{Absence, WATCHED, Watched};
use crate::clock::{self, MonotonicClock};
use crate::metrics::WatchFigures;
use crate::objects::{LastKnown, Resource};

/// State of one watcher.
#[derive(Debug, Clone, Default)]
struct Watch {
    is_synced: bool,
    /// When it last heard from the API server, Unix seconds.
    heard_at: Option<u64>,
    /// The same, by a clock that nobody sets.
    heard: Option<Timestamp>,
    error: Option<String>,
    /// Why the kind cannot be read at all, in the API server's words too.
    absence: Option<(Absence, String)>,
    events: u64,
    lists: u64,
    failures: u64,
}

impl Watch {
    /// Whether it hears of changes: it has heard of everything, nothing failed, and it has not
    /// been silent for longer than a watch that works ever is.
    fn is_heard(&self, hearing: Hearing) -> bool {
        let is_recent = |heard| hearing.now.since(heard) <= hearing.silence;
        self.is_synced && self.error.is_none() && self.heard.is_some_and(is_recent)
    }

    /// Whether the node does without, never having heard of an object.
    fn is_done_without(&self, watched: Watched) -> bool {
        let absence = self.absence.as_ref();
        !self.is_synced && absence.is_some_and(|(absence, _)| watched.is_dispensable(*absence))
    }
}

/// What counts as hearing now.
#[derive(Debug, Clone, Copy)]
struct Hearing {
    now: Timestamp,
    silence: Duration,
}

/// States of all watchers.
#[derive(Debug, Default)]
struct Watches([Watch; WATCHED.len()]);

impl Watches {
    fn iter(&self) -> impl Iterator<Item = (Watched, &Watch)> {
        WATCHED.into_iter().zip(&self.0)
    }

    /// Those that do not hear what they should.
    fn deaf(&self, hearing: Hearing) -> impl Iterator<Item = &Watch> {
        let deaf = self.iter().filter(move |(watched, watch)| {
            !(watch.is_heard(hearing) || watch.is_done_without(*watched))
        });
        deaf.map(|(_, watch)| watch)
    }

    fn is_live(&self, hearing: Hearing) -> bool {
        self.deaf(hearing).next().is_none()
    }

    fn is_synced(&self) -> bool {
        self.iter()
            .all(|(watched, watch)| watch.is_synced || watch.is_done_without(watched))
    }
}

/// Where the switch stands with its API server.
#[derive(Debug)]
pub struct Health {
    origin: String,
    /// When what the daemon began with was heard.
    last_known_at: Option<u64>,
    clock: MonotonicClock,
    /// After which a watcher that hears nothing, and of no failure either, is deaf.
    silence: Duration,
    /// Guards the watchers' states; held for a moment each.
    watches: Mutex<Watches>,
}

impl Health {
    /// Begins with what is known from the last run. A watcher that hears nothing for longer than
    /// `silence` is deaf.
    pub(super) fn new(origin: &str, last_known: Option<&LastKnown>, silence: Duration) -> Self {
        Self {
            origin: origin.to_owned(),
            last_known_at: last_known.map(|last| last.heard_at),
            clock: MonotonicClock::start(),
            silence,
            watches: Mutex::default(),
        }
    }

    /// Every change is a single assignment, so a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Watches> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the address of the API server.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns whether every watcher has heard of everything and hears of changes; those that the
    /// node does without do not count.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.lock().is_live(self.hearing())
    }

    fn hearing(&self) -> Hearing {
        Hearing {
            now: self.clock.now(),
            silence: self.silence,
        }
    }

    /// Returns whether every watcher has heard of everything once since the start; those that the
    /// node does without do not count.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.lock().is_synced()
    }

    /// Returns whether what is in force, if anything, is known from the last run.
    #[must_use]
    pub const fn has_last_known(&self) -> bool {
        self.last_known_at.is_some()
    }

    /// Returns how long what is enforced may have been outdated; `None` if it is not, or nothing
    /// is known at all.
    #[must_use]
    pub fn stale_seconds(&self) -> Option<u64> {
        let since = self.stale_since()?;
        Some(clock::unix_seconds().saturating_sub(since))
    }

    fn stale_since(&self) -> Option<u64> {
        let watches = self.lock();
        let mut deaf = watches.deaf(self.hearing()).peekable();
        deaf.peek()?;
        deaf.map(|watch| {
            watch
                .heard_at
                .filter(|_| watch.is_synced)
                .or(self.last_known_at)
        })
        .min()
        .flatten()
    }

    /// Returns the errors that keep watchers from hearing, each once.
    #[must_use]
    pub fn errors(&self) -> Vec<String> {
        let mut errors: Vec<String> = Vec::new();
        for error in self
            .lock()
            .deaf(self.hearing())
            .filter_map(|watch| watch.error.clone())
        {
            if !errors.contains(&error) {
                errors.push(error);
            }
        }
        errors
    }

    /// Says which kinds cannot be read, why, and what does not work because of it. A kind that
    /// comes with a CRD may be missing.
    #[must_use]
    pub fn absences(&self) -> Vec<String> {
        let watches = self.lock();
        let absences = watches.iter().filter_map(|(watched, watch)| {
            let (kind, (absence, why)) = (watched.name(), watch.absence.as_ref()?);
            let is_not_served = *absence == Absence::NotServed;
            if watched.is_an_addition() && is_not_served && watch.is_done_without(watched) {
                return None;
            }
            let consequence = if watch.is_synced || self.has_last_known() {
                "what was known of them stays in force"
            } else {
                watched.consequence(*absence)
            };
            Some(format!("{kind}: {consequence} ({why})"))
        });
        absences.collect()
    }

    /// Returns whether Nodes cannot be read and the node does without.
    #[must_use]
    pub fn is_without_nodes(&self) -> bool {
        let nodes = Watched::All(Resource::Node);
        self.lock().0[nodes.index()].is_done_without(nodes)
    }

    /// Returns the figures of all watchers.
    #[must_use]
    pub fn figures(&self) -> Vec<WatchFigures> {
        let hearing = self.hearing();
        let watches = self.lock();
        let figures = watches.iter().map(|(watched, watch)| WatchFigures {
            kind: watched.name(),
            is_synced: watch.is_synced,
            is_live: watch.is_heard(hearing),
            events: watch.events,
            lists: watch.lists,
            failures: watch.failures,
        });
        figures.collect()
    }

    fn change(&self, watched: Watched, change: impl FnOnce(&mut Watch)) {
        let mut watches = self.lock();
        let hearing = self.hearing();
        let (was_live, was_synced) = (watches.is_live(hearing), watches.is_synced());
        change(&mut watches.0[watched.index()]);
        let (is_live, is_synced) = (watches.is_live(hearing), watches.is_synced());
        drop(watches);
        let origin = &self.origin;
        if is_live && !was_live {
            let first = !was_synced && is_synced;
            tracing::info!(
                origin,
                first,
                "every kind of object of the cluster is being watched"
            );
        }
    }

    /// Everything was listed.
    pub(super) fn listed(&self, watched: Watched) {
        self.change(watched, |watch| {
            watch.lists += 1;
            watch.is_synced = true;
        });
    }

    /// The API server answered: the watcher hears.
    pub(super) fn heard(&self, watched: Watched, events: u64) {
        let now = self.clock.now();
        self.change(watched, |watch| {
            watch.heard = Some(now);
            watch.heard_at = Some(clock::unix_seconds());
            (watch.error, watch.absence) = (None, None);
            watch.events += events;
        });
    }

    /// The watcher hears nothing. Logged when that is news, or the reason is.
    pub(super) fn failed(&self, watched: Watched, error: String, absence: Option<Absence>) {
        let is_news = {
            let watches = self.lock();
            !watches
                .iter()
                .any(|(_, watch)| watch.error.as_ref() == Some(&error))
        };
        if is_news && let Some(absence) = absence {
            let (kind, consequence) = (watched.name(), watched.consequence(absence));
            if watched.is_an_addition() && absence == Absence::NotServed {
                tracing::info!(kind, error, consequence, "a kind of object is not served");
            } else {
                tracing::warn!(kind, error, consequence, "reading a kind of object failed");
            }
        } else if is_news {
            let origin = &self.origin;
            tracing::warn!(
                origin,
                error,
                "API server is not heard; what is known stays in force"
            );
        }
        self.change(watched, |watch| {
            watch.failures += 1;
            if let Some(absence) = absence {
                watch.absence = Some((absence, error.clone()));
            }
            watch.error = Some(error);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(90);

    /// A cluster of which everything is heard but one kind.
    fn without(missing: Watched) -> Health {
        let health = Health::new("http://hub", None, SILENCE);
        for watched in WATCHED.into_iter().filter(|watched| *watched != missing) {
            health.listed(watched);
            health.heard(watched, 0);
        }
        health
    }

    #[test]
    fn what_a_node_can_do_without_holds_nothing_up_and_is_told() {
        let both = [Absence::NotServed, Absence::Forbidden];
        for (kind, dispensable) in [
            (Watched::All(Resource::Service), &both[..]),
            (Watched::All(Resource::EndpointSlice), &both[..]),
            (Watched::All(Resource::Node), &both[..]),
            // Policies that must not be read may be there.
            (Watched::All(Resource::NetworkPolicy), &both[..1]),
            (Watched::All(Resource::Pod), &[]),
            (Watched::OwnPods, &[]),
            (Watched::All(Resource::Namespace), &[]),
        ] {
            for absence in both {
                let health = without(kind);
                assert!(!health.is_synced());
                health.failed(kind, "no".to_owned(), Some(absence));
                let goes_on = dispensable.contains(&absence);
                let name = kind.name();
                assert_eq!(health.is_synced(), goes_on, "{name} {absence:?}");
                assert_eq!(health.is_live(), goes_on, "{name} {absence:?}");
                let told = health.absences();
                assert_eq!(told.len(), 1, "{name} {absence:?}");
                assert!(told[0].starts_with(&format!("{name}: ")), "{told:?}");
                assert!(told[0].ends_with("(no)"), "{told:?}");
                // An API server that goes away later does not make it news again.
                health.failed(kind, "connection refused".to_owned(), None);
                assert_eq!(health.absences(), told);
                health.listed(kind);
                health.heard(kind, 0);
                assert!(health.is_live() && health.absences().is_empty());
            }
        }
    }

    #[test]
    fn a_cluster_without_the_crd_of_cluster_policies_is_as_it_should_be() {
        for (resource, plural) in [
            (Resource::ClusterNetworkPolicy, "clusternetworkpolicies"),
            (Resource::AdminNetworkPolicy, "adminnetworkpolicies"),
            (
                Resource::BaselineAdminNetworkPolicy,
                "baselineadminnetworkpolicies",
            ),
        ] {
            let policies = Watched::All(resource);
            let health = without(policies);
            health.failed(policies, "no".to_owned(), Some(Absence::NotServed));
            assert!(health.is_synced() && health.is_live());
            assert!(health.absences().is_empty());
            health.failed(policies, "no".to_owned(), Some(Absence::Forbidden));
            assert!(!health.is_synced(), "what may not be read may deny");
            assert_eq!(
                health.absences(),
                [format!(
                    "{plural}: policies cannot be judged, the node does not become ready (no)"
                )]
            );
        }
    }

    #[test]
    fn a_kind_that_was_heard_and_is_forbidden_later_is_stale() {
        let services = Watched::All(Resource::Service);
        let health = without(services);
        health.listed(services);
        health.heard(services, 0);
        health.failed(services, "no".to_owned(), Some(Absence::Forbidden));
        assert!(health.is_synced() && !health.is_live());
        assert_eq!(
            health.absences(),
            ["services: what was known of them stays in force (no)"]
        );
    }

    #[test]
    fn a_watcher_that_is_silent_without_a_failure_is_deaf_after_a_while() {
        let health = without(Watched::OwnPods);
        health.listed(Watched::OwnPods);
        health.heard(Watched::OwnPods, 0);
        let at = |seconds: u64| Hearing {
            now: Timestamp::from_nanos(health.clock.now().as_nanos() + seconds * 1_000_000_000),
            silence: SILENCE,
        };
        assert!(health.lock().is_live(at(80)));
        assert!(!health.lock().is_live(at(91)));
    }

    #[test]
    fn a_cluster_is_live_when_every_watcher_has_listed_and_none_fails() {
        let health = Health::new("http://hub", None, SILENCE);
        for watched in WATCHED {
            assert!(!health.is_live());
            health.listed(watched);
            health.heard(watched, 0);
        }
        assert!(health.is_live() && health.is_synced());
        assert_eq!(health.stale_since(), None);
        health.failed(WATCHED[0], "connection refused".to_owned(), None);
        health.failed(WATCHED[1], "connection refused".to_owned(), None);
        assert!(!health.is_live() && health.is_synced());
        assert!(health.stale_since().is_some());
        assert_eq!(health.errors(), ["connection refused"]);
        health.heard(WATCHED[0], 1);
        health.heard(WATCHED[1], 1);
        assert!(health.is_live());
        assert_eq!(health.figures()[0].failures, 1);
    }

    #[test]
    fn what_is_known_from_the_last_run_is_stale_since_then() {
        let objects = crate::objects::Objects::new();
        let last = LastKnown {
            objects,
            heard_at: 7,
        };
        let health = Health::new("http://hub", Some(&last), SILENCE);
        assert_eq!(health.stale_since(), Some(7));
        health.failed(WATCHED[0], "no route".to_owned(), None);
        assert_eq!(health.stale_since(), Some(7));
    }
}
