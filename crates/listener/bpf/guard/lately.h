// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//
// Flows for which the kernel was lately seen to hold a connection, or was just given a handshake to make one of: their segments pass
// without a hash. In fixed memory; a place knows by which flow it was taken, and when. Nothing that a packet says gets in here, only what a
// look-up or a cookie proved; a SYN takes it out.
#pragma once

#include "syn.h"

#define LATELY_BITS 12
#define LATELY_PERIODS 7 // Just under a second.

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1 << LATELY_BITS);
    __type(key, __u32);
    __type(value, __u64);
} lately SEC(".maps");

// Flows whose SYN was answered while calm, and that have not become connections: in fixed memory, of the same form, with the ISN of the
// answer in it. Another number acknowledges something that was never sent, and is refused (RFC 9293 §3.10.7.4).
#define BEGUN_PERIODS 224 // 30 s: a client sends its first data again for longer, but a half-open connection is given up by then.

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1 << LATELY_BITS);
    __type(key, __u32);
    __type(value, __u64);
} begun SEC(".maps");

// A flow's place, and what stands there if it is the flow's: 48 bits of a secret hash, whose upper ones choose the place, and the period.
struct mark {
    __u64 *place;
    __u64 value;
};

static __always_inline struct mark mark_of(const struct flow *flow)
{
    __u64 ports = (__u64)flow->peer.port << 16 | flow->local_port;
    __u64 hash = (flow->peer.addr[0] ^ ports << 32) * budget_factors[0];
    hash = (hash ^ hash >> 29 ^ flow->local[0]) * budget_factors[1];
    if (flow->family == V6)
        hash = (hash ^ hash >> 31 ^ flow->peer.addr[1] ^ (flow->local[1] << 1 | flow->local[1] >> 63)) * budget_factors[0];
    hash ^= hash >> 33;
    __u32 index = hash >> (64 - LATELY_BITS);
    return (struct mark){
        .place = bpf_map_lookup_elem(&lately, &index),
        .value = (hash & ~0xffffULL) | period_of(flow->ns),
    };
}

static __always_inline bool was_lately_held(const struct mark *mark)
{
    if (!mark->place)
        return false;
    __u64 found = *mark->place;
    return (found ^ mark->value) < 0x10000 && (__u16)(mark->value - found) <= LATELY_PERIODS;
}

static __always_inline void note_held(const struct mark *mark)
{
    if (mark->place)
        *mark->place = mark->value;
}

// A handshake was completed this moment. The kernel takes packets in by batches, and shows us all of one before it looks at the first:
// what the client has sent right behind belongs to a socket that is yet to be made. It is, by the time such a segment is looked at; one with
// a cookie of its own would be refused by it, and come again after a timeout. Good for an eighth of a second to a quarter.
static __always_inline void note_completed(const struct mark *mark)
{
    if (mark->place)
        *mark->place = (mark->value & ~0xffffULL) | (__u16)(mark->value - (LATELY_PERIODS - 1));
}

// A handshake begins.
static __always_inline void forget_held(const struct mark *mark)
{
    if (mark->place && (*mark->place ^ mark->value) < 0x10000)
        *mark->place = 0;
}

static __always_inline __u64 begun_value(const struct mark *mark, __u32 iss)
{
    return mark->value ^ (__u64)iss << 16;
}

static __always_inline __u64 *place_begun(const struct mark *mark)
{
    __u32 index = mark->value >> (64 - LATELY_BITS);
    return bpf_map_lookup_elem(&begun, &index);
}

// The place of a flow whose handshake has begun and is not known to be complete.
static __always_inline __u64 *find_begun(const struct mark *mark, __u32 iss)
{
    __u64 *place = place_begun(mark);
    if (!place || (*place ^ begun_value(mark, iss)) >= 0x10000 || (__u16)(mark->value - *place) > BEGUN_PERIODS)
        return 0;
    return place;
}

// Functions of their own, since they are rarely called, for the sake of their callers' stacks.
static __noinline void note_begun(const struct flow *flow, __u32 iss)
{
    struct mark mark = mark_of(flow);
    __u64 *place = place_begun(&mark);
    if (place)
        *place = begun_value(&mark, iss);
}

static __noinline void forget_begun(const struct flow *flow, __u32 iss)
{
    struct mark mark = mark_of(flow);
    __u64 *place = find_begun(&mark, iss);
    if (place)
        *place = 0;
}
