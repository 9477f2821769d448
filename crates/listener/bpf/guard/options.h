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
    // Of the walk: its place, and its end. Here the verifier forgets what it knows of them, and need not look at every way through
    // a block of every length.
    __u8 at;
    __u8 len; // Of the block, in bytes.
};

static __always_inline struct options no_options(void)
{
    return (struct options){.wscale = WSCALE_NONE};
}

#define WORD(a, b, c, d) ((__u32)(a) << 24 | (b) << 16 | (c) << 8 | (d))

// A block of options, with room behind it so that no masked index lies outside.
#define MASK 63
struct block {
    union {
        __u8 bytes[MASK + 1];
        __u32 words[(MASK + 1) / 4];
    };
};

// RFC 9293 §3.1, MUST-7: an option's length is respected; with one that cannot be, the rest is not looked at. A known option of
// a wrong length is as good as unknown.
static __always_inline void walk_options(const struct block *block, struct options *found)
{
    const __u8 *bytes = block->bytes;
    for (__u32 i = 0; i < 40; i++) {
        __u32 at = found->at & MASK;
        __u32 len = found->len;
        if (at >= len || bytes[at] == 0)
            break;
        __u8 kind = bytes[at];
        __u8 size = kind == 1 ? 1 : bytes[(at + 1) & MASK];
        if ((kind != 1 && size < 2) || at + size > len)
            break;
        __u8 a = bytes[(at + 2) & MASK], b = bytes[(at + 3) & MASK];
        if (kind == 2 && size == 4) {
            found->mss = a << 8 | b;
        } else if (kind == 3 && size == 3) {
            found->wscale = a > WSCALE_MAX ? WSCALE_MAX : a;
        } else if (kind == 4 && size == 2) {
            found->sack = true;
        } else if (kind == 8 && size == 10) {
            found->tsval = WORD(a, b, bytes[(at + 4) & MASK], bytes[(at + 5) & MASK]);
            found->tsecr = WORD(bytes[(at + 6) & MASK], bytes[(at + 7) & MASK], bytes[(at + 8) & MASK], bytes[(at + 9) & MASK]);
            found->timestamps = true;
        }
        found->at = at + size;
    }
}

// Reads a block by its words; false if it is not laid out so.
static __always_inline bool read_words(const struct block *block, __u32 count, struct options *found)
{
    for (__u32 i = 0; i < OPTION_WORDS_MAX; i++) {
        if (i >= count)
            break;
        __u32 word = bpf_ntohl(block->words[i & 15]);
        if (word >> 16 == 0x0204) {
            found->mss = word;
        } else if (word == WORD(4, 2, 8, 10) || word == WORD(1, 1, 8, 10)) {
            if (i + 2 >= count)
                return false;
            found->sack |= word >> 24 == 4;
            found->tsval = bpf_ntohl(block->words[(i + 1) & 15]);
            found->tsecr = bpf_ntohl(block->words[(i + 2) & 15]);
            found->timestamps = true;
            i += 2;
        } else if (word >> 8 == 0x010303) {
            found->wscale = (__u8)word > WSCALE_MAX ? WSCALE_MAX : (__u8)word;
        } else if (word == WORD(1, 1, 4, 2)) {
            found->sack = true;
        } else if (word == WORD(4, 2, 0, 0)) {
            found->sack = true;
            break;
        } else if (word != WORD(1, 1, 1, 1)) {
            return false;
        }
    }
    return true;
}

// The options of a block of `count` words. A function of its own, so that it is verified once.
__noinline int parse_options(const struct block *block, __u32 count, struct options *found)
{
    if (!block || !found || count > OPTION_WORDS_MAX)
        return 0;
    *found = no_options();
    found->len = 4 * count;
    if (!read_words(block, count, found)) {
        __u8 len = found->len;
        *found = no_options();
        found->len = len;
        walk_options(block, found);
    }
    return 0;
}

// Words of common layouts, as they lie in the packet.
#define IS_MSS(word) ((__u16)(word) == bpf_htons(0x0204))
#define IS_WSCALE(word) (((word) & bpf_htonl(0xffffff00)) == bpf_htonl(0x01030300))
#define IS_SACK(word) ((word) == bpf_htonl(WORD(1, 1, 4, 2)))
#define IS_SACK_END(word) ((word) == bpf_htonl(WORD(4, 2, 0, 0)))
#define IS_SACK_STAMPS(word) ((word) == bpf_htonl(WORD(4, 2, 8, 10)))
#define IS_STAMPS(word) ((word) == bpf_htonl(WORD(1, 1, 8, 10)))

