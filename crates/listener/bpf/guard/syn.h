// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//
// SYN: answered in place with a SYN-ACK whose ISN is a cookie.
#pragma once

#include "budget.h"
#include "cookie.h"
#include "packet.h"

// The window of a SYN-ACK, which is never scaled (RFC 7323 §2.2).
#define WINDOW 0xffff
#define HOP_LIMIT 64
#define COOKIE_LIFETIME_NS 64000000000ULL

// A flow, as one of its packets arrives.
struct flow {
    __u8 family;
    __u8 listener;
    __be16 local_port;
    struct peer peer;
    __u64 local[2];
    __u64 ns; // Time by the clock of user space, up to two jiffies late.
};

// What is known here of the flow's local end.
struct door {
    const struct target *target;
    struct listener *listener;
    struct counters *counters;
    const struct clockwork *clock;
    bool alone; // User space is gone.
};

static __always_inline bool answers(const struct listener *listener)
{
    return listener->state == ANSWERS || listener->state == HANDS_ON;
}

static __always_inline bool is_loopback(enum family family, const __u64 addr[2])
{
    return family == V4 ? (__u8)addr[0] == 127 : addr[0] == 0 && addr[1] == 0x0100000000000000ULL;
}

// RFC 1122 §3.2.1.3, RFC 6890: sources that cannot be. This host's own addresses, off the wire, and its subnets' broadcasts stand
// in the table with port 0. Nor can a packet off the wire be for a loopback address.
static __always_inline bool is_martian(const struct flow *flow, bool loopback)
{
    if (!loopback && (is_loopback(flow->family, flow->local) || find_target(flow->family, flow->peer.addr, 0)))
        return true;
    if (flow->family == V4) {
        __u8 first = flow->peer.addr[0];
        return first == 0 || first >= 224 || (first == 127 && !loopback);
    }
    const __u64 *addr = flow->peer.addr;
    bool multicast = (__u8)addr[0] == 0xff;
    bool low = addr[0] == 0 && (__u32)addr[1] == 0; // ::/96, which has ::1 and nothing else that could be.
    bool mapped = addr[0] == 0 && (__u32)addr[1] == 0xffff0000;
    return multicast || mapped || (low && !(loopback && is_loopback(V6, addr)));
}

static __always_inline bool is_land(const struct flow *flow)
{
    return flow->peer.addr[0] == flow->local[0] && (flow->family == V4 || flow->peer.addr[1] == flow->local[1]) &&
           flow->peer.port == bpf_ntohs(flow->local_port);
}

static __always_inline __u32 tuple_of(const struct flow *flow, struct bpf_sock_tuple *tuple)
{
    if (flow->family == V4) {
        tuple->ipv4.saddr = flow->peer.addr[0];
        tuple->ipv4.daddr = flow->local[0];
        tuple->ipv4.sport = bpf_htons(flow->peer.port);
        tuple->ipv4.dport = flow->local_port;
        return sizeof(tuple->ipv4);
    }
    __builtin_memcpy(tuple->ipv6.saddr, flow->peer.addr, 16);
    __builtin_memcpy(tuple->ipv6.daddr, flow->local, 16);
    tuple->ipv6.sport = bpf_htons(flow->peer.port);
    tuple->ipv6.dport = flow->local_port;
    return sizeof(tuple->ipv6);
}

// Whether the kernel holds a socket for this 4-tuple, in any state but LISTEN.
static __always_inline bool kernel_holds(void *ctx, const struct flow *flow)
{
    struct bpf_sock_tuple tuple = {};
    __u32 len = tuple_of(flow, &tuple);
    struct bpf_sock *sk = bpf_skc_lookup_tcp(ctx, &tuple, len, BPF_F_CURRENT_NETNS, 0);
    if (!sk)
        return false;
    bool held = sk->state != BPF_TCP_LISTEN;
    bpf_sk_release(sk);
    return held;
}

