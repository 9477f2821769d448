// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//
// Headers, and the sums over them. What is not of the plainest kind (IPv4 options, extension headers, fragments) is not
// understood here and goes to the kernel.
#pragma once

#include "maps.h"

// Link layer, IP and TCP of the longest SYN: 14 or 18, 40, 60.
#define HEADERS_MAX 118

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

struct tcp {
    __be16 source, dest;
    __be32 seq, ack;
    __u8 offset; // Of the data, in words: the high four bits.
    __u8 flags;
    __be16 window;
    __sum16 check;
    __be16 urgent;
};

struct ipv4 {
    __u8 version_ihl, tos;
    __be16 len, id, fragment;
    __u8 ttl, protocol;
    __sum16 check;
    __be32 source, dest;
};

struct ipv6 {
    __be32 version_label;
    __be16 len;
    __u8 next, hops;
    __u64 source[2], dest[2];
};

enum hook { AT_XDP, AT_TC };

// What a program answers with, in the terms of both hooks.
enum verdict {
    PASS,
    DROP,
    TRANSMIT,
    TOO_SHORT, // At tc: more of the headers has to be in one piece.
    COMPLETED, // A handshake was: passes.
    TURN_AWAY, // A RST is to be written and transmitted.
};

// At tc an answer is made here and stored into the packet at the end. A program that writes to packets by itself has every packet copied
// first that somebody else holds as well: that is all that local senders send, and all of every connection's.
struct draft {
    __u32 len; // From the IP header on.
    __u8 padding[2];
    __u8 link[14];
    __u8 packet[40 + 60];
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct draft);
} drafts SEC(".maps");

static __always_inline struct draft *draft(void)
{
    const __u32 zero = 0;
    return bpf_map_lookup_elem(&drafts, &zero);
}

static __always_inline void *begin_of(void *ctx, enum hook hook)
{
    return (void *)(long)(hook == AT_XDP ? ((struct xdp_md *)ctx)->data : ((struct __sk_buff *)ctx)->data);
}

static __always_inline const void *end_of(void *ctx, enum hook hook)
{
    return (void *)(long)(hook == AT_XDP ? ((struct xdp_md *)ctx)->data_end : ((struct __sk_buff *)ctx)->data_end);
}

static __always_inline int load(void *ctx, enum hook hook, __u32 at, void *to, __u32 len)
{
    return hook == AT_XDP ? bpf_xdp_load_bytes(ctx, at, to, len) : bpf_skb_load_bytes(ctx, at, to, len);
}

static __always_inline __u64 add_words(__u64 sum, const void *words, __u32 count)
{
#pragma unroll
    for (__u32 i = 0; i < count; i++)
        sum += ((const __u32 *)words)[i];
    return sum;
}

// The ones' complement sum of 32-bit words, folded to 16 bits (RFC 1071).
static __always_inline __u16 fold(__u64 sum)
{
    // A half added to the other, with the carry, comes out in the upper half.
    sum += sum << 32 | sum >> 32;
    __u32 half = sum >> 32;
    half += half << 16 | half >> 16;
    return half >> 16;
}

// The rest of the pseudo-header besides the addresses.
static __always_inline __u32 pseudo_tail(__u32 tcp_len)
{
    return bpf_htons(tcp_len) + bpf_htons(IPPROTO_TCP);
}

enum sum_state {
    SUM_WRONG,
    SUM_RIGHT,
    SUM_UNFINISHED, // Left to a device: what stands there is the sum of the pseudo-header.
};

static __always_inline enum sum_state judge_sum(__u64 pseudo, __u64 segment, __sum16 check)
{
    if (fold(pseudo + segment) == 0xffff)
        return SUM_RIGHT;
    return fold(pseudo) == check ? SUM_UNFINISHED : SUM_WRONG;
}

// ---- Targets

static __always_inline const struct target *target_at(__u32 index, enum family family, const __u64 addr[2], __be16 port)
{
    const struct target *target = bpf_map_lookup_elem(&targets, &index);
    if (!target || target->family != family || target->port != port || target->addr[0] != addr[0])
        return NULL;
    return family == V6 && target->addr[1] != addr[1] ? NULL : target;
}

// Each target stands in one of two places.
static __always_inline const struct target *find_target(enum family family, const __u64 addr[2], __be16 port)
{
    __u64 key = addr[0] ^ (__u64)port << 40;
    if (family == V6)
        key = (addr[0] ^ port) + (addr[1] << 31 | addr[1] >> 33);
    __u64 hash = key * target_factors[0];
    hash = (hash ^ hash >> 32) * target_factors[1];
    const struct target *target = target_at(hash >> (64 - target_bits), family, addr, port);
    if (target)
        return target;
    __u32 other = hash >> (64 - 2 * target_bits) & ((1 << target_bits) - 1);
    return target_at(other, family, addr, port);
}
