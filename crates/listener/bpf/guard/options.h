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

static __always_inline struct options no_options(void)
{
    return (struct options){.wscale = WSCALE_NONE};
}

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
            found->mss = bytes->at[at + 2] << 8 | bytes->at[at + 3];
        } else if (kind == 3 && size == 3 && at <= 37) {
            __u8 shift = bytes->at[at + 2];
            found->wscale = shift > WSCALE_MAX ? WSCALE_MAX : shift;
        } else if (kind == 4 && size == 2) {
            found->sack = true;
        } else if (kind == 8 && size == 10 && at <= 30) {
            const __u8 *value = bytes->at + at + 2;
            found->tsval = WORD(value[0], value[1], value[2], value[3]);
            found->tsecr = WORD(value[4], value[5], value[6], value[7]);
            found->timestamps = true;
        }
        at += size;
    }
    return 0;
}

// Walks the block byte by byte.
static __always_inline bool walk_block(const __u32 *words, __u32 count, const void *end, struct options *found)
{
    struct option_bytes bytes = {};
    for (int i = 0; i < OPTION_WORDS_MAX; i++) {
        if (i >= count)
            break;
        if ((void *)(words + i + 1) > end)
            return false;
        *(__u32 *)(bytes.at + 4 * i) = words[i];
    }
    *found = no_options();
    walk_options(&bytes, 4 * count, found);
    return true;
}

// Reads the block of `count` words, and adds them to the sum. False if it is not all there.
static __always_inline bool read_options(const __u32 *words, __u32 count, const void *end, struct options *found, __u64 *sum)
{
    bool ended = false, odd = false;
    int stamps = 0; // Words of a timestamps option still to come.
    *found = no_options();
#pragma unroll
    for (int i = 0; i < OPTION_WORDS_MAX; i++) {
        if (i >= count)
            break;
        if ((void *)(words + i + 1) > end)
            return false;
        *sum += words[i];
        __u32 word = bpf_ntohl(words[i]);
        if (ended)
            continue;
        if (stamps == 2) {
            found->tsval = word;
            stamps = 1;
        } else if (stamps == 1) {
            found->tsecr = word;
            found->timestamps = true;
            stamps = 0;
        } else if (word >> 16 == 0x0204) {
            found->mss = word;
        } else if (word == WORD(4, 2, 8, 10)) {
            found->sack = true;
            stamps = 2;
        } else if (word == WORD(1, 1, 8, 10)) {
            stamps = 2;
        } else if (word >> 8 == 0x010303) {
            found->wscale = (__u8)word > WSCALE_MAX ? WSCALE_MAX : (__u8)word;
        } else if (word == WORD(1, 1, 4, 2)) {
            found->sack = true;
        } else if (word == WORD(4, 2, 0, 0)) {
            found->sack = true;
            ended = true;
        } else if (word == 0) {
            ended = true;
        } else if (word != WORD(1, 1, 1, 1)) {
            odd = true;
        }
    }
    return odd || stamps ? walk_block(words, count, end, found) : true;
}