static __always_inline void take_mss(struct options *found, __u32 word)
{
    found->mss = bpf_ntohs(word >> 16);
}

static __always_inline void take_wscale(struct options *found, __u32 word)
{
    __u8 shift = word >> 24;
    found->wscale = shift > WSCALE_MAX ? WSCALE_MAX : shift;
}

static __always_inline void take_stamps(struct options *found, const __u32 *words)
{
    found->tsval = bpf_ntohl(words[0]);
    found->tsecr = bpf_ntohl(words[1]);
    found->timestamps = true;
}

// The blocks of Windows, and of Linux without timestamps.
static __always_inline bool read_three(const __u32 *words, struct options *found)
{
    bool linux = IS_SACK(words[1]) && IS_WSCALE(words[2]);
    bool windows = IS_WSCALE(words[1]) && IS_SACK(words[2]);
    if (!IS_MSS(words[0]) || !(linux || windows))
        return false;
    take_mss(found, words[0]);
    take_wscale(found, linux ? words[2] : words[1]);
    found->sack = true;
    return true;
}

// Of Linux and of FreeBSD.
static __always_inline bool read_five(const __u32 *words, struct options *found)
{
    bool linux = IS_SACK_STAMPS(words[1]) && IS_WSCALE(words[4]);
    bool freebsd = IS_WSCALE(words[1]) && IS_SACK_STAMPS(words[2]);
    if (!IS_MSS(words[0]) || !(linux || freebsd))
        return false;
    take_mss(found, words[0]);
    take_wscale(found, linux ? words[4] : words[1]);
    take_stamps(found, linux ? words + 2 : words + 3);
    found->sack = true;
    return true;
}

// Of macOS and of OpenBSD.
static __always_inline bool read_six(const __u32 *words, struct options *found)
{
    bool macos = IS_WSCALE(words[1]) && IS_STAMPS(words[2]) && IS_SACK_END(words[5]);
    bool openbsd = IS_SACK(words[1]) && IS_WSCALE(words[2]) && IS_STAMPS(words[3]);
    if (!IS_MSS(words[0]) || !(macos || openbsd))
        return false;
    take_mss(found, words[0]);
    take_wscale(found, macos ? words[1] : words[2]);
    take_stamps(found, macos ? words + 3 : words + 4);
    found->sack = true;
    return true;
}

// Reads a block in one of the layouts that most systems have, and adds its words to the sum. False if it is none.
static __always_inline bool read_common(const __u32 *words, __u32 count, const void *end, struct options *found, __u64 *sum)
{
    *found = no_options();
    found->len = 4 * count;
    if (count == 5 && (void *)(words + 5) <= end && read_five(words, found)) {
        *sum += (__u64)words[0] + words[1] + words[2] + words[3] + words[4];
        return true;
    }
    if (count == 3 && (void *)(words + 3) <= end) {
        // So begin all segments but SYNs, where there are timestamps.
        bool stamps = IS_STAMPS(words[0]);
        if (stamps)
            take_stamps(found, words + 1);
        if (!stamps && !read_three(words, found))
            return false;
        *sum += (__u64)words[0] + words[1] + words[2];
        return true;
    }
    if (count == 6 && (void *)(words + 6) <= end && read_six(words, found)) {
        *sum += (__u64)words[0] + words[1] + words[2] + words[3] + words[4] + words[5];
        return true;
    }
    return count == 0;
}

// Reads a block in any layout.
static __noinline bool read_any(const __u32 *words, __u32 count, const void *end, struct options *found, __u64 *sum)
{
    struct block block = {};
    for (__u32 i = 0; i < OPTION_WORDS_MAX; i++) {
        if (i >= count)
            break;
        if ((void *)(words + i + 1) > end)
            return false;
        block.words[i] = words[i];
        *sum += words[i];
    }
    parse_options(&block, count, found);
    return true;
}

// Reads the `count` words behind a TCP header, and adds them to the sum. False if they are not all there.
static __always_inline bool read_options(const __u32 *words, __u32 count, const void *end, struct options *found, __u64 *sum)
{
    return read_common(words, count, end, found, sum) || read_any(words, count, end, found, sum);
}
