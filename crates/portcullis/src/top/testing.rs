//! A process with two listeners, as tests want it.

use std::time::Instant;

use super::sample::Sample;

/// Given as JSON, as it comes over the socket.
pub fn sample() -> Sample {
    let top = serde_json::json!({"prefixes": 3, "top": [
        {"prefix": "198.18.2.0/24", "open": 7, "traffic": {"received_bytes": 100, "sent_bytes": 200}},
        {"prefix": "198.18.3.0/24", "open": 4, "traffic": {"received_bytes": 900, "sent_bytes": 100}},
        {"prefix": "2001:db8::/64", "open": 1, "traffic": {"received_bytes": 10, "sent_bytes": 5000}}
    ]});
    Sample {
        status: serde_json::from_str(STATUS).unwrap(),
        top: serde_json::from_value(top).unwrap(),
        received: Instant::now(),
    }
}

/// As `sample`, a second later.
pub fn a_second_later() -> Sample {
    let mut sample = sample();
    sample.status.clock_seconds += 1.0;
    let web = &mut sample.status.listeners[0];
    web.syns += 48_123;
    web.synacks_sent += 48_000;
    web.cookies_sent += 47_900;
    web.cookies_valid += 12;
    web.accepted += 30;
    web.closed.insert("client_fin".to_owned(), 125);
    web.refused.insert("denied".to_owned(), 5);
    web.traffic.sent_bytes += 3 << 20;
    sample
}

const STATUS: &str = r#"{
    "version": "0.1.0", "pid": 4711, "uptime_seconds": 3725, "clock_seconds": 3725.5, "unix_seconds": 1800000100,
    "draining": false, "log_level": "info", "access_log": {"written": 5, "dropped": 2},
    "keys": {"rotations": 1, "from_unix_seconds": 1800000128},
    "listeners": [
        {
            "name": "web", "bind": ["198.18.0.1:443"], "tier": "raw", "mode": "cookies",
            "half_open": 3072, "half_open_max": 4096, "accept_queue": 0, "accept_queue_max": 2500,
            "open": 12, "accepted": 112, "closed": {"client_fin": 100, "error": 0}, "refused": {"denied": 3, "rate_limit": 0},
            "states": {"CLOSED": 0, "LISTEN": 1, "SYN-SENT": 0, "SYN-RECEIVED": 3072, "ESTABLISHED": 9, "FIN-WAIT-1": 0,
                "FIN-WAIT-2": 2, "CLOSE-WAIT": 1, "CLOSING": 0, "LAST-ACK": 0, "TIME-WAIT": 40},
            "traffic": {"received_bytes": 2048, "sent_bytes": 1048576},
            "syns": 500000, "synacks_sent": 480000, "cookies_sent": 470000, "cookies_valid": 80, "cookies_bad": 7,
            "dropped": {"bad_checksum": 4}, "ring_dropped": 6,
            "switches": [{"to": "cookies", "unix_seconds": 1800000040}, {"to": "queue", "unix_seconds": 1800000070},
                {"to": "cookies", "unix_seconds": 1800000088}],
            "upstreams": [
                {"server": "198.18.0.3:80", "up": true, "connections": 12, "connects": 112, "connect_failures": 0,
                    "check_failures": 0, "last_error": null},
                {"server": "unix:/run/app.sock", "up": false, "connections": 0, "connects": 3, "connect_failures": 3,
                    "check_failures": 9, "last_error": "Connection refused (os error 111)"}
            ]
        },
        {
            "name": "api", "bind": ["[2001:db8::1]:80"], "tier": "bpf", "mode": "queue",
            "half_open": 0, "half_open_max": 64, "accept_queue": 1, "accept_queue_max": 10,
            "open": 0, "accepted": 0, "closed": {}, "traffic": {"received_bytes": 0, "sent_bytes": 0},
            "syns": 0, "cookies_sent": 0, "cookies_valid": 0, "cookies_bad": 0, "dropped": {}, "ring_dropped": 0
        }
    ]
}"#;
