// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//
// ACK: the third segment of a handshake becomes a connection of the kernel's listening socket; all others pass.
#pragma once

#include "lately.h"

// Of the segments that are neither a SYN nor a cookie one in so many is looked up, to see whether they are connections' or somebody's
// guesses.
#define SAMPLE 64

// Whether this segment repeats one of the connection that the kernel holds on this 4-tuple already.
static __always_inline bool is_own(struct tcp_sock *tp, const struct flow *flow, __u32 iss)
{
    // Both sequence numbers at which the connection began, each as far back as bytes went since.
    __u32 theirs = tp->rcv_nxt - (__u32)tp->bytes_received;
    __u32 ours = tp->snd_una - (__u32)tp->bytes_acked;
    // A FIN counts in the sequence numbers and not in the bytes.
    return theirs - (flow->peer.irs + 1) <= 1 && ours - (iss + 1) <= 1;
}

// Whether a handshake that is complete began after the connection in TIME-WAIT had ended. Else its last segment is one of that connection,
// come late.
static __always_inline bool is_newer(void *tw, const struct flow *flow, const struct options *options)
{
    if (!tw)
        return false;
    // RFC 6191 §2: a client whose clock runs on has a newer timestamp, whatever its sequence number is. What comes late has an old one.
    __u32 last = ((struct tcp_timewait_sock *)tw)->tw_ts_recent;
    if (options->timestamps && last && (__s32)(last - options->tsval) < 0)
        return true;
    // RFC 1122 §4.2.2.13: or else its sequence number lies behind all that the connection used.
    return (__s32)(flow->peer.irs + 1 - ((struct sock_common *)tw)->skc_tw_rcv_nxt) > 0;
}

// Whether clients may be waiting for room, or for a listening socket.
static __always_inline bool are_waiting(const struct flow *flow)
{
    __u32 index = flow->listener;
    const __u64 *until = bpf_map_lookup_elem(&waits_until, &index);
    return until && *until > flow->ns;
}

// Whether segments of no connection are looked up one by one, and dropped. Under pressure too: a bad ACK is most likely a guess then,
// and is met by silence.
static __always_inline bool is_wary(const struct flow *flow, const struct listener *listener)
{
    return listener->looks_up || !listener->reports || are_waiting(flow);
}

// Form B is weak enough to be guessed at. What it must pass before it costs a hash: COOKIES_VALID, or what bars it.
static __always_inline enum counter try_gates(const struct flow *flow, const struct door *door)
{
    struct listener *listener = door->listener;
    __u32 index = flow->listener;
    const __u64 *until = bpf_map_lookup_elem(&form_b_until, &index);
    if (!listener->form_b_always && (!until || *until < flow->ns))
        return COOKIES_NOT_EXPECTED;
    if (!is_wary(flow, listener))
        return COOKIES_VALID;
    struct source source = flow->family == V4 ? source_v4(flow->peer.addr[0]) : source_v6(flow->peer.addr);
    bool allowed = has_budget(&cookie_budget, source, listener->bad_cookies_max, period_of(flow->ns), false);
    return allowed ? COOKIES_VALID : COOKIES_OVER_BUDGET;
}

// COOKIES_VALID, or why the segment's cookie counts for nothing.
static __always_inline enum counter check_cookie(const struct flow *flow, const struct door *door, __u32 iss, const struct options *options)
{
    enum counter outcome = options->timestamps ? COOKIES_VALID : try_gates(flow, door);
    if (outcome != COOKIES_VALID)
        return outcome;
#pragma clang loop unroll(disable)
    for (__u32 set = 0; set < KEY_SETS; set++) {
        __u32 slot = set * EPOCH_SLOTS + (iss >> 30);
        outcome = COOKIES_EXPIRED;
        if (slot < KEY_SETS * EPOCH_SLOTS && door->clock->accepted[slot]) {
            if (is_cookie(&door->target->keyed[slot], &flow->peer, flow->family, iss, options))
                return COOKIES_VALID;
            outcome = COOKIES_BAD_MAC;
        }
        if (!door->clock->second_set)
            break;
    }
    return outcome;
}

// Counts a cookie of no connection, and takes it out of its prefix's budget. Beyond the budget nobody has looked: it may well be good.
static __always_inline void count_bad_cookie(const struct flow *flow, const struct door *door, enum counter why)
{
    struct source source = flow->family == V4 ? source_v4(flow->peer.addr[0]) : source_v6(flow->peer.addr);
    has_budget(&cookie_budget, source, door->listener->bad_cookies_max, period_of(flow->ns), true);
    if (why != COOKIES_OVER_BUDGET)
        count(door->counters, DROP_BAD_COOKIE);
}

