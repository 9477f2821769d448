// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//
// TCP options of SYNs and ACKs. Every system in use aligns them to words, in one of a few patterns; the rest is walked byte by
// byte.
#pragma once

#include "maps.h"

#define WSCALE_NONE 15
#define WSCALE_MAX 14
#define MSS_DEFAULT_V4 536
#define MSS_DEFAULT_V6 1220
#define OPTION_WORDS_MAX 10

// What the segment's options say.
struct options {
    __u32 tsval; // In host order.
    __u32 tsecr;
    __u16 mss; // 0: not there.
    __u8 wscale;
    bool sack;
    bool timestamps;
};

#define WORD(a, b, c, d) ((__u32)(a) << 24 | (b) << 16 | (c) << 8 | (d))

struct option_bytes {
    __u8 at[40];
};

// RFC 9293 §3.1, MUST-7: an option's length is respected; with one that cannot be, the rest is not looked at.
__noinline int walk_options(const struct option_bytes *bytes, __u32 len, struct options *found)
{
    if (!bytes || !found || len > sizeof(bytes->at))
        return 0;
    __u32 at = 0;
    for (int i = 0; i < 40; i++) {
        if (at >= len || at >= 40)
            break;
        __u8 kind = bytes->at[at];
        if (kind == 0)
            break;
        if (kind == 1) {
            at++;
            continue;
        }
        if (at + 1 >= len || at + 1 >= 40)
            break;
        __u8 size = bytes->at[at + 1];
        if (size < 2 || at + size > len || at + size > 40)
            break;
        if (kind == 2 && size == 4 && at <= 36) {
            if (!found->mss)
                found->mss = bytes->at[at + 2] << 8 | bytes->at[at + 3];
        } else if (kind == 3 && size == 3 && at <= 37) {
            __u8 shift = bytes->at[at + 2];
            if (found->wscale == WSCALE_NONE)
                found->wscale = shift > WSCALE_MAX ? WSCALE_MAX : shift;
        } else if (kind == 4 && size == 2) {
            found->sack = true;
        } else if (kind == 8 && size == 10 && at <= 30 && !found->timestamps) {
            const __u8 *value = bytes->at + at + 2;
            found->tsval = WORD(value[0], value[1], value[2], value[3]);
            found->tsecr = WORD(value[4], value[5], value[6], value[7]);
            found->timestamps = true;
        }
        at += size;
    }
    return 0;
}
