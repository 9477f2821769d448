// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//
// Counts the steps that the kernel's sockets of guarded addresses take from one TCP state to the next.
//
// The kernel runs it whenever any socket of the host changes its state, so what is not ours leaves early: first by the step, then by the
// port, at last by the address and the network namespace.

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define relocated __attribute__((preserve_access_index))

// Keeps the compiler from using what it knows of a value, and the verifier's knowledge with the register that it is in.
#define FORGET(value) asm volatile("" : "+r"(value))

#define AF_INET 2
#define AF_INET6 10

// States, as in `include/net/tcp_states.h`.
#define TCP_SYN_RECV 3
#define TCP_FIN_WAIT2 5
#define TCP_TIME_WAIT 6
#define TCP_CLOSE 7
#define TCP_LISTEN 10
#define TCP_CLOSING 11
#define STATES 16

// Flags of a socket, as numbers of bits in `enum sock_flags`: nobody has it open any more; its peer has sent FIN.
#define SOCK_DEAD 0
#define SOCK_DONE 1

#define SLOTS 64
#define STEPS 32

struct in6_addr {
    union {
        __u8 u6_addr8[16];
    } in6_u;
} relocated;

struct ns_common {
    __u32 inum;
} relocated;

struct net {
    struct ns_common ns;
} relocated;

typedef struct {
    struct net *net;
} relocated possible_net_t;

struct sock_common {
    __be32 skc_rcv_saddr;
    unsigned short skc_family;
    possible_net_t skc_net;
    struct in6_addr skc_v6_rcv_saddr;
    unsigned long skc_flags;
} relocated;

struct sock {
    struct sock_common __sk_common;
    int sk_err;
} relocated;

struct inet_sock {
    struct sock sk;
    __be16 inet_sport;
} relocated;

struct inet_connection_sock {
    struct inet_sock icsk_inet;
} relocated;

struct tcp_sock {
    struct inet_connection_sock inet_conn;
    __u32 snd_una;
    __u32 write_seq;
    int linger2;
    __u8 repair : 1;
} relocated;

// A guarded address. Those of IPv4 are mapped, as in ::ffff:192.0.2.1, and so is the wildcard of IPv4: ::ffff:0.0.0.0.
struct guard {
    __u8 addr[16];
    __u32 netns;
    __be16 port;
    __u16 zero;
};

// Whose it is, and whether the kernel does its handshakes: else who does them counts them.
struct owner {
    __u32 slot;
    __u32 counts_handshakes;
};

// A listener's counts, by the numbers of the steps. The first is not used.
struct counts {
    __u64 taken[STEPS];
};

// The numbers of the steps, from 1 to below STEPS; 0 for one that is not counted.
const volatile __u8 step_numbers[STATES * STATES] = {};

// Sixty-four ports, a bit each, that are guarded at some address in some network namespace.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 65536 / 64);
    __type(key, __u32);
    __type(value, __u64);
} ports SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct guard);
    __type(value, struct owner);
} guards SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, SLOTS);
    __type(key, __u32);
    __type(value, struct counts);
} counts SEC(".maps");

static __always_inline __u32 number_of(__u32 from, __u32 to)
{
    __u32 index = from * STATES + to;
    FORGET(index);
    return index < STATES * STATES ? step_numbers[index] : 0;
}

static __always_inline bool has_flag(const struct sock *sk, int bit)
{
    return sk->__sk_common.skc_flags >> bit & 1;
}

// Where a socket that the kernel gives up goes. TIME-WAIT has an entry of its own there, and the socket is closed when that is made.
// 0 for nowhere.
//
// See tcp_fin(), tcp_time_wait(), tcp_rcv_state_process() and tcp_close() in net/ipv4/tcp*.c: the first two come with the peer's FIN and its last
// ACK; a RST, a timeout and an abort leave the flag and the numbers as they are.
static __always_inline __u32 end_of(const struct tcp_sock *tp, __u32 from)
{
    const struct sock *sk = &tp->inet_conn.icsk_inet.sk;
    switch (from) {
    case TCP_FIN_WAIT2:
        // No socket is left in FIN-WAIT-2 with the peer's FIN.
        if (has_flag(sk, SOCK_DONE))
            return TCP_TIME_WAIT;
        // Nobody reads any more: an entry in FIN-WAIT-2 takes the place of the socket. A negative limit forbids that.
        if (has_flag(sk, SOCK_DEAD) && !sk->sk_err && tp->linger2 >= 0)
            return 0;
        return TCP_CLOSE;
    case TCP_CLOSING:
        // No socket is left in CLOSING with all acknowledged that it sent.
        return tp->snd_una == tp->write_seq ? TCP_TIME_WAIT : TCP_CLOSE;
    default:
        return TCP_CLOSE;
    }
}

static __always_inline bool is_guarded_somewhere(__be16 port)
{
    __u16 number = bpf_ntohs(port);
    __u32 index = number / 64;
    const __u64 *here = bpf_map_lookup_elem(&ports, &index);
    return here && *here >> number % 64 & 1;
}

// Who guards the socket's address: the listener that names it, else the one with the wildcard of its family.
static __always_inline const struct owner *owner_of(const struct inet_sock *inet)
{
    const struct sock_common *common = &inet->sk.__sk_common;
    struct guard guard = {.netns = common->skc_net.net->ns.inum, .port = inet->inet_sport};
    struct guard any = guard;
    __u64 *addr = (__u64 *)guard.addr;
    if (common->skc_family == AF_INET6) {
        __builtin_memcpy(addr, common->skc_v6_rcv_saddr.in6_u.u6_addr8, sizeof(guard.addr));
    } else if (common->skc_family == AF_INET) {
        __builtin_memcpy(guard.addr + 12, &common->skc_rcv_saddr, 4);
        guard.addr[10] = guard.addr[11] = 0xff;
    } else {
        return NULL;
    }
    const struct owner *owner = bpf_map_lookup_elem(&guards, &guard);
    if (owner)
        return owner;
    bool v4 = addr[0] == 0 && *(__u32 *)(guard.addr + 8) == bpf_htonl(0xffff);
    if (v4)
        any.addr[10] = any.addr[11] = 0xff;
    return bpf_map_lookup_elem(&guards, &any);
}

// The arguments of the tracepoint.
struct change {
    const struct sock *sk;
    __u64 from;
    __u64 to;
};

SEC("tp_btf/inet_sock_set_state")
int count_step(const struct change *change)
{
    __u32 from = change->from, to = change->to;
    if (!number_of(from, to))
        return 0;
    const struct tcp_sock *tp = bpf_skc_to_tcp_sock((void *)change->sk);
    if (!tp || !is_guarded_somewhere(tp->inet_conn.icsk_inet.inet_sport))
        return 0;
    const struct owner *owner = owner_of(&tp->inet_conn.icsk_inet);
    if (!owner || ((from == TCP_LISTEN || from == TCP_SYN_RECV) && !owner->counts_handshakes))
        return 0;
    // What vanishes while it is being made was no connection for anybody.
    if (BPF_CORE_READ_BITFIELD(tp, repair))
        return 0;
    if (to == TCP_CLOSE)
        to = end_of(tp, from);
    __u32 number = number_of(from, to);
    __u32 slot = owner->slot;
    struct counts *ours = bpf_map_lookup_elem(&counts, &slot);
    // Nobody else writes there: the counts are this core's, and the kernel does not run the program inside itself.
    if (ours && number)
        ours->taken[number & (STEPS - 1)]++;
    return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
