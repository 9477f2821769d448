// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//
// What the programs take from the kernel: helpers, and the few types whose layout the loader finds out by BTF.
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// Linux 6.6; not yet in the headers of Debian 12.
#ifndef TCX_NEXT
#define TCX_NEXT -1
#define TCX_DROP 2
#endif

#define relocated __attribute__((preserve_access_index))

// `struct sock`: the accept queue of a listening socket.
struct sock {
    __u32 sk_ack_backlog;
    __u32 sk_max_ack_backlog;
} relocated;

// `struct tcp_sock`: where a connection stands, and how far it has come.
struct tcp_sock {
    __u32 rcv_nxt;
    __u32 snd_una;
    __u64 bytes_received;
    __u64 bytes_acked;
} relocated;

// `struct sock_common`, with which every socket begins: of one in TIME-WAIT the next byte that it would have taken.
struct sock_common {
    __u32 skc_tw_rcv_nxt;
} relocated;

// `struct tcp_timewait_sock`: the last timestamp that the connection had from its peer; 0 if it had none.
struct tcp_timewait_sock {
    __u32 tw_ts_recent;
} relocated;

// What a validated cookie says of a connection (Linux 6.9, `struct bpf_tcp_req_attrs`).
struct req_attrs {
    __u32 rcv_tsval;
    __u32 rcv_tsecr;
    __u16 mss;
    __u8 rcv_wscale;
    __u8 snd_wscale;
    __u8 ecn_ok;
    __u8 wscale_ok;
    __u8 sack_ok;
    __u8 tstamp_ok;
    __u8 usec_ts_ok;
    __u8 reserved[3];
};

// Keeps the compiler from using what it knows of a value, and the verifier's knowledge with the register that it is in.
#define FORGET(value) asm volatile("" : "+r"(value))

// Calls the kernel function `bpf_sk_assign_tcp_reqsk`: one instruction, whose number the loader fills in for the marker.
static __always_inline int assign_reqsk(struct __sk_buff *skb, struct bpf_sock *sk, struct req_attrs *attrs)
{
    register __u64 r0 asm("r0");
    register __u64 r1 asm("r1") = (__u64)skb;
    register __u64 r2 asm("r2") = (__u64)sk;
    register __u64 r3 asm("r3") = (__u64)attrs;
    register __u64 r4 asm("r4") = sizeof(*attrs);
    asm volatile(".byte 0x85, 0x20, 0, 0; .long 0x7fc0de01"
                 : "=r"(r0), "+r"(r1), "+r"(r2), "+r"(r3), "+r"(r4)
                 :
                 : "r5", "memory");
    return (int)r0;
}