// Whether this segment runs ahead of the one that ends its flow's handshake. Where that got lost, the client's later segments arrive without a
// cookie: its own sequence number is part of it. The kernel would refuse them, and with them a client that has done nothing wrong; dropped, they
// come again behind the one that is missing.
static __noinline bool runs_ahead(struct __sk_buff *skb, const struct flow *flow, __u32 iss)
{
    struct mark mark = mark_of(flow);
    __u64 *place = find_begun(&mark, iss);
    if (!place)
        return false;
    if (!kernel_holds(skb, flow))
        return true;
    *place = 0; // It got in, with a segment that was not looked at here.
    return false;
}

// A segment that begins and completes nothing: nearly always a connection's. It passes, unless such segments of no connection come
// in numbers; then it is dropped for the reason given: that it is a RST, or what is wrong with its cookie.
static __always_inline enum verdict on_unknown(struct __sk_buff *skb, const struct flow *flow, const struct door *door, __u32 iss,
                                               enum counter why)
{
    bool wary = is_wary(flow, door->listener);
    if (!wary && door->listener->has_entries && why != DROP_RESET && runs_ahead(skb, flow, iss)) {
        count(door->counters, DROP_UNKNOWN_FLOW);
        return DROP;
    }
    if (!wary && bpf_get_prandom_u32() % SAMPLE) {
        count(door->counters, UNKNOWN_PASSED);
        return PASS;
    }
    if (kernel_holds(skb, flow)) {
        struct mark mark = mark_of(flow);
        if (why != DROP_RESET)
            note_held(&mark);
        return PASS;
    }
    count(door->counters, SAMPLED_BOGUS);
    if (!wary) {
        struct options none = no_options();
        report(flow, REPORT_BOGUS, &none, 0, flow->ns, IF_IDLE);
        return PASS;
    }
    if (why != DROP_RESET)
        count_bad_cookie(flow, door, why);
    count(door->counters, why);
    return DROP;
}

// Milliseconds since the SYN-ACK, rounded down; 0 where the cookie does not say.
static __always_inline __u32 age_ms(const struct options *options, __u64 ns)
{
    __u32 units = (clock_at(ns) - options->tsecr) & CLOCK_MASK;
    return units ? (units - 1) * ((1 << CLOCK_SHIFT) / 1000) / 1000 : 0;
}

static __always_inline struct req_attrs attributes(const struct options *options, const struct remembered *offer, __u8 window_scale,
                                                   __u64 ns)
{
    bool scaled = offer->wscale != WSCALE_NONE;
    return (struct req_attrs){
        .rcv_tsval = options->tsval,
        // The clock in the SYN-ACK, run on to this moment: so the kernel's first estimate of the round trip is right.
        .rcv_tsecr = options->timestamps ? options->tsecr + age_ms(options, ns) : 0,
        .mss = offer->mss,
        .rcv_wscale = scaled ? window_scale : 0,
        .snd_wscale = scaled ? offer->wscale : 0,
        .wscale_ok = scaled,
        .sack_ok = offer->sack,
        .tstamp_ok = options->timestamps,
    };
}

// Tells user space of a handshake that is complete, and whose client waits for room, or for a listening socket.
static __always_inline enum verdict keep_waiting(const struct flow *flow, struct options *echo, const struct remembered *offer, __u32 iss,
                                                 __u64 ns)
{
    __u32 index = flow->listener;
    __u64 *until = bpf_map_lookup_elem(&waits_until, &index);
    // Once in a second is exact enough, and keeps the cache line quiet where many wait.
    if (until && *until < flow->ns + WAITS_NS)
        *until = flow->ns + WAITS_NS + 1000000000ULL;
    echo->mss = offer->mss;
    echo->wscale = offer->wscale;
    echo->sack = offer->sack;
    report(flow, REPORT_FULL, echo, iss, ns, NOW);
    return DROP;
}

// The cookie is good, but the kernel holds its 4-tuple. Repeated segments of the connection's own aside, the client has moved on, and user
// space is told so where that is proof enough.
static __always_inline void on_held(struct bpf_sock *sk, struct tcp_sock *tp, const struct flow *flow, const struct options *options,
                                    __u32 iss, __u64 ns, struct counters *here)
{
    if (tp && is_own(tp, flow, iss))
        return;
    bool gives_way = sk->state == BPF_TCP_TIME_WAIT ? is_newer(bpf_skc_to_tcp_timewait_sock(sk), flow, options)
                                                    // What lives is destroyed on the strength of form A alone: see `Listen::standing`.
                                                    : tp && options->timestamps;
    if (gives_way)
        report(flow, REPORT_HELD, options, iss, ns, NOW);
    else
        count(here, TUPLE_BUSY);
}