// Whether somebody has a socket for this flow, one that listens or one that lives.
static __always_inline bool is_served(void *ctx, const struct flow *flow)
{
    struct bpf_sock_tuple tuple = {};
    __u32 len = tuple_of(flow, &tuple);
    struct bpf_sock *sk = bpf_skc_lookup_tcp(ctx, &tuple, len, BPF_F_CURRENT_NETNS, 0);
    if (!sk)
        return false;
    bool served = sk->state != BPF_TCP_TIME_WAIT;
    bpf_sk_release(sk);
    return served;
}

// When user space is woken for a report: now; or if it has read all before it; or not, since it looks every few milliseconds while it keeps
// half-open connections, and being woken costs as much as a handshake.
#define NOW BPF_RB_FORCE_WAKEUP
#define IF_IDLE 0

// Unless this is the report with which a quarter of the room, or another one, is used up.
static __always_inline __u64 later(void)
{
    __u64 waiting = bpf_ringbuf_query(&reports, BPF_RB_AVAIL_DATA);
    bool fills = waiting >= REPORTS_LEN / 4 && waiting % (REPORTS_LEN / 4) < sizeof(struct report) + BPF_RINGBUF_HDR_SZ;
    return fills ? NOW : BPF_RB_NO_WAKEUP;
}

// Tells user space. False if there is no room for a report.
static __always_inline bool report(const struct flow *flow, enum kind kind, const struct options *offer, __u32 iss, __u64 ns, __u64 wakeup)
{
    struct report *report = bpf_ringbuf_reserve(&reports, sizeof(*report), 0);
    if (!report)
        return false;
    *report = (struct report){
        .kind = kind,
        .family = flow->family,
        .listener = flow->listener,
        .wscale = offer->wscale,
        .sack = offer->sack,
        .timestamps = offer->timestamps,
        .mss = offer->mss,
        .peer = {flow->peer.addr[0], flow->peer.addr[1]},
        .local = {flow->local[0], flow->local[1]},
        .peer_port = bpf_htons(flow->peer.port),
        .local_port = flow->local_port,
        .irs = flow->peer.irs,
        .iss = iss,
        .tsval = offer->tsval,
        .ns = ns,
    };
    bpf_ringbuf_submit(report, wakeup);
    return true;
}

// What the kernel's settings do not allow is not agreed to: the kernel would refuse the connection later.
static __always_inline void grant(struct options *offer, __u8 grants)
{
    offer->timestamps &= grants >> GRANT_TIMESTAMPS & 1;
    offer->sack &= grants >> GRANT_SACK & 1;
    if (!(grants >> GRANT_WSCALE & 1))
        offer->wscale = WSCALE_NONE;
}

// Words that the options of a SYN-ACK take. It names its MSS to those who named theirs; so it always has room where the SYN's
// options stood.
static __always_inline __u32 answer_words(const struct options *offer)
{
    return (offer->mss != 0) + (offer->timestamps ? 3 : offer->sack) + (offer->wscale != WSCALE_NONE);
}

// The option block of a SYN-ACK, in the order of Linux, with NOPs behind it. A function of its own, so that it is verified once.
__noinline int write_options(const struct options *offer, __u16 mss, __u32 tsval, __u8 wscale, struct block *answer)
{
    if (!offer || !answer)
        return 0;
    __u32 at = 0;
    answer->words[0] = answer->words[1] = answer->words[2] = answer->words[3] = answer->words[4] = WORD(1, 1, 1, 1);
    if (offer->mss) {
        answer->words[0] = bpf_htonl(WORD(2, 4, 0, 0) | mss);
        at = 1;
    }
    if (offer->timestamps) {
        answer->words[at] = offer->sack ? bpf_htonl(WORD(4, 2, 8, 10)) : bpf_htonl(WORD(1, 1, 8, 10));
        answer->words[at + 1] = bpf_htonl(tsval);
        answer->words[at + 2] = bpf_htonl(offer->tsval);
        at += 3;
    } else if (offer->sack) {
        answer->words[at] = bpf_htonl(WORD(1, 1, 4, 2));
        at++;
    }
    if (offer->wscale != WSCALE_NONE)
        answer->words[at] = bpf_htonl(WORD(1, 3, 3, wscale));
    return 0;
}

