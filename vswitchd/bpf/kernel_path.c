// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// The kernel path: forwards packets of connections that the switch has admitted, and tracks them
// from the first answer to the last acknowledgement. It decides nothing: a connection is here
// because userspace put it here under the rules of a generation. What is not exactly the next
// packet of such a connection is left to userspace, which judges it by the same state.
//
//   pod  ──► host end, ingress:  packet socket ─ `if_alive` ─► `seen_by_socket` ─► tcx `vsw_from_pod`
//   host ──► gateway,  egress:   tcx `from_gateway`
//
// A packet socket gets its copy before tcx runs. Its filter therefore looks the packet up, keeps
// the copy from userspace if there is a connection, and hands its finding to tcx, which runs next
// for the same packet on the same processor: one lookup, and both agree whatever changes meanwhile.
//
// A socket may be there for some seconds after the daemon, and `vsw_from_pod` stays on its device.
// Neither forwards anything then: the filter gets to `seen_by_socket` by a map of programs, which
// the kernel empties when the last descriptor of it is closed, and without its finding
// `vsw_from_pod` does nothing.
//
// Packets of one connection, even of one direction, are in here on several processors at once.
// What is tracked therefore only ever grows: sequence numbers by compare and swap, facts by OR,
// counts by addition. Userspace changes the same memory by the same operations. Who writes what,
// in which order: `vswitchd/src/kernel_path/mod.rs`. State machine and windows are those of
// `vswitchd/datapath/src/conntrack/tcp.rs` and `tcp_window.rs`; a test compares them.
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

#define MAX_CONNS 131072
#define MAX_FLOWS (2 * MAX_CONNS)

// Flags of a way: where its packets go in.
#define TO_GATEWAY 1 /* into the host's stack, as if the gateway device had received them */
#define IS_TRANSLATED 2 /* they leave with other addresses or ports: `translations` has them */

// Facts about a connection; each stays once it is so.
#define IS_OPEN 0x01			 /* TCP: the handshake is complete */
#define SENT_FIN(direction) (0x02 << (direction))
#define HAS_ACKED(direction) (0x08 << (direction)) /* something; the answering side: the SYN */
#define IS_RESET 0x20
#define IS_USERSPACES 0x40		 /* it takes all packets from here on */

// Of `struct side`: the end offers window scaling, by as much as the bits below say.
#define OFFERS_SCALE 0x100
#define SCALE_BITS 0x0f

// Fragment offset and "more fragments" (RFC 791 section 3.1).
#define IP_FRAGMENT 0x3fff
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
// Options (RFC 9293 section 3.1, RFC 7323, RFC 2018).
#define TCP_OPTION_END 0
#define TCP_OPTION_NOP 1
#define TCP_OPTION_SCALE 3
#define TCP_OPTION_SACK 5
#define MAX_OPTIONS 12
#define MAX_SACK_BLOCKS 4
#define MAX_SCALE 14
// Two NOPs, kind and length of timestamps: what all segments of a connection that has them begin
// their options with (RFC 7323 appendix A).
#define TIMESTAMPS 0x0101080a

// As in tcp_window.rs.
#define MAX_ACK_WINDOW 66000
#define MAX_WINDOW (1 << 30)

// Times that a value is tried to be raised which others raise as well.
#define MAX_TRIES 8

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

// One direction of a connection; read and written as one word.
struct flow {
	__u32 way; /* twice the connection's place in `conns`, plus 1 for the answers */
	__u32 id;  /* of the connection among those that have had its place; never 0 */
};

// Where packets of one direction go. Does not change while the kernel may find the connection.
struct way {
	__u32 ifindex; /* of the device that they leave through */
	__u16 max_l3;  /* MTU of that device */
	__u16 flags;
	__u8 eth[12]; /* destination and source, as they leave */
	__be16 sport; /* as they come */
	__be16 dport;
};

// What is known of the packets of one direction, and of TCP's end that sends them. On a cache line
// of its own.
struct side {
	__u64 packets;
	__u64 bytes; /* of frames */
	__u64 last;	 /* when the last one came, by the coarse monotonic clock */
	__u64 generation; /* of the rules that the direction was judged by */
	__u32 end;	   /* of the highest segment that it sent */
	__u32 max_end; /* of what the other end lets it send */
	__u32 max_win; /* largest window that it offered */
	__u32 max_ack; /* highest acknowledgement that it sent */
	__u32 isn;
	__u32 scale;
	__u32 window; /* the last that it offered, as it stood in the header */
	__u32 pad;
};

