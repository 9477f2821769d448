// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//
// What the raw tier's taps take of a guarded port. The one for SYNs: those. The other: everything else of flows that are not settled, RSTs
// and FINs of all, and of a settled flow one packet in a second. User space settles a flow when the kernel holds a socket for it, and
// unsettles it before it answers a SYN for it: a flood's SYNs are looked up nowhere here.
//
// Packets begin at their IP header: the socket is of type SOCK_DGRAM.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// So often a settled flow is shown all the same: a socket may be gone without a packet that would have told.
#define SHOW_EVERY_NS 1000000000LL

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

// Addresses of IPv4 are mapped, as in ::ffff:192.0.2.1.
struct flow {
    __u8 peer[16];
    __u8 local[16];
    __be16 peer_port;
    __be16 local_port;
};

// A guarded address with its port, for those that are not wildcards.
struct guard {
    __u8 addr[16];
    __be16 port;
};

// Sixty-four ports, a bit each: guarded at any address of that family, or at some that `guards` names.
struct ports {
    __u64 any[2];
    __u64 named[2];
};

enum family { V4, V6 };

enum tap { SYNS, OTHERS };

// Bytes of a packet that the rings have room for.
const volatile __u32 snap_len = 0;
const volatile __u32 syn_snap_len = 0;

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 65536 / 64);
    __type(key, __u32);
    __type(value, struct ports);
} ports SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct guard);
    __type(value, __u8);
} guards SEC(".maps");

// When each settled flow was last shown. The least used ones are forgotten first, which costs them a question to the kernel.
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 65536);
    __type(key, struct flow);
    __type(value, __s64);
} settled SEC(".maps");

static __always_inline bool is_guarded(const struct flow *flow, enum family family)
{
    __u16 port = bpf_ntohs(flow->local_port);
    __u32 index = port / 64;
    __u64 bit = 1ULL << (port % 64);
    const struct ports *here = bpf_map_lookup_elem(&ports, &index);
    if (!here)
        return false;
    if (here->any[family] & bit)
        return true;
    if (!(here->named[family] & bit))
        return false;
    struct guard guard = {.port = flow->local_port};
    __builtin_memcpy(guard.addr, flow->local, sizeof(guard.addr));
    return bpf_map_lookup_elem(&guards, &guard) != NULL;
}

static __always_inline __u32 judge(const struct flow *flow, __u8 flags, enum tap tap)
{
    bool syn = (flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
    if (syn != (tap == SYNS))
        return 0; // The other tap's.
    if (syn)
        return syn_snap_len;
    __s64 *shown = bpf_map_lookup_elem(&settled, flow);
    if (!shown || flags & (TCP_SYN | TCP_RST | TCP_FIN))
        return snap_len;
    __s64 now = bpf_ktime_get_coarse_ns();
    if (now - *shown < SHOW_EVERY_NS)
        return 0;
    *shown = now;
    return snap_len;
}

// The ports and the flags of a TCP header.
struct tcp_head {
    __be16 source;
    __be16 dest;
    __u8 between[9];
    __u8 flags;
};

static __always_inline __u32 judge_tcp(const struct __sk_buff *skb, __u32 at, struct flow *flow, enum family family,
                                           enum tap tap)
{
    struct tcp_head tcp;
    if (bpf_skb_load_bytes(skb, at, &tcp, sizeof(tcp)))
        return 0;
    flow->peer_port = tcp.source;
    flow->local_port = tcp.dest;
    return is_guarded(flow, family) ? judge(flow, tcp.flags, tap) : 0;
}

static __always_inline __u32 judge_v4(const struct __sk_buff *skb, enum tap tap)
{
    struct {
        __u8 version_ihl, tos;
        __be16 len, id, fragment;
        __u8 ttl, protocol;
        __be16 check;
        __be32 source, dest;
    } ip;
    if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) || ip.version_ihl >> 4 != 4)
        return 0;
    // Fragments are left to the kernel.
    if (ip.protocol != IPPROTO_TCP || ip.fragment & bpf_htons(0x3fff))
        return 0;
    struct flow flow = {.peer[10] = 0xff, .peer[11] = 0xff, .local[10] = 0xff, .local[11] = 0xff};
    __builtin_memcpy(flow.peer + 12, &ip.source, 4);
    __builtin_memcpy(flow.local + 12, &ip.dest, 4);
    return judge_tcp(skb, (ip.version_ihl & 0xf) * 4, &flow, V4, tap);
}

static __always_inline __u32 judge_v6(const struct __sk_buff *skb, enum tap tap)
{
    struct {
        __be32 version_flow;
        __be16 len;
        __u8 next, hops;
        __u8 source[16], dest[16];
    } ip;
    if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) || (ip.version_flow & bpf_htonl(0xf0000000)) != bpf_htonl(0x60000000))
        return 0;
    switch (ip.next) {
    case IPPROTO_TCP:
        break;
    case IPPROTO_HOPOPTS:
    case IPPROTO_ROUTING:
    case IPPROTO_DSTOPTS:
        return tap == OTHERS ? snap_len : 0; // The bounded walk happens in user space.
    default:
        return 0;
    }
    struct flow flow = {};
    __builtin_memcpy(flow.peer, ip.source, 16);
    __builtin_memcpy(flow.local, ip.dest, 16);
    return judge_tcp(skb, sizeof(ip), &flow, V6, tap);
}

static __always_inline __u32 judge_packet(const struct __sk_buff *skb, enum tap tap)
{
    if (skb->protocol == bpf_htons(ETH_P_IP))
        return judge_v4(skb, tap);
    if (skb->protocol == bpf_htons(ETH_P_IPV6))
        return judge_v6(skb, tap);
    return 0;
}

SEC("socket")
int tap_syns(struct __sk_buff *skb)
{
    return judge_packet(skb, SYNS);
}

SEC("socket")
int tap_others(struct __sk_buff *skb)
{
    return judge_packet(skb, OTHERS);
}

char _license[] SEC("license") = "Dual MIT/GPL";
