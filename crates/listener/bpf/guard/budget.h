// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//
// Budgets per source prefix, /24 or /64, in fixed memory: a keyed hash picks a cell for the prefix, another one for the address.
// A prefix that has used up its budget gets as much again for addresses of which little was seen. Cells are not cleared: each
// knows the period it counts for.
#pragma once

#include "maps.h"

#define BUDGET_BITS 12
#define QUIET_MAX 16
#define PERIOD_SHIFT 27 // 134 ms: a division costs more than all the rest.

struct cell {
    __u16 period;
    __u16 spent;
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 2 << BUDGET_BITS);
    __type(key, __u32);
    __type(value, struct cell);
} reply_budget SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 2 << BUDGET_BITS);
    __type(key, __u32);
    __type(value, struct cell);
} cookie_budget SEC(".maps");

struct source {
    __u64 prefix;
    __u64 host;
};

static __always_inline struct source source_v4(__be32 addr)
{
    __u32 number = bpf_ntohl(addr);
    return (struct source){.prefix = number >> 8, .host = number & 0xff};
}

static __always_inline struct source source_v6(const __u64 addr[2])
{
    return (struct source){.prefix = addr[0], .host = addr[1]};
}

static __always_inline __u16 period_of(__u64 ns)
{
    return ns >> PERIOD_SHIFT;
}

static __always_inline __u32 spent_in(const struct cell *cell, __u16 period)
{
    return cell->period == period ? cell->spent : 0;
}

// Takes one event out of the budget, or with `take` false only looks; `false` when there is none left.
static __always_inline bool has_budget(void *map, struct source source, __u32 max, __u16 period, bool take)
{
    __u64 hash = source.prefix * budget_factors[0];
    __u32 prefix_cell = hash >> (64 - BUDGET_BITS);
    __u32 addr_cell = (1 << BUDGET_BITS) | (hash + source.host * budget_factors[1]) >> (64 - BUDGET_BITS);
    struct cell *prefix = bpf_map_lookup_elem(map, &prefix_cell);
    struct cell *addr = bpf_map_lookup_elem(map, &addr_cell);
    if (!prefix || !addr)
        return false;
    __u32 spent = spent_in(prefix, period);
    __u32 seen = spent_in(addr, period);
    if (take)
        seen++;
    bool allowed = spent < max || (seen <= QUIET_MAX && spent < 2 * max);
    if (take) {
        *addr = (struct cell){.period = period, .spent = seen > 0xffff ? 0xffff : seen};
        *prefix = (struct cell){.period = period, .spent = spent + allowed};
    }
    return allowed;
}