// The IP header of an answer: TOS 0, ID 0, DF; the length is what it was.
static __always_inline void answer_ipv4(const struct ipv4 *ip, struct ipv4 *answer)
{
    __u32 *fixed = (__u32 *)answer;
    __be32 first = (__u32)ip->len << 16 | 0x45;
    __be32 flags = bpf_htonl(0x4000);
    __be32 ttl = bpf_htonl(HOP_LIMIT << 24 | IPPROTO_TCP << 16);
    __be32 source = ip->source, dest = ip->dest;
    __u64 addresses = (__u64)source + dest;
    fixed[0] = first;
    fixed[1] = flags;
    fixed[2] = ttl | (__u32)(__u16)~fold(addresses + first + flags + ttl) << 16;
    answer->source = dest;
    answer->dest = source;
}

static __always_inline void answer_ipv6(const struct ipv6 *ip, const __u64 source[2], const __u64 dest[2], struct ipv6 *answer)
{
    answer->version_label = bpf_htonl(0x60000000);
    answer->len = ip->len;
    answer->next = IPPROTO_TCP;
    answer->hops = HOP_LIMIT;
    answer->source[0] = source[0];
    answer->source[1] = source[1];
    answer->dest[0] = dest[0];
    answer->dest[1] = dest[1];
}

#define CONTROL_SYN_ACK ((TCP_SYN | TCP_ACK) << 16 | WINDOW)

// The fixed header of an answer to this SYN, maybe in its place: `words` of options stand behind it, whose sum is `sum`. `control` are flags
// and window.
static __always_inline void write_header(const struct tcp *tcp, struct tcp *answer, __u32 words, const struct cookie *cookie, __u32 control,
                                         __u64 pseudo, __u64 sum, enum sum_state sums)
{
    __be32 ports = (__u32)tcp->source << 16 | tcp->dest;
    __be32 seq = bpf_htonl(cookie->isn);
    __be32 ack = bpf_htonl(bpf_ntohl(tcp->seq) + 1);
    __be32 fourth = bpf_htonl((5 + words) << 28 | control);
    __u32 *fixed = (__u32 *)answer;
    sum += pseudo + ports + fourth + ack;
    sum += seq;
    fixed[0] = ports;
    fixed[1] = seq;
    fixed[2] = ack;
    fixed[3] = fourth;
    // A sum that is left to a device stays so: the pseudo-header has not changed.
    fixed[4] = sums == SUM_UNFINISHED ? fold(pseudo) : (__u16)~fold(sum);
}

// Whether that much can be written: in a packet before its end, in a draft always.
static __always_inline bool fits(const void *behind, const void *end, enum hook hook)
{
    return hook == AT_TC || behind <= end;
}

// The options of a SYN-ACK for the common layouts: all of them in five words, or in six; or all but timestamps in three. Returns their
// sum, or 0 if they are others.
static __always_inline __u64 write_common(__u32 *words, __u32 count, const void *end, enum hook hook, const struct options *offer, __u16 mss,
                                          __u32 tsval, __u8 wscale)
{
    if (!offer->mss || !offer->sack || offer->wscale == WSCALE_NONE)
        return 0;
    __be32 first = bpf_htonl(WORD(2, 4, 0, 0) | mss);
    __be32 last = bpf_htonl(WORD(1, 3, 3, wscale));
    if (offer->timestamps && (count == 5 || count == 6) && fits(words + 5, end, hook)) {
        __be32 stamps = bpf_htonl(WORD(4, 2, 8, 10)), ours = bpf_htonl(tsval), theirs = bpf_htonl(offer->tsval);
        words[0] = first;
        words[1] = stamps;
        words[2] = ours;
        words[3] = theirs;
        words[4] = last;
        __u64 sum = (__u64)first + stamps + ours + theirs + last;
        if (count == 5)
            return sum;
        if (!fits(words + 6, end, hook))
            return 0;
        words[5] = WORD(1, 1, 1, 1);
        return sum + WORD(1, 1, 1, 1);
    }
    if (!offer->timestamps && count == 3 && fits(words + 3, end, hook)) {
        __be32 sack = bpf_htonl(WORD(1, 1, 4, 2));
        words[0] = first;
        words[1] = sack;
        words[2] = last;
        return (__u64)first + sack + last;
    }
    return 0;
}

