// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//
// The SYN cookie, as `src/cookie` defines it: made here, checked there, and the other way round.
//
//   form A, the client offers timestamps                     form B, it does not
//     ISN    epoch(2) | MAC(30)                                ISN    epoch(2) | options(5) | MAC(25)
//     TSval  tag(16) | wscale(4) sack(1) ecn(1) mss(3) | clock(7)
#pragma once

#include "options.h"

enum form { FORM_A = 1, FORM_B = 2 };

#define CLOCK_SHIFT 23
#define CLOCK_MASK 0x7f
#define MAC_WIDE 0x3fffffff
#define MAC_NARROW 0x01ffffff

// The names of a connection, beside our own end, which the hash's state has in it already.
struct peer {
    __u64 addr[2]; // In network order; IPv4 in the first four bytes.
    __u16 port;    // In host order.
    __u32 irs;
};

struct cookie {
    __u32 isn;
    __u32 tsval;
};

static __always_inline __u64 cookie_mac(const struct sip *keyed, const struct peer *peer, enum family family, __u16 options, enum form form)
{
    struct sip state = *keyed;
    if (family == V4) {
        sip_absorb(&state, (__u32)peer->addr[0] | (__u64)peer->irs << 32);
        return sip_finish(&state, peer->port | (__u64)options << 16 | (__u64)form << 32 | 21ULL << 56);
    }
    sip_absorb(&state, peer->addr[0]);
    sip_absorb(&state, peer->addr[1]);
    sip_absorb(&state, peer->irs | (__u64)peer->port << 32 | (__u64)options << 48);
    return sip_finish(&state, form | 49ULL << 56);
}

// The clock's bits are bound by a multiplication with a secret odd factor.
static __always_inline __u16 timestamp_tag(__u64 mac, __u16 clock)
{
    return (__u16)(mac >> 30) + ((__u16)(mac >> 46) | 1) * clock;
}

static __always_inline __u16 clock_at(__u64 ns)
{
    return ns >> CLOCK_SHIFT & CLOCK_MASK;
}

// Index of the largest step that is not above the client's MSS, or of the first.
static __always_inline __u16 mss_step_wide(enum family family, __u16 mss)
{
    if (family == V4)
        return mss >= 1460 ? (mss >= 8960 ? 7 : 6)
                           : (mss >= 1400 ? (mss >= 1452 ? 5 : mss >= 1440 ? 4 : 3) : (mss >= 1340 ? 2 : mss >= 1200 ? 1 : 0));
    return mss >= 1440 ? (mss >= 8940 ? 7 : 6)
                       : (mss >= 1380 ? (mss >= 1432 ? 5 : mss >= 1420 ? 4 : 3) : (mss >= 1340 ? 2 : mss >= 1300 ? 1 : 0));
}

static __always_inline __u16 mss_step_narrow(enum family family, __u16 mss)
{
    if (family == V4)
        return mss >= 1460 ? 3 : mss >= 1440 ? 2 : mss >= 1300 ? 1 : 0;
    return mss >= 1440 ? 3 : mss >= 1420 ? 2 : mss >= 1340 ? 1 : 0;
}

static const __u16 mss_wide[2][8] = {
    {536, 1200, 1340, 1400, 1440, 1452, 1460, 8960},
    {1220, 1300, 1340, 1380, 1420, 1432, 1440, 8940},
};
static const __u16 mss_narrow[2][4] = {{536, 1300, 1440, 1460}, {1220, 1340, 1420, 1440}};
static const __u8 wscale_narrow[4] = {WSCALE_NONE, 0, 5, 7};

static __always_inline __u16 encode_wide(const struct options *offer, enum family family)
{
    return offer->wscale << 5 | offer->sack << 4 | mss_step_wide(family, offer->mss);
}

static __always_inline __u16 encode_narrow(const struct options *offer, enum family family)
{
    __u16 scale = offer->wscale == WSCALE_NONE ? 0 : offer->wscale >= 7 ? 3 : offer->wscale >= 5 ? 2 : 1;
    return scale << 3 | offer->sack << 2 | mss_step_narrow(family, offer->mss);
}

static __always_inline struct cookie mint(const struct sip *keyed, __u32 slot, const struct peer *peer, enum family family,
                                          const struct options *offer, __u64 ns)
{
    bool wide = offer->timestamps;
    __u16 options = wide ? encode_wide(offer, family) : encode_narrow(offer, family);
    __u16 clock = clock_at(ns);
    __u64 mac = cookie_mac(keyed, peer, family, options, wide ? FORM_A : FORM_B);
    __u32 isn = wide ? mac & MAC_WIDE : options << 25 | (mac & MAC_NARROW);
    return (struct cookie){
        .isn = slot << 30 | isn,
        .tsval = (__u32)timestamp_tag(mac, clock) << 16 | options << 7 | clock,
    };
}

// What a cookie that validated says of the client's options.
struct remembered {
    __u16 mss;
    __u8 wscale;
    bool sack;
};

// Whether the ISN, and in form A the TSecr, are a cookie for this peer.
static __always_inline bool is_cookie(const struct sip *keyed, const struct peer *peer, enum family family, __u32 isn,
                                      const struct options *echo)
{
    bool wide = echo->timestamps;
    __u16 options = wide ? echo->tsecr >> 7 & 0x1ff : isn >> 25 & 31;
    __u64 mac = cookie_mac(keyed, peer, family, options, wide ? FORM_A : FORM_B);
    __u32 wrong = ((__u32)mac ^ isn) & (wide ? MAC_WIDE : MAC_NARROW);
    __u16 tag = timestamp_tag(mac, echo->tsecr & CLOCK_MASK) ^ echo->tsecr >> 16;
    return !(wrong | (wide ? tag : 0));
}

static __always_inline struct remembered remember(enum family family, __u32 isn, const struct options *echo)
{
    if (echo->timestamps) {
        __u16 options = echo->tsecr >> 7;
        return (struct remembered){mss_wide[family == V6][options & 7], options >> 5 & 15, options >> 4 & 1};
    }
    __u16 options = isn >> 25;
    return (struct remembered){mss_narrow[family == V6][options & 3], wscale_narrow[options >> 3 & 3], options >> 2 & 1};
}
