//! Drop reasons. Every dropped frame has exactly one, and is counted by it.

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal,)+) => {
        /// Why a frame was dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of the enum.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Returns the stable snake_case name used in metrics, JSON and tables.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Returns what the reason means, one sentence for operators.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }

            /// Returns the reason that has this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than its Ethernet header or cut inside a header.
    Truncated => "truncated",
    /// An IP header with an impossible version, length or checksum.
    MalformedIp => "malformed_ip",
    /// A TCP, UDP, SCTP, ICMP or ICMPv6 header that contradicts itself.
    MalformedL4 => "malformed_l4",
    /// An ARP packet that is not Ethernet/IPv4 or cut short.
    MalformedArp => "malformed_arp",
    /// A neighbour discovery message that RFC 4861 section 7.1 tells receivers to discard.
    MalformedNd => "malformed_nd",
    /// An IPv6 extension header chain that is broken or longer than eight headers.
    MalformedExtensionHeader => "malformed_extension_header",
    /// A fragment that overlaps what a first fragment may hold, or has a bad length.
    MalformedFragment => "malformed_fragment",
    /// A virtio-net header that contradicts the frame behind it.
    MalformedVnetHeader => "malformed_vnet_header",
    /// Neither IPv4, IPv6 nor ARP, and no admin flow takes it.
    UnsupportedEtherType => "unsupported_ether_type",
    /// A VLAN-tagged frame, and no admin flow takes it.
    UnsupportedVlan => "unsupported_vlan",
    /// A broadcast or multicast that the switch does not forward.
    MulticastNotForwarded => "multicast_not_forwarded",
    /// Came in on a port that the tables do not know (yet).
    UnknownPort => "unknown_port",
    /// A pod used a MAC or IP address that is not its own.
    Spoofed => "spoofed",
    /// ARP for an address that the switch does not know, or an ARP reply it did not ask for.
    ArpUnknown => "arp_unknown",
    /// A neighbour solicitation for an address that the switch does not know, or its own DAD.
    NdUnknown => "nd_unknown",
    /// An admin flow says drop.
    AdminDrop => "admin_drop",
    /// Rate limit of an admin flow exceeded.
    RateLimited => "rate_limited",
    /// Beyond the bandwidth of the sending or the receiving pod.
    BandwidthExceeded => "bandwidth_exceeded",
    /// Of no known connection, from a port that is over its share of new flows.
    OverShare => "over_share",
    /// Connection tracking found the packet invalid (state, window, checksum).
    CtInvalid => "ct_invalid",
    /// In the middle of a stream from a Service's endpoint, after a restart: its client is asked which
    /// address it is connected to, and the endpoint sends again.
    CtAsksClient => "ct_asks_client",
    /// No source port was free that would tell a connection's answers from another's.
    NatPortsExhausted => "nat_ports_exhausted",
    /// The packet's address cannot be translated (a fragmented SCTP packet).
    NatUnsupported => "nat_unsupported",
    /// To a Service without endpoints, or to a port that the Service does not have.
    ServiceNoEndpoints => "service_no_endpoints",
    /// From an address that the Service's loadBalancerSourceRanges do not admit.
    ServiceSourceDenied => "service_source_denied",
    /// The connection table is full of answered connections.
    CtTableFull => "ct_table_full",
    /// A later fragment whose first fragment did not come in time or was dropped.
    FragmentUnknown => "fragment_unknown",
    /// A later fragment that came before its first one, and there was no room to hold it.
    FragmentNoRoom => "fragment_no_room",
    /// No egress rule of the sending pod's policies allows it.
    PolicyEgress => "policy_egress",
    /// No ingress rule of the receiving pod's policies allows it.
    PolicyIngress => "policy_ingress",
    /// The pod of this port is not known yet, so that its policies are not either.
    PodUnknown => "pod_unknown",
    /// To an address that no packet on a wire is sent to: loopback, unspecified, reserved, IPv4 in
    /// an IPv6 address, or one of the switch's own.
    MartianDestination => "martian_destination",
    /// No port or route for the destination.
    NoRoute => "no_route",
    /// Would leave through the port it came from.
    Hairpin => "hairpin",
    /// Larger than the out port's MTU and not to be fragmented.
    MtuExceeded => "mtu_exceeded",
    /// The out port is down, gone or has no room.
    PortDown => "port_down",
    /// The kernel refused the frame at the out port (queue full, bad offload).
    TxFailed => "tx_failed",
    /// Went through more tables than the pipeline has: a loop of admin flows.
    PipelineLoop => "pipeline_loop",
}

impl DropReason {
    /// Returns whether somebody decided against the packet: a policy, an operator, a Service, the
    /// guard against spoofing; not what is broken, unknown or too much.
    #[must_use]
    pub const fn is_denial(self) -> bool {
        matches!(
            self,
            Self::PolicyEgress
                | Self::PolicyIngress
                | Self::PodUnknown
                | Self::AdminDrop
                | Self::Spoofed
                | Self::ServiceNoEndpoints
                | Self::ServiceSourceDenied
        )
    }
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