// Writes `count` words of a block, with NOPs behind it. Returns their sum, or 0 if they do not all fit.
static __noinline __u64 write_any(__u32 *words, __u32 count, const void *end, enum hook hook, const struct block *block)
{
    __u64 sum = 0;
    for (__u32 i = 0; i < OPTION_WORDS_MAX; i++) {
        if (i >= count)
            break;
        if (!fits(words + i + 1, end, hook))
            return 0;
        words[i] = i < 5 ? block->words[i] : WORD(1, 1, 1, 1);
        sum += words[i];
    }
    return sum;
}

// Writes the SYN-ACK for a SYN: over it, or elsewhere. The header keeps the SYN's length, with NOPs behind the options: `words` of them
// in all.
static __always_inline bool write_segment(const struct tcp *tcp, struct tcp *answer, const void *end, enum hook hook, __u32 words,
                                          const struct options *offer, const struct door *door, const struct cookie *cookie, __u64 pseudo,
                                          enum sum_state sums)
{
    __u32 *options = (__u32 *)(answer + 1);
    __u16 mss = door->target->mss;
    __u8 wscale = door->listener->window_scale;
    __u64 sum = write_common(options, words, end, hook, offer, mss, cookie->tsval, wscale);
    if (!sum && words) {
        struct block block;
        write_options(offer, mss, cookie->tsval, wscale, &block);
        sum = write_any(options, words, end, hook, &block);
        if (!sum)
            return false;
    }
    write_header(tcp, answer, words, cookie, CONTROL_SYN_ACK, pseudo, sum, sums);
    return true;
}

static __always_inline bool may_reply(const struct flow *flow, const struct door *door)
{
    struct source source = flow->family == V4 ? source_v4(flow->peer.addr[0]) : source_v6(flow->peer.addr);
    if (has_budget(&reply_budget, source, door->listener->replies_max, period_of(flow->ns), true))
        return true;
    count(door->counters, REPLIES_OVER_BUDGET);
    return false;
}

static __always_inline void expect_form_b(const struct flow *flow)
{
    __u32 index = flow->listener;
    __u64 *until = bpf_map_lookup_elem(&form_b_until, &index);
    // Once in a second is exact enough, and keeps the cache line quiet under a flood.
    if (until && *until < flow->ns + COOKIE_LIFETIME_NS)
        *until = flow->ns + COOKIE_LIFETIME_NS + 1000000000ULL;
}

// Judges a SYN for one of our targets. On TRANSMIT `cookie` is to be written.
static __always_inline enum verdict judge_syn(void *ctx, const struct flow *flow, const struct door *door, struct options *offer,
                                              struct cookie *cookie)
{
    struct listener *listener = door->listener;
    if (!may_reply(flow, door))
        return DROP;
    // While calm, a SYN for a connection of the kernel's is the kernel's: RFC 5961 §4, RFC 6191.
    if (listener->reports && listener->state != HANDS_ON && kernel_holds(ctx, flow))
        return PASS;
    count(door->counters, SYNS_RECEIVED);
    if (!offer->mss)
        offer->mss = flow->family == V4 ? MSS_DEFAULT_V4 : MSS_DEFAULT_V6;
    __u32 slot = door->clock->current & (EPOCH_SLOTS - 1);
    // While calm there is time for the exact time: user space measures handshakes by it.
    __u64 ns = listener->reports ? bpf_ktime_get_boot_ns() : flow->ns;
    *cookie = mint(&door->target->keyed[slot], slot, &flow->peer, flow->family, offer, ns);
    count(door->counters, SYN_ACKS_SENT);
    if (listener->reports) {
        bool looks_soon = listener->has_entries;
        // User space will say so too, but a RST may come before it does.
        if (!looks_soon)
            listener->has_entries = 1;
        if (!report(flow, REPORT_SYN, offer, cookie->isn, ns, looks_soon ? later() : NOW))
            count(door->counters, REPORTS_LOST);
    } else {
        count(door->counters, COOKIES_SENT);
    }
    if (!offer->timestamps)
        expect_form_b(flow);
    return TRANSMIT;
}
