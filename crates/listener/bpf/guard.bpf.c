// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//
// The fast door. Two hooks, one judgement:
//
//   guard_xdp  at the driver: answers SYNs before the network stack sees them
//   guard_tc   at tcx ingress: answers SYNs where XDP does not, and makes connections of handshakes' last segments
//
// A packet for none of our targets passes with two look-ups in a table.

#include "guard/ack.h"
#include "guard/deny.h"

// The loopback device of every network namespace.
#define LOOPBACK 1

// Looks up the flow's local end. False if it is none of ours.
static __always_inline bool find_door(struct flow *flow, struct door *door)
{
    const __u32 zero = 0;
    // Port 0 is nobody's, and has a meaning of its own in the table.
    if (!flow->local_port)
        return false;
    door->target = find_target(flow->family, flow->local, flow->local_port);
    if (!door->target)
        return false;
    flow->listener = door->target->listener;
    __u32 index = flow->listener;
    door->listener = bpf_map_lookup_elem(&listeners, &index);
    door->counters = bpf_map_lookup_elem(&counters, &index);
    door->clock = bpf_map_lookup_elem(&clockwork, &zero);
    if (!door->listener || !door->counters || !door->clock)
        return false;
    flow->ns = bpf_jiffies64() * ns_per_jiffy + door->clock->offset_ns;
    __s64 alone = flow->ns - door->clock->kept_ns;
    door->alone = alone >= ALONE_NS;
    if (!door->alone)
        return true;
    if (door->listener->reports)
        door->listener->reports = 0;
    return alone < LEASE_NS;
}

static __always_inline enum verdict drop(const struct door *door, enum counter why)
{
    count(door->counters, why);
    return DROP;
}

// A SYN that is not plain (data, IP options, extension headers): the kernel's while calm, nobody's under pressure.
static __always_inline enum verdict leave(const struct flow *flow, const struct door *door)
{
    if (door->listener->state == RESTING)
        return PASS;
    if (!answers(door->listener))
        return drop(door, DROP_DRAINING);
    // What the kernel has not finished goes with its listening socket.
    if (!door->listener->reports || door->listener->state == HANDS_ON)
        return drop(door, DROP_NOT_UNDERSTOOD);
    if (!may_reply(flow, door))
        return DROP;
    count(door->counters, LEFT_TO_KERNEL);
    return PASS;
}

// Everything but a SYN and an ACK.
static __always_inline enum verdict on_other(void *ctx, enum hook hook, const struct flow *flow, const struct door *door, __u8 flags)
{
    bool reset = flags & TCP_RST;
    // No flags at all, FIN alone, SYN+FIN: nobody's.
    bool odd = !(flags & TCP_ACK) || (flags & (TCP_SYN | TCP_FIN)) == (TCP_SYN | TCP_FIN);
    if (!reset && odd)
        return drop(door, DROP_BAD_FLAGS);
    if (hook == AT_XDP)
        return PASS;
    if (!reset) {
        // SYN+ACK is the kernel's to refuse; within our budget, and while calm.
        if (kernel_holds(ctx, flow))
            return PASS;
        return !is_wary(flow, door->listener) && may_reply(flow, door) ? PASS : drop(door, DROP_UNKNOWN_FLOW);
    }
    if (door->listener->has_entries && !door->listener->looks_up) {
        struct options none = no_options();
        report(flow, REPORT_RST, &none, 0, bpf_ktime_get_boot_ns(), later());
    }
    return on_unknown(ctx, flow, door, 0, DROP_RESET);
}

// Whether at tc there is more of the headers than the program sees: it may be asked for.
static __always_inline bool has_more(void *ctx, enum hook hook)
{
    const struct __sk_buff *skb = ctx;
    return hook == AT_TC && skb->data_end - skb->data < (skb->len < HEADERS_MAX ? skb->len : HEADERS_MAX);
}

