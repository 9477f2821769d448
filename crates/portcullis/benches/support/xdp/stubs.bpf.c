// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//
// For the other end of a veth pair, and for comparison. Built into stubs.o by
//   clang-19 -target bpf -mcpu=v3 -O2 -I/usr/include/$(uname -m)-linux-gnu -c stubs.bpf.c -o stubs.o

#include <linux/bpf.h>
#include <linux/if_ether.h>

#include <bpf/bpf_helpers.h>

// Without a program at its own end, a veth takes no frames that a program at the other end sends.
SEC("xdp/pass")
int pass(struct xdp_md *ctx)
{
    (void)ctx;
    return XDP_PASS;
}

// The ceiling: the least that an answer takes.
SEC("xdp/reflect")
int reflect(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data;
    struct ethhdr *link = data;
    if ((void *)(link + 1) > (void *)(long)ctx->data_end)
        return XDP_PASS;
    __u16 *half = data;
    for (int i = 0; i < 3; i++) {
        __u16 dest = half[i];
        half[i] = half[i + 3];
        half[i + 3] = dest;
    }
    return XDP_TX;
}

char _license[] SEC("license") = "Dual MIT/GPL";
