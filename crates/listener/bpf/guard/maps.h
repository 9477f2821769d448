// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//
// What user space and the programs share. `src/io/bpf/layout.rs` writes and reads the same bytes.
#pragma once

#include "siphash.h"

#define LISTENERS_MAX 64
#define COUNTERS 40
#define TOOK_STEPS 8
#define EPOCH_SLOTS 4
#define KEY_SETS 2 // The second holds the keys from before the wall clock jumped.
#define MACS_MAX 8

// So long after user space was last here nobody reads reports; and so long after it the programs do no more: their keys are too old.
#define ALONE_NS 3000000000LL
#define LEASE_NS 60000000000LL

// Set before the programs are loaded.
const volatile __u32 target_bits = 6;       // The table of targets has 2^target_bits places.
const volatile __u64 target_factors[2] = {}; // Odd, random: they say where a target may stand.
const volatile __u64 budget_factors[2] = {}; // The same for the budgets.
const volatile __u64 ns_per_jiffy = 4000000;

enum family { FREE = 0, V4 = 4, V6 = 6 };

// One guarded address and port of this host. The state of the hash after them, for each key, is kept ready. With port 0: an address
// that nobody else can have.
struct target {
    __u64 addr[2]; // In network order; IPv4 in the first four bytes.
    __be16 port;
    __u16 mss;  // What we announce.
    __u8 family; // FREE: an empty place.
    __u8 listener;
    __u8 reserved[2];
    struct sip keyed[KEY_SETS * EPOCH_SLOTS];
};

enum state {
    SILENT,   // The kernel's listening socket does not stand yet: SYNs and handshakes' ends are dropped.
    ANSWERS,
    DRAINING, // SYNs are dropped; handshakes that were answered may complete.
    RESTING,  // The kernel takes no cookies: all is left to it.
    HANDS_ON, // SYNs are answered; handshakes' ends wait for the listening socket of the next process.
};

struct listener {
    __u8 state;
    __u8 reports;      // Calm: each SYN is told to user space, and one for a connection of the kernel's is left to it. Cleared here
                       // when user space is gone.
    __u8 window_scale;
    __u8 form_b_always;
    __u8 grants;       // Options that the kernel's settings allow: GRANT_*.
    __u8 looks_up;     // Segments of no connection are dropped here: they come in numbers.
    __u8 has_entries;  // User space keeps half-open connections: it wants to know what becomes of them. Set here, too.
    __u8 outlives;     // The programs stay when user space goes: handshakes' ends wait until it is back.
    __u32 replies_max;     // To one prefix in a period, per CPU.
    __u32 bad_cookies_max; // The same of bad cookies.
};

// Bits of `grants`.
#define GRANT_TIMESTAMPS 0
#define GRANT_SACK 1
#define GRANT_WSCALE 2

// What changes with time.
struct clockwork {
    __u32 current;                            // Slot of the epoch whose key makes cookies.
    __u8 accepted[KEY_SETS * EPOCH_SLOTS];    // Whether a cookie of that slot is accepted.
    __u32 second_set;                         // Whether the second set accepts anything.
    __u32 mac_count;                          // 0: the device has no addresses of its own.
    __u64 macs[MACS_MAX];                     // Link-layer addresses of this host, in the low six bytes.
    __u64 offset_ns;                          // From jiffies to the clock of user space.
    __u64 kept_ns;                            // When user space was last here.
};

// Counted per CPU; user space adds up.
enum counter {
    SYNS_RECEIVED,
    SYN_ACKS_SENT,
    COOKIES_SENT,
    COOKIES_VALID,
    COOKIES_EXPIRED,
    COOKIES_BAD_MAC,
    COOKIES_NOT_EXPECTED,
    COOKIES_OVER_BUDGET,
    REPLIES_OVER_BUDGET,
    ACCEPT_QUEUE_FULL,
    ASSIGN_REFUSED,
    TUPLE_BUSY, // Good cookies for the 4-tuple of another connection, which stays.
    REPORTS_LOST,
    NO_LISTENER,
    LEFT_TO_KERNEL,
    DROP_BAD_CHECKSUM,
    DROP_MARTIAN,
    DROP_LAND,
    DROP_PORT_ZERO,
    DROP_BAD_FLAGS,
    DROP_RESET,
    DROP_BAD_COOKIE,
    DROP_DRAINING,
    DROP_MALFORMED,
    DROP_NOT_UNDERSTOOD,
    DROP_UNKNOWN_FLOW,
    UNKNOWN_PASSED, // Segments that nobody looked up: nearly all of them are connections'.
    SAMPLED_BOGUS,  // Of those that were looked up, the ones of no connection.
    SYNS_DENIED,    // By the lists: dropped, or answered by RST.
    RESETS_SENT,
    DROP_DENIED,
    TOOK, // Handshakes without an entry, by how long they took: `note_time` has the steps.
    TOOK_UNITS = TOOK + TOOK_STEPS, // How long all of those took, in units of the cookies' clock.
};

struct counters {
    __u64 count[COUNTERS];
};

// Told to user space.
enum kind {
    REPORT_SYN,      // Answered; to be kept half-open.
    REPORT_ACCEPTED, // Its handshake is complete.
    REPORT_RST,
    REPORT_FULL,     // Its handshake is complete, but the accept queue is full.
    REPORT_HELD,     // A valid cookie for a 4-tuple on which the kernel holds another connection.
    REPORT_BOGUS,    // One of many segments of no connection.
};

struct report {
    __u8 kind;
    __u8 family;
    __u8 listener;
    __u8 wscale; // 15: none.
    __u8 sack;
    __u8 timestamps;
    __u16 mss;
    __u64 peer[2];
    __u64 local[2];
    __be16 peer_port;
    __be16 local_port;
    __u32 irs;
    __u32 iss;
    __u32 tsval; // The client's; of REPORT_ACCEPTED ours, which it sent back.
    __u64 ns;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 64); // Set before loading: 2^target_bits.
    __type(key, __u32);
    __type(value, struct target);
} targets SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, LISTENERS_MAX);
    __type(key, __u32);
    __type(value, struct listener);
} listeners SEC(".maps");

// Until when a cookie of form B of this listener can be outstanding. User space writes it once, at the start.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, LISTENERS_MAX);
    __type(key, __u32);
    __type(value, __u64);
} form_b_until SEC(".maps");

// So long after its handshake was kept waiting a client may still believe in a connection that it has not got.
#define WAITS_NS 60000000000ULL

// Until when clients of this listener may wait so. What they send behind the handshake's end is no cookie, and must not be refused. User space
// writes it once, at the start, where programs before these may have kept some waiting; from then on it is ours alone, lest orders that were on
// their way undo it.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, LISTENERS_MAX);
    __type(key, __u32);
    __type(value, __u64);
} waits_until SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct clockwork);
} clockwork SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, LISTENERS_MAX);
    __type(key, __u32);
    __type(value, struct counters);
} counters SEC(".maps");

#define REPORTS_LEN (1 << 20)

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, REPORTS_LEN);
} reports SEC(".maps");

static __always_inline void count(struct counters *counters, enum counter what)
{
    counters->count[what]++;
}
