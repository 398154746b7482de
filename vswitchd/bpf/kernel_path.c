// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// The fast path: forwards packets of connections that the switch has decided on, inside the
// kernel. It decides nothing: a flow is in `flows` because userspace put it there under the
// rules of a generation, and what is not exactly such a packet is left to userspace.
//
//   pod  ──► host end, ingress:  packet socket ─ `if_alive` ─► `seen_by_socket` ─► tcx `vsw_from_pod`
//   host ──► gateway,  egress:   tcx `from_gateway`
//
// A packet socket gets its copy before tcx runs. Its filter therefore looks the packet up, keeps
// the copy from userspace if there is a flow, and hands its finding to tcx, which runs next for
// the same packet on the same processor: one lookup, and both agree whatever changes meanwhile.
//
// A socket may be there for some seconds after the daemon, and `vsw_from_pod` stays on its device.
// Neither forwards anything then: the filter gets to `seen_by_socket` by a map of programs, which
// the kernel empties when the last descriptor of it is closed, and without its finding
// `vsw_from_pod` does nothing.
//
// Built by `make bpf`; the object is kept beside the source, so that building the switch takes
// no BPF compiler.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_FLOWS 131072

// Flags of a flow: where its packets go in.
#define TO_GATEWAY 1 /* into the host's stack, as if the gateway device had received them */

// Fragment offset and "more fragments" (RFC 791 section 3.1).
#define IP_FRAGMENT 0x3fff
// Flags that say something about the connection; these packets are userspace's.
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

struct flow_key {
	__u32 ifindex;
	__u8 family; /* 4 or 6 */
	__u8 proto;
	__be16 sport;
	__be16 dport;
	__u8 pad[2];
	__u8 eth[12]; /* destination and source, as they come */
	__u8 src[16];
	__u8 dst[16];
};

struct flow {
	__u64 generation;
	__u32 slot;    /* in `usages` */
	__u32 ifindex; /* of the device that it leaves through */
	__u32 max_l3;  /* MTU of that device */
	__u16 flags;
	__u8 eth[12]; /* destination and source, as they leave */
	__u8 pad[2];
	__u32 id; /* of this flow among those that have had its slot; never 0 */
};

// What went by in a slot, ever; where TCP has come, of the flow that is named.
struct usage {
	__u64 packets;
	__u64 bytes; /* of frames */
	__u32 seq_end;
	__u32 ack;
	__u32 window; /* as it stood in the header of that acknowledgement */
	__u32 id;
};

// What the socket's filter found out about the packet that tcx sees next.
struct finding {
	__u32 from; /* device; 0: nothing */
	__u32 len;
	__u32 to;
	__u16 flags;
	__u8 eth[12];
	__u8 pad[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_FLOWS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_FLOWS);
	__type(key, __u32);
	__type(value, struct usage);
} usages SEC(".maps");

// Generation of the rules: a flow of another one is not followed.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} generation SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct finding);
} findings SEC(".maps");

// `seen_by_socket`, while the daemon runs.
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} alive SEC(".maps");

struct packet {
	struct flow_key key;
	__u32 l3_len;
	__u32 header_len; /* of IP and transport */
	__u32 seq_end, ack;
	__u16 window;
	__u8 has_tcp;
};

static __always_inline int load_tcp(struct __sk_buff *skb, __u32 at, struct packet *p)
{
	struct tcphdr tcp;
	__u8 *bytes = (__u8 *)&tcp;

	if (bpf_skb_load_bytes(skb, at, &tcp, sizeof(tcp)))
		return -1;
	__u8 flags = bytes[13];
	__u32 header = (bytes[12] >> 4) * 4;
	if ((flags & (TCP_FIN | TCP_SYN | TCP_RST)) || !(flags & TCP_ACK) || header < sizeof(tcp))
		return -1;
	p->header_len += header;
	if (p->header_len > p->l3_len)
		return -1;
	p->key.sport = tcp.source;
	p->key.dport = tcp.dest;
	p->seq_end = bpf_ntohl(tcp.seq) + (p->l3_len - p->header_len);
	p->ack = bpf_ntohl(tcp.ack_seq);
	p->window = bpf_ntohs(tcp.window);
	p->has_tcp = 1;
	return 0;
}

static __always_inline int load_udp(struct __sk_buff *skb, __u32 at, struct packet *p)
{
	struct udphdr udp;

	if (bpf_skb_load_bytes(skb, at, &udp, sizeof(udp)))
		return -1;
	p->header_len += sizeof(udp);
	// A super-frame's length field is that of one segment.
	if (bpf_ntohs(udp.len) < sizeof(udp) || bpf_ntohs(udp.len) > p->l3_len)
		return -1;
	p->key.sport = udp.source;
	p->key.dport = udp.dest;
	return 0;
}

