// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//
// Makes frames from templates and sends them out of a device, under BPF_PROG_RUN with live frames. `src/flood/template.rs` has the same
// words: a frame is a function of the key and its number, and both must make the same of it. `crates/listener/bpf/build` compiles it.

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define WORDS 16
#define TEMPLATES 64

// Set before the programs are loaded.
const volatile __u64 key = 0;
const volatile __u64 first = 0;
const volatile __u64 stride = 1;
const volatile __u32 template_count = 1;
// The length of the longest frame, and of what the run starts with: 2 more than a multiple of 4.
const volatile __u32 frame_max = 74;
const volatile __u32 device = 0;
// At most so many at once, however late they are.
const volatile __u64 burst = 64;

struct template {
    // The frame, with zeros in what varies. Little-endian words, as the processors have them.
    __u64 words[WORDS];
    // Where random bits go.
    __u64 masks[WORDS];
    // Of what does not vary, not folded.
    __u64 ip_sum;
    __u64 tcp_sum;
    // How much of the source address and port varies.
    __u64 host_bits;
    __u64 port_bits;
    __u64 len;
    __u64 v6;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, TEMPLATES);
    __type(key, __u32);
    __type(value, struct template);
} templates SEC(".maps");

struct state {
    // Frames made.
    __u64 made;
    // Of these, how many the device took.
    __u64 taken;
    // Frames known to be due.
    __u64 allowed;
    // When how many were due, and how many more are each nanosecond, in 2^-32.
    __u64 since_ns;
    __u64 due_then;
    __u64 rate;
    // Who makes them.
    __u64 task;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct state);
} state SEC(".maps");

static __always_inline __u64 mix(__u64 x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

static __always_inline __u64 halves(__u64 x)
{
    return (x & 0xffffffff) + (x >> 32);
}

static __always_inline __u64 finish(__u64 sum)
{
    sum = halves(sum);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return ~sum & 0xffff;
}

// Goes through all sources before any comes again.
static __always_inline __u64 source(const struct template *from, __u64 number)
{
    __u64 bits = from->host_bits + from->port_bits & 63;
    __u64 mask = (1ull << bits) - 1;
    __u64 x = number + key & mask;
    x = x * 0x9e3779b97f4a7c15 & mask;
    x ^= x >> bits / 2;
    x = x * 0xd6e8feb86659fd93 & mask;
    return x ^ x >> bits / 2;
}

static __always_inline void compose(const struct template *from, __u64 number, __u64 *words)
{
    __u64 drawn = key + number * 0x9e3779b97f4a7c15;
    __u64 sum = from->tcp_sum;
#pragma unroll
    for (__u32 i = 0; i < WORDS; i++) {
        __u64 bits = from->masks[i];
        if (bits)
            bits &= mix(drawn + (i + 1) * 0xd1342543de82ef95);
        words[i] = from->words[i] | bits;
        sum += halves(bits);
    }
    __u64 who = source(from, number);
    __u64 port = __builtin_bswap16(who & (1ull << (from->port_bits & 63)) - 1);
    __u64 host = who >> (from->port_bits & 63);
    if (from->v6) {
        host = __builtin_bswap64(host) >> 16;
        words[4] |= host;
        words[6] |= port << 48;
        words[8] |= finish(sum + halves(host) + port) << 48;
    } else {
        host = __builtin_bswap32(host);
        words[3] |= host << 16 | finish(from->ip_sum + host);
        words[4] |= port << 16;
        words[6] |= finish(sum + host + port) << 16;
    }
}

static __always_inline void put(void *data, const __u64 *words)
{
    const __u32 len = frame_max;
#pragma unroll
    for (__u32 i = 0; i < WORDS; i++) {
        __u32 at = 8 * i;
        if (at + 8 <= len) {
            *(__u64 *)(data + at) = words[i];
        } else if (at + 6 <= len) {
            *(__u32 *)(data + at) = words[i];
            *(__u16 *)(data + at + 4) = words[i] >> 32;
        } else if (at + 2 <= len) {
            *(__u16 *)(data + at) = words[i];
        }
    }
}

// Whether the next frame is due. The clock is read only when that is not known.
static __always_inline int is_due(struct state *now)
{
    if (now->made < now->allowed)
        return 1;
    __u64 clock = bpf_ktime_get_ns();
    // This clock may be a little behind the one that was read before.
    __u64 passed = clock > now->since_ns ? clock - now->since_ns : 0;
    now->allowed = now->due_then + (passed * now->rate >> 32);
    if (now->rate && now->allowed > now->made + burst) {
        // Somebody else had the core. No link delivers all that is late at once: user space lets it come a little faster.
        now->allowed = now->made + burst;
        now->due_then = now->allowed;
        now->since_ns = clock;
    }
    return now->made < now->allowed;
}

SEC("xdp")
int flood(struct xdp_md *ctx)
{
    const __u32 zero = 0;
    struct state *now = bpf_map_lookup_elem(&state, &zero);
    if (!now || !is_due(now))
        return XDP_DROP;
    __u64 number = first + now->made * stride;
    __u32 which = number % template_count;
    const struct template *from = bpf_map_lookup_elem(&templates, &which);
    void *data = (void *)(long)ctx->data;
    const __u32 max = frame_max;
    if (!from || data + max > (void *)(long)ctx->data_end)
        return XDP_ABORTED;
    __u64 words[WORDS];
    compose(from, number, words);
    put(data, words);
    if (from->len < max && bpf_xdp_adjust_tail(ctx, (int)from->len - (int)max))
        return XDP_ABORTED;
    now->made++;
    now->task = bpf_get_current_task();
    return bpf_redirect(device, 0);
}

// After the fact, and in the same task, the kernel tells how many of some frames a device took. Otherwise nobody would know.
SEC("raw_tracepoint")
int taken(struct bpf_raw_tracepoint_args *ctx)
{
    const __u32 zero = 0;
    struct state *now = bpf_map_lookup_elem(&state, &zero);
    if (now && now->task == bpf_get_current_task())
        now->taken += (__u32)ctx->args[2];
    return 0;
}

// The address of a host that does not exist, as six bytes in the order of the wire; 0: none.
const volatile __u64 nobody = 0;

// For the end of a cable at which answers come in that a program made in the driver: the kernel wants a program there too. Those to
// nobody end here, lest carrying them up be what the flood's side is busy with.
SEC("xdp")
int pass(struct xdp_md *ctx)
{
    const __u16 *half = (void *)(long)ctx->data;
    if ((void *)(half + 3) > (void *)(long)ctx->data_end)
        return XDP_PASS;
    __u64 dest = half[0] | (__u64)half[1] << 16 | (__u64)half[2] << 32;
    return nobody && dest == nobody ? XDP_DROP : XDP_PASS;
}

// Makes the shortest of answers out of all that comes, for tests.
SEC("xdp")
int bounce(struct xdp_md *ctx)
{
    (void)ctx;
    return XDP_TX;
}

// For the other end of a cable, where only the flood itself is of interest.
SEC("xdp")
int sink(struct xdp_md *ctx)
{
    (void)ctx;
    return XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
