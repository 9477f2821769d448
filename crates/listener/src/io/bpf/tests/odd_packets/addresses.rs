//! Who a packet is from and for.

use std::net::Ipv6Addr;

use super::*;

/// More addresses of this host, and a subnet's broadcast: what no packet off the wire can come from.
const OWN: &str = "198.18.0.7:0";
const BROADCAST: &str = "198.18.0.255:0";
const OWN_V6: &str = "[2001:db8::7]:0";
const GUARDED: &[&str] = &[SERVER, SERVER_V6, "127.0.0.1:80", "[::1]:80", OWN, BROADCAST, OWN_V6];

/// RFC 1122 §3.2.1.3, RFC 6890, RFC 9293 §3.9.2.3 (MUST-63).
#[test]
fn spec_28_impossible_sources_are_dropped() {
    on_bench_for(GUARDED, CALM, |bench| {
        for addr in ["0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.1.2", "240.0.0.1", "255.255.255.255"] {
            let syn = syn_from(&format!("{addr}:40000"), SERVER);
            check_everywhere(bench, addr, &syn, Dropped(Counted::Martian));
        }
        for addr in ["::", "::2", "::198.18.0.2", "::ffff:198.18.0.2", "ff02::1", "ff0e::2:3"] {
            let source: Ipv6Addr = addr.parse().unwrap();
            let syn = with(&syn_from(CLIENT_V6, SERVER_V6), |frame| {
                frame[IP + 8..IP + 24].copy_from_slice(&source.octets());
            });
            check_everywhere(bench, addr, &syn, Dropped(Counted::Martian));
        }
    });
}

#[test]
fn spec_28_sources_of_this_host_come_over_loopback_alone() {
    on_bench_for(GUARDED, CALM, |bench| {
        let v4 = ["127.0.0.1", "127.255.1.2", "198.18.0.7"].map(|addr| (format!("{addr}:40000"), SERVER));
        let v6 = ["::1", "2001:db8::7"].map(|addr| (format!("[{addr}]:40000"), SERVER_V6));
        for (client, server) in v4.into_iter().chain(v6) {
            let syn = syn_from(&client, server);
            for hook in [Hook::Xdp, Hook::Tc] {
                check(bench, hook, &client, &syn, Dropped(Counted::Martian));
            }
            check(bench, Hook::Loopback, &client, &syn, Answered);
        }
        for hook in [Hook::Xdp, Hook::Tc] {
            check(bench, hook, "broadcast", &syn_from("198.18.0.255:40000", SERVER), Dropped(Counted::Martian));
        }
    });
}

/// RFC 1122 §3.2.1.3 (g): loopback's addresses must not appear outside a host.
#[test]
fn spec_28_a_loopback_destination_off_the_wire_is_not_answered() {
    on_bench_for(GUARDED, CALM, |bench| {
        for (client, server) in [(CLIENT, "127.0.0.1:80"), (CLIENT_V6, "[::1]:80")] {
            let syn = syn_from(client, server);
            check(bench, Hook::Loopback, server, &syn, Answered);
            for hook in [Hook::Xdp, Hook::Tc] {
                check(bench, hook, server, &syn, Dropped(Counted::Martian));
            }
        }
    });
}

/// RFC 9293 §3.9.2.3, MUST-57: the kernel discards what is for more than one host; we do not answer it.
#[test]
fn spec_27_frames_for_others_and_for_all_pass() {
    on_bench(CALM, |bench| {
        for (_, syn) in plain_syns() {
            for mac in [[2, 0, 0, 0, 0, 9], [0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1], [0; 6]] {
                let other = damaged(&syn, |frame| frame[..6].copy_from_slice(&mac));
                check_everywhere(bench, &format!("for {mac:02x?}"), &other, Passed);
            }
        }
        for addr in ["198.18.0.255", "224.0.0.1", "255.255.255.255", "198.18.0.9"] {
            check_everywhere(bench, addr, &syn_from(CLIENT, &format!("{addr}:80")), Passed);
        }
        for addr in ["ff02::1", "2001:db8::9"] {
            check_everywhere(bench, addr, &syn_from(CLIENT_V6, &format!("[{addr}]:80")), Passed);
        }
        check_everywhere(bench, "another port", &syn_from(CLIENT, "198.18.0.1:81"), Passed);
        check_everywhere(bench, "another port", &syn_from(CLIENT_V6, "[2001:db8::1]:81"), Passed);
    });
}

#[test]
fn spec_29_land_is_dropped() {
    on_bench_for(GUARDED, CALM, |bench| {
        for server in [SERVER, SERVER_V6, "127.0.0.1:80", "[::1]:80"] {
            check_everywhere(bench, server, &syn_from(server, server), Dropped(Counted::Land));
        }
    });
}

/// Source port 0 is dropped; nothing listens on destination port 0, which the table uses for addresses.
#[test]
fn spec_31_port_zero_is_not_answered() {
    on_bench_for(GUARDED, CALM, |bench| {
        for (client, server, own) in [("198.18.0.2:0", SERVER, OWN), ("[2001:db8::2]:0", SERVER_V6, OWN_V6)] {
            check_everywhere(bench, "from port 0", &syn_from(client, server), Dropped(Counted::PortZero));
            let to_port_zero = syn_from(&client.replace(":0", ":40000"), own);
            check_everywhere(bench, "to port 0", &to_port_zero, Passed);
        }
    });
}