// Handshakes that may be completed in one batch.
#define BATCH_MAX 64

// Whether all handshakes of a batch find room in the accept queue. Where they may not, a segment that follows one has to prove itself: without
// its socket it would be met by a reset.
static __always_inline bool has_room(const struct sock *listening)
{
    return listening->sk_ack_backlog + BATCH_MAX <= listening->sk_max_ack_backlog;
}

// By so many units of the cookies' clock the exact clock may be ahead of that of jiffies: by two jiffies, at 100 Hz.
#define AHEAD_UNITS 3

// Counts how long a handshake took of which nobody keeps an entry, by the clock in its cookie. The steps are the buckets of the histogram as
// far as that clock can tell them apart.
static __always_inline void note_time(struct counters *here, const struct flow *flow, const struct options *options)
{
    if (!options->timestamps)
        return; // A cookie of form B has no clock.
    // By the clock of jiffies, as under pressure cookies are made. One from before that was made by the exact clock, which is ahead of it.
    __u32 units = (clock_at(flow->ns) - options->tsecr) & CLOCK_MASK;
    if (units > CLOCK_MASK - AHEAD_UNITS)
        units = 0;
    __u32 step = (units >= 1) + (units >= 2) + (units >= 3) + (units >= 6) + (units >= 12) + (units >= 30) + (units >= 120);
    here->count[TOOK + step]++;
    here->count[TOOK_UNITS] += units;
}

// The connection is the kernel's. User space is told if it may keep an entry of the handshake, and else the time that it took is counted.
static __always_inline void note_accepted(const struct listener *listener, struct counters *here, const struct flow *flow,
                                          const struct options *options, __u32 iss, __u64 ns)
{
    count(here, COOKIES_VALID);
    if (listener->reports || listener->has_entries) {
        struct options ours = {.timestamps = options->timestamps, .tsval = options->tsecr};
        if (report(flow, REPORT_ACCEPTED, &ours, iss, ns, later()))
            return;
    }
    note_time(here, flow, options);
}

// The cookie is good. Gives the segment to the listening socket as one that ends a handshake. A function of its own, so that it is
// verified once; therefore it looks up again what the caller knows.
__noinline int accept(struct __sk_buff *skb, const struct flow *flow, struct options *options, __u32 iss)
{
    if (!flow || !options)
        return PASS;
    __u32 index = flow->listener;
    struct listener *listener = bpf_map_lookup_elem(&listeners, &index);
    struct counters *here = bpf_map_lookup_elem(&counters, &index);
    if (!listener || !here)
        return PASS;
    struct bpf_sock_tuple tuple = {};
    __u32 len = tuple_of(flow, &tuple);
    struct remembered offer = remember(flow->family, iss, options);
    __u64 ns = bpf_ktime_get_boot_ns();
    struct bpf_sock *sk = bpf_skc_lookup_tcp(skb, &tuple, len, BPF_F_CURRENT_NETNS, 0);
    if (!sk) {
        count(here, NO_LISTENER);
        return listener->state == SILENT || listener->outlives ? keep_waiting(flow, options, &offer, iss, ns) : PASS;
    }
    enum verdict verdict = PASS;
    struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
    if (sk->state != BPF_TCP_LISTEN) {
        on_held(sk, tp, flow, options, iss, ns, here);
    } else if (listener->state == HANDS_ON) {
        verdict = keep_waiting(flow, options, &offer, iss, ns);
    } else if (tp && ((struct sock *)tp)->sk_ack_backlog > ((struct sock *)tp)->sk_max_ack_backlog) {
        count(here, ACCEPT_QUEUE_FULL);
        verdict = keep_waiting(flow, options, &offer, iss, ns);
    } else if (tp) {
        struct req_attrs attrs = attributes(options, &offer, listener->window_scale, ns);
        if (has_room((struct sock *)tp))
            verdict = COMPLETED;
        if (assign_reqsk(skb, (struct bpf_sock *)tp, &attrs)) {
            verdict = PASS;
            count(here, ASSIGN_REFUSED);
        } else {
            note_accepted(listener, here, flow, options, iss, ns);
        }
    }
    bpf_sk_release(sk);
    return verdict;
}

static __always_inline enum verdict judge_ack(struct __sk_buff *skb, const struct flow *flow, const struct door *door, __u32 iss,
                                              struct options *options)
{
    enum counter outcome = check_cookie(flow, door, iss, options);
    if (outcome != COOKIES_VALID)
        return on_unknown(skb, flow, door, iss, outcome);
    enum verdict verdict = accept(skb, flow, options, iss);
    if (verdict != COMPLETED)
        return verdict;
    struct mark mark = mark_of(flow);
    note_completed(&mark);
    forget_begun(flow, iss);
    return PASS;
}
