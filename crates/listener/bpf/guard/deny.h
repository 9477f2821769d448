// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//
// SYN of a source that the lists deny: nothing is said, or RST.
#pragma once

#include "sources.h"
#include "syn.h"

// RFC 9293 §3.10.7.1: "<SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>", in answer to a segment without ACK.
#define CONTROL_RST ((TCP_RST | TCP_ACK) << 16)

// A SYN with data, IP options or extension headers is not `plain`, and meets silence. Its sums have not been looked at: a RST to a SYN that was
// damaged on its way fits no connection.
static __always_inline enum verdict deny(const struct flow *flow, const struct door *door, enum standing standing, bool plain)
{
    if (!answers(door->listener)) {
        count(door->counters, DROP_DRAINING);
        return DROP;
    }
    count(door->counters, SYNS_RECEIVED);
    count(door->counters, SYNS_DENIED);
    if (standing != REFUSED || !plain) {
        count(door->counters, DROP_DENIED);
        return DROP;
    }
    if (!may_reply(flow, door))
        return DROP;
    count(door->counters, RESETS_SENT);
    return TURN_AWAY;
}

// The RST for a SYN without data, whose options become NOPs; false if the packet is another than it was. `addresses` is the sum over both.
static __always_inline bool write_rst(void *ctx, enum hook hook, __u32 tcp_at, __u32 ip_len, __u64 addresses)
{
    struct tcp syn;
    if (load(ctx, hook, tcp_at, &syn, sizeof(syn)))
        return false;
    __u32 words = (syn.offset >> 4) - 5;
    struct tcp *answer = begin_of(ctx, hook) + tcp_at;
    const void *end = end_of(ctx, hook);
    struct draft *here = hook == AT_TC ? draft() : NULL;
    if (here) {
        here->len = ip_len + 20 + 4 * words;
        answer = (struct tcp *)(here->packet + ip_len);
    }
    if (words > OPTION_WORDS_MAX || (hook == AT_TC && !here) || !fits(answer + 1, end, hook))
        return false;
    __u32 *options = (__u32 *)(answer + 1);
    for (__u32 i = 0; i < OPTION_WORDS_MAX; i++) {
        if (i >= words)
            break;
        if (!fits(options + i + 1, end, hook))
            return false;
        options[i] = WORD(1, 1, 1, 1);
    }
    __u64 pseudo = addresses + pseudo_tail(20 + 4 * words);
    // Left to a device, it stays so: see `write_header`.
    enum sum_state sums = hook == AT_TC && fold(pseudo) == syn.check ? SUM_UNFINISHED : SUM_RIGHT;
    const struct cookie none = {};
    write_header(&syn, answer, words, &none, CONTROL_RST, pseudo, (__u64)words * WORD(1, 1, 1, 1), sums);
    return true;
}

static __always_inline bool turn_away_v4(void *ctx, enum hook hook, __u32 at)
{
    struct ipv4 ip;
    if (load(ctx, hook, at, &ip, sizeof(ip)) || !write_rst(ctx, hook, at + sizeof(ip), sizeof(ip), (__u64)ip.source + ip.dest))
        return false;
    struct draft *here = hook == AT_TC ? draft() : NULL;
    struct ipv4 *answer = here ? (struct ipv4 *)here->packet : begin_of(ctx, hook) + at;
    if ((hook == AT_TC && !here) || !fits(answer + 1, end_of(ctx, hook), hook))
        return false;
    answer_ipv4(&ip, answer);
    return true;
}

static __always_inline bool turn_away_v6(void *ctx, enum hook hook, __u32 at)
{
    struct ipv6 ip;
    if (load(ctx, hook, at, &ip, sizeof(ip)) || !write_rst(ctx, hook, at + sizeof(ip), sizeof(ip), add_words(0, ip.source, 8)))
        return false;
    struct draft *here = hook == AT_TC ? draft() : NULL;
    struct ipv6 *answer = here ? (struct ipv6 *)here->packet : begin_of(ctx, hook) + at;
    if ((hook == AT_TC && !here) || !fits(answer + 1, end_of(ctx, hook), hook))
        return false;
    answer_ipv6(&ip, ip.dest, ip.source, answer);
    return true;
}

// Functions of their own, of each hook one, which begin anew with the packet: so the verifier follows the ways through them once, and not for each
// way to them.
__noinline int turn_away_at_xdp(struct xdp_md *ctx, __u32 protocol)
{
    return protocol == bpf_htons(ETH_P_IP) ? turn_away_v4(ctx, AT_XDP, ETH_HLEN) : turn_away_v6(ctx, AT_XDP, ETH_HLEN);
}

__noinline int turn_away_at_tc(struct __sk_buff *skb, __u32 at)
{
    if (at > ETH_HLEN)
        return 0;
    return skb->protocol == bpf_htons(ETH_P_IP) ? turn_away_v4(skb, AT_TC, at) : turn_away_v6(skb, AT_TC, at);
}