struct conn {
	__u32 id;
	__u32 facts;
	struct way ways[2];
	__u8 pad[8];
	struct side sides[2]; /* who began, who answers */
};

// Addresses and ports that packets of one direction leave with.
struct ends {
	__u8 src[16];
	__u8 dst[16];
	__be16 sport;
	__be16 dport;
};

// Does not change while the kernel may find the connection.
struct translation {
	struct ends leave_as[2];
};

// What the socket's filter found out about the packet that tcx sees next.
struct finding {
	__u32 from; /* device; 0: nothing */
	__u32 len;
	__u32 to;
	__u16 flags;
	__u8 eth[12];
	__u8 family;
	__u8 proto;
	struct ends leave_as; /* if IS_TRANSLATED */
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
	__uint(max_entries, MAX_CONNS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct conn);
} conns SEC(".maps");

// By the connection's place.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_CONNS);
	__type(key, __u32);
	__type(value, struct translation);
} translations SEC(".maps");

// Generation of the rules: a direction that was judged by others is not followed.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
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
	__u32 seq, ack;
	__u32 sack; /* highest number acknowledged, selectively or not */
	__u32 scale; /* as in `struct side` */
	__u16 window;
	__u8 flags;
};

struct tcp_with_timestamps {
	struct tcphdr tcp;
	__be32 options[3];
};

// Whether `a` comes before `b` in sequence space (RFC 9293 section 3.4).
static __always_inline int before(__u32 a, __u32 b)
{
	return a - b > 0x7fffffff;
}

static __always_inline int after(__u32 a, __u32 b)
{
	return before(b, a);
}

// Reads selective acknowledgements: the right edge that is furthest in sequence space.
static __always_inline int load_sack(struct __sk_buff *skb, __u32 at, __u32 len, struct packet *p)
{
	p->sack = p->ack;
	if (len % 8)
		return 0;
	__u32 edge = 0;
	for (__u32 i = 0; i < MAX_SACK_BLOCKS; i++) {
		__be32 right;

		if (i * 8 >= len)
			break;
		if (bpf_skb_load_bytes(skb, at + i * 8 + 4, &right, sizeof(right)))
			return -1;
		__u32 one = bpf_ntohl(right);
		edge = i == 0 || one - edge < 0x80000000 ? one : edge;
	}
	if (len && after(edge, p->ack))
		p->sack = edge;
	return 0;
}

// Reads the options up to the first one that is broken.
static __always_inline int load_options(struct __sk_buff *skb, __u32 at, __u32 end,
					struct packet *p)
{
	for (int i = 0; i < MAX_OPTIONS; i++) {
		__u8 option[3]; /* kind, length, data */

		if (at >= end || bpf_skb_load_bytes(skb, at, option, 1))
			return 0;
		if (option[0] == TCP_OPTION_END)
			return 0;
		if (option[0] == TCP_OPTION_NOP) {
			at++;
			continue;
		}
		if (at + 2 > end || bpf_skb_load_bytes(skb, at, option, 2))
			return 0;
		__u32 len = option[1];
		if (len < 2 || at + len > end)
			return 0;
		if (option[0] == TCP_OPTION_SCALE && len == 3 && (p->flags & TCP_SYN)) {
			if (bpf_skb_load_bytes(skb, at, option, 3))
				return -1;
			p->scale = OFFERS_SCALE | (option[2] < MAX_SCALE ? option[2] : MAX_SCALE);
		}
		if (option[0] == TCP_OPTION_SACK && load_sack(skb, at + 2, len - 2, p))
			return -1;
		at += len;
	}
	return at >= end ? 0 : -1;
}

