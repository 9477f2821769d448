// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//
// Puts the same frame back before each run, because a program under BPF_PROG_TEST_RUN finds what it made of it the last time;
// then goes on to the program to be measured, or to one that does nothing. `build`, beside it, compiles it.

#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>

#include <bpf/bpf_helpers.h>

#define TCX_DROP 2
#define WORDS 13

// Set before the programs are loaded.
const volatile __u32 frame_len = 54;
const volatile bool vary = false;

// Written in the pieces in which it is read later: a load that spans two stores would wait for both.
struct frame {
    __u64 link_head;
    __u32 link_middle;
    __u16 link_type;
    __u16 reserved;
    __u64 words[WORDS];
    // By what a random number of 16 bits is shifted into the word: 0, or a power of two.
    __u64 factors[WORDS];
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct frame);
} frame SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} next_xdp SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} next_tc SEC(".maps");

static __u32 runs;

static __always_inline bool restore(void *data, void *end)
{
    const __u32 zero = 0;
    const __u32 len = frame_len;
    const bool varies = vary;
    const struct frame *from = bpf_map_lookup_elem(&frame, &zero);
    if (!from || data + len > end)
        return false;
    __u64 number = varies ? (__u32)(++runs * 0x9e3779b1) >> 16 : 0;
    *(__u64 *)data = from->link_head;
    *(__u32 *)(data + 8) = from->link_middle;
    *(__u16 *)(data + 12) = from->link_type;
    void *to = data + ETH_HLEN;
#pragma unroll
    for (__u32 i = 0; i < WORDS; i++) {
        __u32 behind = ETH_HLEN + 8 * (i + 1);
        __u64 word = from->words[i];
        if (varies)
            word ^= number * from->factors[i];
        if (behind <= len)
            *(__u64 *)(to + 8 * i) = word;
        else if (behind - 4 <= len)
            *(__u32 *)(to + 8 * i) = word;
    }
    return true;
}

static __always_inline void *at(__u32 pointer)
{
    return (void *)(long)pointer;
}

SEC("xdp")
int replay_xdp(struct xdp_md *ctx)
{
    if (restore(at(ctx->data), at(ctx->data_end)))
        bpf_tail_call_static(ctx, &next_xdp, 0);
    return XDP_ABORTED;
}

SEC("xdp")
int nothing_xdp(struct xdp_md *ctx)
{
    (void)ctx;
    return XDP_DROP;
}

SEC("xdp")
int pass_xdp(struct xdp_md *ctx)
{
    (void)ctx;
    return XDP_PASS;
}

// The least that an answer takes.
SEC("xdp")
int reflect_xdp(struct xdp_md *ctx)
{
    __u16 *half = at(ctx->data);
    if (at(ctx->data) + ETH_HLEN > at(ctx->data_end))
        return XDP_ABORTED;
#pragma unroll
    for (__u32 i = 0; i < 3; i++) {
        __u16 dest = half[i];
        half[i] = half[i + 3];
        half[i + 3] = dest;
    }
    return XDP_TX;
}

SEC("classifier")
int replay_tc(struct __sk_buff *skb)
{
    if (restore(at(skb->data), at(skb->data_end)))
        bpf_tail_call_static(skb, &next_tc, 0);
    return 0;
}

SEC("classifier")
int nothing_tc(struct __sk_buff *skb)
{
    (void)skb;
    return TCX_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
