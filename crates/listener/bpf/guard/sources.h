// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//
// Whose SYNs are answered: the operator's lists, by the longest prefix that has the source.
//
// Lists come and go whole: user space fills a trie that nobody looks at yet, and then puts it into its listener's place, which is one store of
// a pointer. What the kernel looks up in the old one meanwhile it finishes there; then the old one goes away by itself. The default for
// those whom no list names, and how the denied are told, stand in the trie as well, so that nothing has to change at the same moment.
#pragma once

#include "maps.h"

// What becomes of a source's SYN. User space writes these numbers.
enum standing {
    SERVED,
    DENIED,  // Nothing is said.
    REFUSED, // It is told by RST.
};

// Both families in one: IPv4 in its IPv6-mapped form.
struct source_key {
    __u32 len; // Of the prefix, in bits.
    __u32 addr[4];
};

// Empty for a listener without lists.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, LISTENERS_MAX);
    __type(key, __u32);
    __array(values, struct {
        __uint(type, BPF_MAP_TYPE_LPM_TRIE);
        __uint(map_flags, BPF_F_NO_PREALLOC);
        __uint(max_entries, 1); // Each that is put in has a bound of its own.
        __uint(key_size, sizeof(struct source_key)); // The compiler leaves a type out that only an inner map names.
        __uint(value_size, sizeof(__u32));
    });
} sources SEC(".maps");

// A function of its own, verified once, and for the sake of its callers' stacks: rarely are there lists.
__noinline int find_source(__u32 listener, __u32 family, __u64 first, __u64 second)
{
    struct source_key key = {.len = 128};
    void *lists = bpf_map_lookup_elem(&sources, &listener);
    if (!lists)
        return SERVED;
    if (family == V4) {
        key.addr[2] = bpf_htonl(0xffff);
        key.addr[3] = first;
    } else {
        key.addr[0] = first;
        key.addr[1] = first >> 32;
        key.addr[2] = second;
        key.addr[3] = second >> 32;
    }
    const __u32 *found = bpf_map_lookup_elem(lists, &key);
    return found ? *found : SERVED;
}

static __always_inline enum standing standing_of(__u32 listener, enum family family, const __u64 addr[2])
{
    if (!bpf_map_lookup_elem(&sources, &listener))
        return SERVED;
    return find_source(listener, family, addr[0], addr[1]);
}