static __always_inline int load_tcp(struct __sk_buff *skb, __u32 at, struct packet *p)
{
	struct tcp_with_timestamps with = {};
	const struct tcphdr *tcp = &with.tcp;
	const __u8 *bytes = (const __u8 *)tcp;

	if (bpf_skb_load_bytes(skb, at, &with, sizeof(with)) &&
	    bpf_skb_load_bytes(skb, at, &with, sizeof(*tcp)))
		return -1;
	__u32 header = (bytes[12] >> 4) * 4;
	p->header_len += header;
	if (header < sizeof(*tcp) || p->header_len > p->l3_len)
		return -1;
	p->flags = bytes[13] & (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK);
	p->key.sport = tcp->source;
	p->key.dport = tcp->dest;
	p->seq = bpf_ntohl(tcp->seq);
	p->ack = bpf_ntohl(tcp->ack_seq);
	p->sack = p->ack;
	p->window = bpf_ntohs(tcp->window);
	if (header == sizeof(*tcp) ||
	    (header == sizeof(with) && with.options[0] == bpf_htonl(TIMESTAMPS)))
		return 0;
	return load_options(skb, at + sizeof(*tcp), at + header, p);
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

// Raises a number in sequence space. Fails if others always come first: userspace then takes the
// packet, and raises it for sure. A number that was not raised would make the connection hang.
static __always_inline int raise(__u32 *number, __u32 to)
{
	for (int i = 0; i < MAX_TRIES; i++) {
		__u32 was = *(volatile __u32 *)number;

		if (!after(to, was) || __sync_val_compare_and_swap(number, was, to) == was)
			return 0;
	}
	return -1;
}

static __always_inline int raise_window(__u32 *window, __u32 to)
{
	to = to < MAX_WINDOW ? to : MAX_WINDOW;
	for (int i = 0; i < MAX_TRIES; i++) {
		__u32 was = *(volatile __u32 *)window;

		if (to <= was || __sync_val_compare_and_swap(window, was, to) == was)
			return 0;
	}
	return -1;
}

static __always_inline void learn(struct conn *conn, __u32 facts)
{
	// Testing first keeps the line shared between processors.
	if (facts & ~conn->facts)
		__sync_fetch_and_or(&conn->facts, facts);
}

static __always_inline int acknowledges_syn(const struct packet *p, const struct side *caller)
{
	return (p->flags & TCP_ACK) && after(p->ack, caller->isn) && !after(p->ack, caller->end);
}

// The first SYN|ACK. Whether its sender may come in here twice at a time with different ones is
// its own affair.
static __always_inline int answer(const struct packet *p, struct conn *conn, struct side *server,
				  struct side *client)
{
	__u32 end = p->seq + (p->l3_len - p->header_len) + 1;
	__u32 win = p->window;

	if (!acknowledges_syn(p, client))
		return -1;
	// Scaling is on only if both SYNs offer it (RFC 7323 section 2.2).
	if (!(p->scale & client->scale & OFFERS_SCALE))
		client->scale = 0;
	server->scale = client->scale ? p->scale : 0;
	server->isn = p->seq;
	server->end = end;
	server->max_end = end + client->max_win;
	server->max_win = win ? win : 1;
	server->max_ack = p->ack;
	server->window = win;
	client->max_ack = p->seq;
	if (raise(&client->max_end, p->ack + win))
		return -1;
	// Last: from here on the server's side is known.
	learn(conn, HAS_ACKED(1));
	return 0;
}

// Whether the sender can have sent this (`Windows::contain`).
static __always_inline int is_contained(__u32 seq, __u32 end, __u32 ack, __u32 sack,
					const struct side *sender, const struct side *receiver)
{
	__u32 age = sender->max_win > MAX_ACK_WINDOW ? sender->max_win : MAX_ACK_WINDOW;

	return !after(sack, receiver->end) && !before(sack, receiver->end - age) &&
	       !after(seq, sender->max_end) && after(end, sender->end - receiver->max_win - 1);
}

// A reset that its receiver will act on (`Windows::judge_reset`); of all others userspace decides
// what they are.
static __always_inline int reset(const struct packet *p, struct conn *conn, __u32 facts,
				 __u32 direction, const struct side *sender,
				 const struct side *receiver)
{
	// Some stacks send RST|ACK with a zero acknowledgement: it says nothing.
	int has_ack = (p->flags & TCP_ACK) && p->ack;
	__u32 ack = has_ack ? p->ack : receiver->end;
	__u32 sack = has_ack ? p->sack : ack;
	__u32 end = p->seq + (p->l3_len - p->header_len);

	if (!is_contained(p->seq, end, ack, sack, sender, receiver))
		return -1;
	if ((facts & HAS_ACKED(!direction)) &&
	    (before(p->seq, receiver->max_ack) ||
	     (p->seq != receiver->max_ack && p->seq != sender->end)))
		return -1;
	learn(conn, IS_RESET);
	return 0;
}

// Data, acknowledgement or FIN of an answered connection.
static __always_inline int advance(const struct packet *p, struct conn *conn, __u32 facts,
				   __u32 direction, struct side *sender, struct side *receiver)
{
	__u32 fin = p->flags & TCP_FIN ? 1 : 0;
	__u32 end = p->seq + (p->l3_len - p->header_len) + fin;
	__u32 win = (__u32)p->window << (sender->scale & SCALE_BITS);
	__u32 offered = win + (p->sack - p->ack);
	__u32 now = HAS_ACKED(direction);

	if (!is_contained(p->seq, end, p->ack, p->sack, sender, receiver))
		return -1;
	// More than was offered came by: the receiver must have offered it unseen.
	__u32 excess = after(end, sender->max_end) ? end - sender->max_end : 0;
	if (raise_window(&sender->max_win, offered ? offered : 1) || raise(&sender->end, end) ||
	    (excess && raise_window(&receiver->max_win, receiver->max_win + excess)) ||
	    raise(&receiver->max_end, p->sack + win) || raise(&sender->max_ack, p->ack))
		return -1;
	sender->window = p->window;
	if (fin)
		now |= SENT_FIN(direction);
	// The handshake ends with the acknowledgement of whoever began it.
	if (!direction && !((facts | now) & (SENT_FIN(0) | SENT_FIN(1))))
		now |= IS_OPEN;
	learn(conn, now);
	return 0;
}

// Whether all that was sent is acknowledged.
static __always_inline int is_acknowledged(const struct side *sender, const struct side *receiver)
{
	return receiver->max_ack == sender->end;
}

// Takes a segment in; fails for those that userspace is to judge.
static __always_inline int track(const struct packet *p, struct conn *conn, __u32 direction)
{
	struct side *sender = &conn->sides[direction & 1];
	struct side *receiver = &conn->sides[!direction];
	__u32 facts = conn->facts;
	__u32 fins = SENT_FIN(0) | SENT_FIN(1);

	// It is over, and what still comes may begin the next one.
	if ((facts & IS_RESET) ||
	    ((facts & fins) == fins && is_acknowledged(sender, receiver) &&
	     is_acknowledged(receiver, sender)))
		return -1;
	if (!(facts & HAS_ACKED(1))) {
		if (!direction)
			return -1;
		if (p->flags == (TCP_SYN | TCP_ACK))
			return answer(p, conn, sender, receiver);
		// RFC 9293 section 3.10.7.3: must acknowledge the SYN.
		if (p->flags != (TCP_RST | TCP_ACK) || !acknowledges_syn(p, receiver))
			return -1;
		learn(conn, IS_RESET);
		return 0;
	}
	if (p->flags == TCP_RST || p->flags == (TCP_RST | TCP_ACK))
		return reset(p, conn, facts, direction, sender, receiver);
	if (p->flags == TCP_ACK || p->flags == (TCP_FIN | TCP_ACK))
		return advance(p, conn, facts, direction, sender, receiver);
	return -1;
}

// Finds out how the packet leaves, and takes it in, if the kernel may forward it.
static __always_inline int find(struct __sk_buff *skb, struct finding *finding)
{
	struct packet p = {};
	__u32 zero = 0;

	if (load_packet(skb, &p))
		return -1;
	struct flow *flow = bpf_map_lookup_elem(&flows, &p.key);
	if (!flow)
		return -1;
	// One load: the memory may be another flow's by now.
	struct flow found;
	*(__u64 *)&found = *(volatile __u64 *)flow;
	__u32 place = found.way / 2;
	__u32 direction = found.way & 1;
	struct conn *conn = bpf_map_lookup_elem(&conns, &place);
	if (!conn || conn->id != found.id || (conn->facts & IS_USERSPACES))
		return -1;
	__u64 *now = bpf_map_lookup_elem(&generation, &zero);
	struct side *side = &conn->sides[direction];
	struct way *way = &conn->ways[direction];
	if (!now || *now != side->generation || way->sport != p.key.sport ||
	    way->dport != p.key.dport || !fits(skb, &p, way->max_l3))
		return -1;
	finding->to = way->ifindex;
	finding->flags = way->flags;
	__builtin_memcpy(finding->eth, way->eth, sizeof(finding->eth));
	if (way->flags & IS_TRANSLATED) {
		struct translation *translation = bpf_map_lookup_elem(&translations, &place);

		if (!translation)
			return -1;
		finding->leave_as = translation->leave_as[direction];
		finding->family = p.key.family;
		finding->proto = p.key.proto;
	}
	if (p.key.proto == IPPROTO_TCP && track(&p, conn, direction))
		return -1;
	__sync_fetch_and_add(&side->packets, 1);
	__sync_fetch_and_add(&side->bytes, skb->len);
	side->last = bpf_ktime_get_coarse_ns();
	return 0;
}

// Writes addresses at `at`, ports behind the IP header, and mends the checksums: a transport's
// covers both, and an IPv4 header's the addresses. Works for partial ones as well, which cover the
// addresses alone.
static __always_inline int translate(struct __sk_buff *skb, const struct finding *finding)
{
	const int is_v4 = finding->family == 4;
	const __u32 at = ETH_HLEN + (is_v4 ? 12 : 8);
	const __u32 l4 = ETH_HLEN + (is_v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));
	const int is_udp = finding->proto == IPPROTO_UDP;
	const __u32 sum_at = l4 + (is_udp ? 6 : 16);
	// A checksum of zero is none, and stays so.
	const __u64 udp = is_udp ? BPF_F_MARK_MANGLED_0 : 0;
	struct ends is = {};
	__u8 old[32] = {}, new[32] = {};
	__s64 diff;

	if (bpf_skb_load_bytes(skb, l4, &is.sport, 4))
		return -1;
	if (is_v4) {
		if (bpf_skb_load_bytes(skb, at, old, 8))
			return -1;
		__builtin_memcpy(new, finding->leave_as.src, 4);
		__builtin_memcpy(new + 4, finding->leave_as.dst, 4);
		diff = bpf_csum_diff((__be32 *)old, 8, (__be32 *)new, 8, 0);
		if (diff < 0 ||
		    bpf_l3_csum_replace(skb, ETH_HLEN + 10, 0, diff, 0) ||
		    bpf_skb_store_bytes(skb, at, new, 8, 0))
			return -1;
	} else {
		if (bpf_skb_load_bytes(skb, at, old, 32))
			return -1;
		__builtin_memcpy(new, finding->leave_as.src, 32);
		diff = bpf_csum_diff((__be32 *)old, 32, (__be32 *)new, 32, 0);
		if (diff < 0 || bpf_skb_store_bytes(skb, at, new, 32, 0))
			return -1;
	}
	if (bpf_l4_csum_replace(skb, sum_at, 0, diff, BPF_F_PSEUDO_HDR | udp))
		return -1;
	if (bpf_l4_csum_replace(skb, sum_at, is.sport, finding->leave_as.sport, 2 | udp) ||
	    bpf_l4_csum_replace(skb, sum_at, is.dport, finding->leave_as.dport, 2 | udp))
		return -1;
	return bpf_skb_store_bytes(skb, l4, &finding->leave_as.sport, 4, 0);
}

static __always_inline int send(struct __sk_buff *skb, const struct finding *finding)
{
	// What was taken in cannot be left to userspace any more.
	if ((finding->flags & IS_TRANSLATED) && translate(skb, finding))
		return TC_ACT_SHOT;
	if (bpf_skb_store_bytes(skb, 0, finding->eth, sizeof(finding->eth), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(finding->to, finding->flags & TO_GATEWAY ? BPF_F_INGRESS : 0);
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
	finding->from = 0;
	if (find(skb, finding))
		return -1;
	finding->from = skb->ifindex;
	finding->len = skb->len;
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
	return send(skb, finding);
}

SEC("classifier")
int from_gateway(struct __sk_buff *skb)
{
	struct finding finding = {};

	return find(skb, &finding) ? TC_ACT_UNSPEC : send(skb, &finding);
}

char _license[] SEC("license") = "GPL";

// Checksum of this file, by which a test tells that the object was built from it.
const char source_crc32[] SEC(".note.source") = "kernel_path.c crc32 " SOURCE_CRC32;
