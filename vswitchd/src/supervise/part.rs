//! The list of everything that is supervised.

use std::time::Duration;

/// A long-lived thread, task, queue or kind of work of the daemon. Some are there several times:
/// a worker for each core, a watcher for each kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// Counts the beats of all others and tells systemd's watchdog; a thread.
    Watchdog,
    /// Moves frames; threads.
    Worker,
    /// Removes connections past their time; a thread.
    Expiry,
    /// Compiles and publishes rules; a thread.
    Reconciler,
    /// What was told the reconciler and is not in force yet; a queue.
    ReconcilerInbox,
    /// Commits to the store; work under way.
    Store,
    /// Hands object changes to the reconciler.
    ObjectFeed,
    /// Listens on the unix socket.
    UnixListener,
    /// Listens on a TCP address.
    TcpListener,
    /// Collects and writes answers that may be long; threads.
    Reader,
    /// Keeps routes and tunnels to other nodes.
    NodeRoutes,
    /// Writes what the own Node object says.
    NodePublisher,
    /// Follows links and addresses of the host.
    HostWatch,
    /// The netlink connection that reports changes.
    NetlinkReports,
    /// The netlink connection that answers dumps.
    NetlinkDumps,
    /// Leads Service addresses and NodePorts into the switch.
    ServiceSteering,
    /// Answers a health check NodePort.
    HealthCheckPort,
    /// Keeps nftables tables in place.
    HostTables,
    /// Logs what happens to the links of ports.
    PortNotices,
    /// Says what of the cluster's objects is not enforced.
    Unenforced,
    /// Writes what this node says in the status of policies.
    PolicyStatus,
    /// Writes Events.
    EventRecorder,
    /// Fetches what was denied, and keeps records of it.
    FlowRecords,
    /// Notes what policies denied pods, for Events.
    DeniedPods,
    /// Takes records of what was denied to a destination.
    FlowExport,
    /// Ends the time in which restored ports accept TCP in mid-stream.
    MidstreamTimer,
    /// Lists and watches one kind of object of a cluster.
    Watcher,
    /// What watchers heard and the mirror does not show yet; a queue.
    WatcherInbox,
    /// Puts what watchers hear into the mirror.
    Mirror,
    /// Stores what the mirror shows, for the next start.
    LastKnown,
    /// Says when everything of the cluster has been heard of once.
    ClusterSync,
    /// Says that the node is ready, to runtimes and in its Node object.
    NodeAnnouncement,
}

/// For how long a part may give no sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// After which the switch is not ready.
    pub late: Duration,
    /// After which the process ends.
    pub end: Duration,
}

impl Part {
    /// Every one.
    pub const ALL: [Self; 32] = [
        Self::Watchdog,
        Self::Worker,
        Self::Expiry,
        Self::Reconciler,
        Self::ReconcilerInbox,
        Self::Store,
        Self::ObjectFeed,
        Self::UnixListener,
        Self::TcpListener,
        Self::Reader,
        Self::NodeRoutes,
        Self::NodePublisher,
        Self::HostWatch,
        Self::NetlinkReports,
        Self::NetlinkDumps,
        Self::ServiceSteering,
        Self::HealthCheckPort,
        Self::HostTables,
        Self::PortNotices,
        Self::Unenforced,
        Self::PolicyStatus,
        Self::EventRecorder,
        Self::FlowRecords,
        Self::DeniedPods,
        Self::FlowExport,
        Self::MidstreamTimer,
        Self::Watcher,
        Self::WatcherInbox,
        Self::Mirror,
        Self::LastKnown,
        Self::ClusterSync,
        Self::NodeAnnouncement,
    ];

    /// Returns whether it is a queue: what fills and empties it is supervised under other names.
    #[must_use]
    pub const fn is_queue(self) -> bool {
        matches!(self, Self::ReconcilerInbox | Self::WatcherInbox)
    }

    /// Names it, in logs and in the answer of `/readyz`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Watchdog => "watchdog",
            Self::Worker => "worker",
            Self::Expiry => "expiry",
            Self::Reconciler => "reconciler",
            Self::ReconcilerInbox => "reconciler-inbox",
            Self::Store => "store",
            Self::ObjectFeed => "object-feed",
            Self::UnixListener => "unix-listener",
            Self::TcpListener => "tcp-listener",
            Self::Reader => "reader",
            Self::NodeRoutes => "node-routes",
            Self::NodePublisher => "node-publisher",
            Self::HostWatch => "host-watch",
            Self::NetlinkReports => "netlink-reports",
            Self::NetlinkDumps => "netlink-dumps",
            Self::ServiceSteering => "service-steering",
            Self::HealthCheckPort => "health-check-port",
            Self::HostTables => "host-tables",
            Self::PortNotices => "port-notices",
            Self::Unenforced => "unenforced",
            Self::PolicyStatus => "policy-status",
            Self::EventRecorder => "event-recorder",
            Self::FlowRecords => "flow-records",
            Self::DeniedPods => "denied-pods",
            Self::FlowExport => "flow-export",
            Self::MidstreamTimer => "midstream-timer",
            Self::Watcher => "watcher",
            Self::WatcherInbox => "watcher-inbox",
            Self::Mirror => "mirror",
            Self::LastKnown => "last-known",
            Self::ClusterSync => "cluster-sync",
            Self::NodeAnnouncement => "node-announcement",
        }
    }

    /// Returns how long it may be silent. A worker's round is milliseconds. A publication of
    /// many rules, a commit on a slow disk or a run of `nft` may take seconds, a dump of a
    /// million connections at low priority on a busy machine much longer.
    #[must_use]
    pub const fn limits(self) -> Limits {
        match self {
            Self::Watchdog | Self::Worker | Self::Expiry => Limits {
                late: Duration::from_secs(5),
                end: Duration::from_secs(25),
            },
            Self::Reconciler | Self::ReconcilerInbox | Self::Store | Self::ObjectFeed => Limits {
                late: Duration::from_secs(10),
                end: Duration::from_secs(45),
            },
            Self::Reader => Limits {
                late: Duration::from_secs(60),
                end: Duration::from_secs(180),
            },
            _ => Limits {
                late: Duration::from_secs(20),
                end: Duration::from_secs(60),
            },
        }
    }
}