// Returns 0 if it is a whole, plain TCP or UDP packet.
static __always_inline int load_packet(struct __sk_buff *skb, struct packet *p)
{
	struct ethhdr eth;
	__u32 l4;

	if (skb->vlan_present || bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)))
		return -1;
	__builtin_memcpy(p->key.eth, &eth, sizeof(p->key.eth));
	p->key.ifindex = skb->ifindex;
	if (eth.h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
			return -1;
		if (ip.version != 4 || ip.ihl != 5 || (ip.frag_off & bpf_htons(IP_FRAGMENT)))
			return -1;
		p->key.family = 4;
		p->key.proto = ip.protocol;
		__builtin_memcpy(p->key.src, &ip.saddr, 4);
		__builtin_memcpy(p->key.dst, &ip.daddr, 4);
		p->l3_len = bpf_ntohs(ip.tot_len);
		p->header_len = sizeof(ip);
	} else if (eth.h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
			return -1;
		if (ip.version != 6)
			return -1;
		p->key.family = 6;
		p->key.proto = ip.nexthdr;
		__builtin_memcpy(p->key.src, &ip.saddr, 16);
		__builtin_memcpy(p->key.dst, &ip.daddr, 16);
		p->l3_len = bpf_ntohs(ip.payload_len) + sizeof(ip);
		p->header_len = sizeof(ip);
	} else {
		return -1;
	}
	// Padding may follow, nothing may be missing.
	if (ETH_HLEN + p->l3_len > skb->len || p->l3_len < p->header_len)
		return -1;
	l4 = ETH_HLEN + p->header_len;
	if (p->key.proto == IPPROTO_TCP)
		return load_tcp(skb, l4, p);
	if (p->key.proto == IPPROTO_UDP)
		return load_udp(skb, l4, p);
	return -1;
}

static __always_inline int fits(struct __sk_buff *skb, const struct packet *p, __u32 max_l3)
{
	if (skb->gso_size)
		return p->header_len + skb->gso_size <= max_l3;
	return p->l3_len <= max_l3;
}

static __always_inline void count(struct __sk_buff *skb, const struct packet *p,
				  const struct flow *flow)
{
	struct usage *usage = bpf_map_lookup_elem(&usages, &flow->slot);

	if (!usage)
		return;
	__sync_fetch_and_add(&usage->packets, 1);
	__sync_fetch_and_add(&usage->bytes, skb->len);
	if (!p->has_tcp)
		return;
	if (usage->id != flow->id) {
		usage->seq_end = p->seq_end;
		usage->ack = p->ack;
		usage->window = p->window;
		usage->id = flow->id;
		return;
	}
	if ((__s32)(p->seq_end - usage->seq_end) > 0)
		usage->seq_end = p->seq_end;
	if ((__s32)(p->ack - usage->ack) >= 0) {
		usage->ack = p->ack;
		usage->window = p->window;
	}
}

// Returns the flow of the packet, counted, if the kernel may forward it.
static __always_inline struct flow *find(struct __sk_buff *skb)
{
	struct packet p = {};
	__u32 zero = 0;

	if (load_packet(skb, &p))
		return 0;
	struct flow *flow = bpf_map_lookup_elem(&flows, &p.key);
	if (!flow)
		return 0;
	__u64 *now = bpf_map_lookup_elem(&generation, &zero);
	if (!now || *now != flow->generation || !fits(skb, &p, flow->max_l3))
		return 0;
	count(skb, &p, flow);
	return flow;
}

// Filter of the packet socket on a pod's host end.
SEC("socket")
int if_alive(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &alive, 0);
	return -1;
}

// The rest of that filter: 0 keeps the packet from userspace.
SEC("socket")
int seen_by_socket(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct finding *finding = bpf_map_lookup_elem(&findings, &zero);

	if (!finding)
		return -1;
	struct flow *flow = find(skb);
	if (!flow) {
		finding->from = 0;
		return -1;
	}
	finding->from = skb->ifindex;
	finding->len = skb->len;
	finding->to = flow->ifindex;
	finding->flags = flow->flags;
	__builtin_memcpy(finding->eth, flow->eth, sizeof(finding->eth));
	return 0;
}

SEC("classifier")
int vsw_from_pod(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct finding *finding = bpf_map_lookup_elem(&findings, &zero);

	if (!finding || finding->from != skb->ifindex || finding->len != skb->len)
		return TC_ACT_UNSPEC;
	finding->from = 0;
	if (bpf_skb_store_bytes(skb, 0, finding->eth, sizeof(finding->eth), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(finding->to, finding->flags & TO_GATEWAY ? BPF_F_INGRESS : 0);
}

SEC("classifier")
int from_gateway(struct __sk_buff *skb)
{
	struct flow *flow = find(skb);

	if (!flow)
		return TC_ACT_UNSPEC;
	if (bpf_skb_store_bytes(skb, 0, flow->eth, sizeof(flow->eth), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(flow->ifindex, 0);
}

char _license[] SEC("license") = "GPL";

// Checksum of this file, by which a test tells that the object was built from it.
const char source_crc32[] SEC(".note.source") = "kernel_path.c crc32 " SOURCE_CRC32;
