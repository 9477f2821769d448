// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//
// SipHash-2-4 (Aumasson and Bernstein, 2012), from a state that has taken in a part of the input already.
#pragma once

#include "kernel.h"

struct sip {
    __u64 v0, v1, v2, v3;
};

static __always_inline __u64 rotl64(__u64 x, int by)
{
    return x << by | x >> (64 - by);
}

static __always_inline void sip_round(struct sip *s)
{
    s->v0 += s->v1;
    s->v2 += s->v3;
    s->v1 = rotl64(s->v1, 13) ^ s->v0;
    s->v3 = rotl64(s->v3, 16) ^ s->v2;
    s->v0 = rotl64(s->v0, 32) + s->v3;
    s->v2 += s->v1;
    s->v1 = rotl64(s->v1, 17) ^ s->v2;
    s->v3 = rotl64(s->v3, 21) ^ s->v0;
    s->v2 = rotl64(s->v2, 32);
}

static __always_inline void sip_absorb(struct sip *s, __u64 word)
{
    s->v3 ^= word;
    sip_round(s);
    sip_round(s);
    s->v0 ^= word;
}

// The last word has the length of the whole input, modulo 256, in its highest byte.
static __always_inline __u64 sip_finish(struct sip *s, __u64 last)
{
    sip_absorb(s, last);
    s->v2 ^= 0xff;
    sip_round(s);
    sip_round(s);
    sip_round(s);
    sip_round(s);
    return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}