// Judges a TCP segment; for a SYN that is to be answered the answer's segment, but not the headers below it, is written: in place, or at tc
// behind the `ip_len` bytes of an IP header in the draft. `tcp_len` is header and data, `addresses` the sum over both addresses.
static __always_inline enum verdict on_segment(void *ctx, enum hook hook, struct flow *flow, const struct door *door, __u32 tcp_at,
                                               __u32 ip_len, __u32 tcp_len, __u64 addresses, bool loopback)
{
    struct tcp *tcp = begin_of(ctx, hook) + tcp_at;
    const void *end = end_of(ctx, hook);
    if ((void *)(tcp + 1) > end)
        return drop(door, DROP_MALFORMED);
    __u32 words = (tcp->offset >> 4) - 5;
    if (words > OPTION_WORDS_MAX)
        return drop(door, DROP_MALFORMED);
    flow->peer.port = bpf_ntohs(tcp->source);
    flow->peer.irs = bpf_ntohl(tcp->seq);
    __u8 flags = tcp->flags;
    // Left behind, we keep the door for our successor, who takes our place. Whoever listens beside us is another.
    if (door->listener->state == RESTING || (door->alone && is_served(ctx, flow)))
        return PASS;
    bool syn = (flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
    bool ack = (flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_ACK;
    if (!syn && !(ack && hook == AT_TC))
        return ack ? PASS : on_other(ctx, hook, flow, door, flags);
    if (!flow->peer.port)
        return drop(door, DROP_PORT_ZERO);
    if (is_land(flow))
        return drop(door, DROP_LAND);
    if (is_martian(flow, loopback))
        return drop(door, DROP_MARTIAN);

    // Before all that costs more, and before the budget: who is denied uses up nothing of others'.
    if (syn) {
        enum standing standing = standing_of(flow->listener, flow->family, flow->peer.addr);
        if (standing != SERVED)
            return deny(flow, door, standing, tcp_len == 20 + 4 * words);
    }

    // Most segments of a connection are decided here.
    struct mark mark = mark_of(flow);
    if (syn) {
        forget_held(&mark);
    } else if (was_lately_held(&mark)) {
        count(door->counters, UNKNOWN_PASSED);
        return PASS;
    }

    struct options options;
    __u64 segment = add_words(0, tcp, 5);
    if (!read_options((__u32 *)(tcp + 1), words, end, &options, &segment))
        return has_more(ctx, hook) ? TOO_SHORT : drop(door, DROP_MALFORMED);
    // From here on the verifier knows no more of a block of one length than of another, and looks at them all at once.
    words = options.len / 4;
    tcp = begin_of(ctx, hook) + tcp_at;
    end = end_of(ctx, hook);
    if ((void *)(tcp + 1) > end)
        return drop(door, DROP_MALFORMED);
    if (hook == AT_TC && ack) {
        flow->peer.irs--;
        return judge_ack(ctx, flow, door, bpf_ntohl(tcp->ack) - 1, &options);
    }

    if (tcp_len < 20 + 4 * words)
        return drop(door, DROP_MALFORMED);
    __u64 pseudo = addresses + pseudo_tail(tcp_len);
    if (tcp_len != 20 + 4 * words)
        return leave(flow, door);
    enum sum_state sums = judge_sum(pseudo, segment, tcp->check);
    if (sums == SUM_WRONG)
        return drop(door, DROP_BAD_CHECKSUM);
    // A frame that the driver sends has its sum finished by nobody after us.
    if (hook == AT_XDP)
        sums = SUM_RIGHT;
    if (!answers(door->listener))
        return drop(door, DROP_DRAINING);
    grant(&options, door->listener->grants);
    if (answer_words(&options) > words)
        return leave(flow, door);
    bool names_mss = options.mss;
    struct cookie cookie;
    enum verdict verdict = judge_syn(ctx, flow, door, &options, &cookie);
    if (verdict != TRANSMIT)
        return verdict;
    if (door->listener->reports)
        note_begun(flow, cookie.isn);
    if (!names_mss)
        options.mss = 0;
    struct tcp *answer = tcp;
    if (hook == AT_TC) {
        struct draft *here = draft();
        if (!here)
            return DROP;
        here->len = ip_len + 20 + 4 * words;
        answer = (struct tcp *)(here->packet + ip_len);
    }
    return write_segment(tcp, answer, end, hook, words, &options, door, &cookie, pseudo, sums) ? TRANSMIT : DROP;
}

// A segment behind IP options or extension headers, which begins at `tcp_at`: the kernel's, but for a SYN under pressure.
static __always_inline enum verdict on_odd_segment(void *ctx, enum hook hook, struct flow *flow, __u32 tcp_at)
{
    struct tcp tcp;
    struct door door;
    if (load(ctx, hook, tcp_at, &tcp, sizeof(tcp)))
        return PASS;
    flow->local_port = tcp.dest;
    flow->peer.port = bpf_ntohs(tcp.source);
    bool syn = (tcp.flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
    if (!syn || !find_door(flow, &door))
        return PASS;
    enum standing standing = standing_of(flow->listener, flow->family, flow->peer.addr);
    return standing == SERVED || door.listener->state == RESTING ? leave(flow, &door) : deny(flow, &door, standing, false);
}

static __always_inline enum verdict on_odd_ipv4(void *ctx, enum hook hook, __u32 at)
{
    struct ipv4 ip;
    if (load(ctx, hook, at, &ip, sizeof(ip)) || ip.version_ihl >> 4 != 4 || ip.protocol != IPPROTO_TCP || ip.fragment & bpf_htons(0x3fff))
        return PASS;
    struct flow flow = {.family = V4, .peer.addr = {ip.source}, .local = {ip.dest}};
    return on_odd_segment(ctx, hook, &flow, at + (ip.version_ihl & 0xf) * 4);
}

// Extension headers that are walked at most; the kernel does not care for how many there are.
#define EXTENSIONS_MAX 8

static __always_inline enum verdict on_odd_ipv6(void *ctx, enum hook hook, __u32 at)
{
    struct ipv6 ip;
    if (load(ctx, hook, at, &ip, sizeof(ip)))
        return PASS;
    __u8 next = ip.next;
    __u32 header_at = at + sizeof(ip);
    for (__u32 i = 0; i < EXTENSIONS_MAX && next != IPPROTO_TCP; i++) {
        __u8 extension[2];
        if ((next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS) ||
            load(ctx, hook, header_at, extension, sizeof(extension)))
            return PASS;
        next = extension[0];
        header_at += (extension[1] + 1) * 8;
    }
    if (next != IPPROTO_TCP)
        return PASS;
    struct flow flow = {
        .family = V6,
        .peer.addr = {ip.source[0], ip.source[1]},
        .local = {ip.dest[0], ip.dest[1]},
    };
    return on_odd_segment(ctx, hook, &flow, header_at);
}

static __always_inline enum verdict on_odd(void *ctx, enum hook hook, __u32 at, __u32 family)
{
    return family == V4 ? on_odd_ipv4(ctx, hook, at) : on_odd_ipv6(ctx, hook, at);
}

// Of each hook its own, verified once.
__noinline int on_odd_at_tc(struct __sk_buff *skb, __u32 at, __u32 family)
{
    return on_odd(skb, AT_TC, at, family);
}

__noinline int on_odd_at_xdp(struct xdp_md *ctx, __u32 at, __u32 family)
{
    return on_odd(ctx, AT_XDP, at, family);
}

static __always_inline enum verdict leave_to_walk(void *ctx, enum hook hook, __u32 at, enum family family)
{
    return hook == AT_XDP ? on_odd_at_xdp(ctx, at, family) : on_odd_at_tc(ctx, at, family);
}

static __always_inline enum verdict on_ipv4(void *ctx, enum hook hook, __u32 at, bool loopback)
{
    struct ipv4 *ip = begin_of(ctx, hook) + at;
    const void *end = end_of(ctx, hook);
    struct tcp *tcp = (struct tcp *)(ip + 1);
    if ((void *)(tcp + 1) > end)
        return has_more(ctx, hook) ? TOO_SHORT : PASS;
    if (ip->protocol != IPPROTO_TCP || ip->fragment & bpf_htons(0x3fff))
        return PASS;
    if (ip->version_ihl != 0x45)
        return leave_to_walk(ctx, hook, at, V4);
    struct flow flow = {.family = V4, .peer.addr = {ip->source}, .local = {ip->dest}, .local_port = tcp->dest};
    struct door door;
    if (!find_door(&flow, &door))
        return PASS;
    if (fold(add_words(0, ip, 5)) != 0xffff)
        return drop(&door, DROP_BAD_CHECKSUM);
    __u64 addresses = (__u64)ip->source + ip->dest;
    __u32 tcp_len = bpf_ntohs(ip->len) - sizeof(*ip);
    enum verdict verdict = on_segment(ctx, hook, &flow, &door, at + sizeof(*ip), sizeof(*ip), tcp_len, addresses, loopback);
    if (verdict != TRANSMIT)
        return verdict;
    ip = begin_of(ctx, hook) + at;
    struct draft *here = hook == AT_TC ? draft() : NULL;
    if ((void *)(ip + 1) > end_of(ctx, hook) || (hook == AT_TC && !here))
        return DROP;
    answer_ipv4(ip, hook == AT_TC ? (struct ipv4 *)here->packet : ip);
    return TRANSMIT;
}

static __always_inline enum verdict on_ipv6(void *ctx, enum hook hook, __u32 at, bool loopback)
{
    struct ipv6 *ip = begin_of(ctx, hook) + at;
    const void *end = end_of(ctx, hook);
    struct tcp *tcp = (struct tcp *)(ip + 1);
    if ((void *)(tcp + 1) > end)
        return has_more(ctx, hook) ? TOO_SHORT : PASS;
    if ((ip->version_label & bpf_htonl(0xf0000000)) != bpf_htonl(0x60000000))
        return PASS;
    if (ip->next != IPPROTO_TCP) {
        bool walked = ip->next == IPPROTO_HOPOPTS || ip->next == IPPROTO_ROUTING || ip->next == IPPROTO_DSTOPTS;
        return walked ? leave_to_walk(ctx, hook, at, V6) : PASS;
    }
    struct flow flow = {
        .family = V6,
        .peer.addr = {ip->source[0], ip->source[1]},
        .local = {ip->dest[0], ip->dest[1]},
        .local_port = tcp->dest,
    };
    struct door door;
    if (!find_door(&flow, &door))
        return PASS;
    __u64 addresses = add_words(0, ip->source, 8);
    __u32 tcp_len = bpf_ntohs(ip->len);
    enum verdict verdict = on_segment(ctx, hook, &flow, &door, at + sizeof(*ip), sizeof(*ip), tcp_len, addresses, loopback);
    if (verdict != TRANSMIT)
        return verdict;
    ip = begin_of(ctx, hook) + at;
    struct draft *here = hook == AT_TC ? draft() : NULL;
    if ((void *)(ip + 1) > end_of(ctx, hook) || (hook == AT_TC && !here))
        return DROP;
    answer_ipv6(ip, flow.local, flow.peer.addr, hook == AT_TC ? (struct ipv6 *)here->packet : ip);
    return TRANSMIT;
}

static __always_inline enum verdict on_packet(void *ctx, enum hook hook, __u32 at, __be16 protocol, bool loopback)
{
    if (protocol == bpf_htons(ETH_P_IP))
        return on_ipv4(ctx, hook, at, loopback);
    if (protocol == bpf_htons(ETH_P_IPV6))
        return on_ipv6(ctx, hook, at, loopback);
    return PASS;
}

static __always_inline void swap_link_addresses(struct ethhdr *link)
{
    __u16 *half = (__u16 *)link;
    __u16 dest[3] = {half[0], half[1], half[2]};
#pragma unroll
    for (__u32 i = 0; i < 3; i++) {
        half[i] = half[i + 3];
        half[i + 3] = dest[i];
    }
}

// Whether the frame is for this host, and for it alone.
static __always_inline bool is_ours(const struct ethhdr *link)
{
    const __u32 zero = 0;
    const struct clockwork *clock = bpf_map_lookup_elem(&clockwork, &zero);
    const __u16 *half = (const __u16 *)link;
    __u64 mac = half[0] | (__u64)half[1] << 16 | (__u64)half[2] << 32;
    if (!clock)
        return false;
    for (__u32 i = 0; i < MACS_MAX; i++) {
        if (i >= clock->mac_count)
            break;
        if (clock->macs[i] == mac)
            return true;
    }
    return false;
}

SEC("xdp")
int guard_xdp(struct xdp_md *ctx)
{
    struct ethhdr *link = begin_of(ctx, AT_XDP);
    if ((void *)(link + 1) > end_of(ctx, AT_XDP) || !is_ours(link))
        return XDP_PASS;
    switch (on_packet(ctx, AT_XDP, ETH_HLEN, link->h_proto, false)) {
    case TRANSMIT:
        swap_link_addresses(link);
        return XDP_TX;
    case TURN_AWAY:
        if (!turn_away_at_xdp(ctx, link->h_proto))
            return XDP_DROP;
        swap_link_addresses(link);
        return XDP_TX;
    case DROP:
        return XDP_DROP;
    default:
        return XDP_PASS;
    }
}

// Once for both programs below, and verified once.
__noinline int on_tc_packet(struct __sk_buff *skb, __u32 at)
{
    if (at > ETH_HLEN)
        return PASS;
    return on_packet(skb, AT_TC, at, skb->protocol, skb->ifindex == LOOPBACK);
}

// Stores the draft over the SYN, and sends it where it came from.
static __always_inline int send_draft(struct __sk_buff *skb, __u32 link_len)
{
    struct draft *here = draft();
    if (!here)
        return TCX_DROP;
    const void *from = here->packet;
    __u64 len = here->len;
    FORGET(len); // What is checked is what is used, in one register: Linux 6.12 cannot see it else.
    if (len < sizeof(struct ipv4) || len > sizeof(here->packet))
        return TCX_DROP;
    if (link_len) {
        const struct ethhdr *link = begin_of(skb, AT_TC);
        if ((void *)(link + 1) > end_of(skb, AT_TC))
            return TCX_DROP;
        __builtin_memcpy(here->link, link, ETH_HLEN);
        swap_link_addresses((struct ethhdr *)here->link);
        from = here->link;
        len += ETH_HLEN;
    }
    return bpf_skb_store_bytes(skb, 0, from, len, 0) ? TCX_DROP : bpf_redirect(skb->ifindex, 0);
}

static __always_inline int at_tc(struct __sk_buff *skb, __u32 link_len)
{
    // Other hosts' frames, and those of a VLAN, which are for the VLAN's own device.
    if (skb->pkt_type != 0 || (skb->vlan_present && skb->vlan_tci & 0xfff))
        return TCX_NEXT;
    enum verdict verdict = on_tc_packet(skb, link_len);
    if (verdict == TOO_SHORT) {
        // Seldom: of what local senders send, and drivers bring, the headers are in one piece.
        if (bpf_skb_pull_data(skb, skb->len < HEADERS_MAX ? skb->len : HEADERS_MAX))
            return TCX_NEXT;
        verdict = on_tc_packet(skb, link_len);
    }
    switch (verdict) {
    case TRANSMIT:
        return send_draft(skb, link_len);
    case TURN_AWAY:
        return turn_away_at_tc(skb, link_len) ? send_draft(skb, link_len) : TCX_DROP;
    case DROP:
        return TCX_DROP;
    default:
        return TCX_NEXT;
    }
}

SEC("classifier")
int guard_tc(struct __sk_buff *skb)
{
    return at_tc(skb, ETH_HLEN);
}

// For devices without a link layer, such as tun.
SEC("classifier")
int guard_tc_ip(struct __sk_buff *skb)
{
    return at_tc(skb, 0);
}

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} jiffies SEC(".maps");

// Run once by user space, to set its clock and ours by each other.
SEC("classifier")
int read_jiffies(struct __sk_buff *skb)
{
    const __u32 zero = 0;
    __u64 now = bpf_jiffies64();
    (void)skb;
    return bpf_map_update_elem(&jiffies, &zero, &now, 0);
}

char _license[] SEC("license") = "Dual MIT/GPL";
