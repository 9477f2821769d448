//! Every metric there is: its name, its HELP text, and which of the listener's counters it shows.
//!
//! Names follow <https://prometheus.io/docs/practices/naming/>; where the kernel counts the same thing, HELP names its counter.

use listener::Counter;

/// All series of one name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
}

/// Where one of the listener's counters is shown: a family and, where the family has parts, which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) name: &'static str,
    pub(crate) part: Option<(&'static str, &'static str)>,
}

/// Where `counter` is shown. A new counter breaks the build here, so none is forgotten.
pub(crate) fn place(counter: Counter) -> Place {
    match counter {
        Counter::SynsReceived => whole("portcullis_syns_received_total"),
        Counter::SynsLeftToKernel => whole("portcullis_syns_left_to_kernel_total"),
        Counter::SynsDenied => whole("portcullis_syns_denied_total"),
        Counter::SynAcksSent => whole("portcullis_synacks_sent_total"),
        Counter::SynAcksRetransmitted => whole("portcullis_synacks_retransmitted_total"),
        Counter::CookiesSent => whole("portcullis_syncookies_sent_total"),
        Counter::CookiesValid => whole("portcullis_syncookies_valid_total"),
        Counter::CookiesExpired => part("portcullis_syncookies_invalid_total", "reason", "expired"),
        Counter::CookiesBadMac => part("portcullis_syncookies_invalid_total", "reason", "bad_mac"),
        Counter::CookiesNotExpected => part("portcullis_syncookies_invalid_total", "reason", "not_expected"),
        Counter::CookiesOverBudget => part("portcullis_syncookies_invalid_total", "reason", "over_budget"),
        Counter::HalfOpenInserted => whole("portcullis_half_open_inserted_total"),
        Counter::HalfOpenCompleted => part("portcullis_half_open_removed_total", "reason", "completed"),
        Counter::HalfOpenTimedOut => part("portcullis_half_open_removed_total", "reason", "timeout"),
        Counter::HalfOpenReset => part("portcullis_half_open_removed_total", "reason", "reset"),
        Counter::HalfOpenFull => part("portcullis_half_open_bypassed_total", "reason", "queue_full"),
        Counter::HalfOpenPrefixFull => part("portcullis_half_open_bypassed_total", "reason", "prefix_share"),
        Counter::HandshakesByQueue => part("portcullis_handshakes_completed_total", "via", "queue"),
        Counter::HandshakesByCookie => part("portcullis_handshakes_completed_total", "via", "cookie"),
        Counter::SwitchesToCookies => part("portcullis_mode_switches_total", "to", "cookies"),
        Counter::SwitchesToQueue => part("portcullis_mode_switches_total", "to", "queue"),
        Counter::ResetsSent => whole("portcullis_resets_sent_total"),
        Counter::ChallengeAcksSent => whole("portcullis_challenge_acks_sent_total"),
        Counter::RepliesOverBudget => whole("portcullis_replies_suppressed_total"),
        Counter::AcceptQueueOverflows => whole("portcullis_accept_queue_overflows_total"),
        Counter::RefusedNoDescriptors => part("portcullis_handshakes_refused_total", "reason", "no_descriptors"),
        Counter::RefusedNoMemory => part("portcullis_handshakes_refused_total", "reason", "no_memory"),
        Counter::RefusedTupleBusy => part("portcullis_handshakes_refused_total", "reason", "tuple_busy"),
        Counter::RefusedOther => part("portcullis_handshakes_refused_total", "reason", "other"),
        Counter::OldSocketsDestroyed => whole("portcullis_old_sockets_destroyed_total"),
        Counter::EarlyDataBytes => whole("portcullis_early_data_bytes_total"),
        Counter::RingReceived => whole("portcullis_ring_received_packets_total"),
        Counter::RingDropped => whole("portcullis_ring_dropped_packets_total"),
        Counter::TransmitErrors => whole("portcullis_transmit_errors_total"),
    }
}

const fn whole(name: &'static str) -> Place {
    Place { name, part: None }
}

const fn part(name: &'static str, label: &'static str, value: &'static str) -> Place {
    Place { name, part: Some((label, value)) }
}

/// The histogram of handshake durations, rendered by [`crate::text`].
pub(crate) const HANDSHAKE_DURATION: Family = Family {
    name: "portcullis_handshake_duration_seconds",
    help: "Time from a client's SYN to the segment that completed its handshake. 1, 3 and 7 s are where lost SYNs and \
           SYN-ACKs put it. By cookie alone only those of clients with TCP timestamps are in it, since the last SYN-ACK, in \
           steps of 8.4 ms (less is 0), and without whole rounds of 1.07 s: what was lost before does not show.",
};

/// How full half-open queues get, rendered by [`crate::text`].
pub(crate) const HALF_OPEN_OCCUPANCY: Family = Family {
    name: "portcullis_half_open_occupancy",
    help: "How full the half-open queue was, as a part of its limit, each time an entry was put into it: its peaks are in here, however \
           short. While the listener answers by cookie alone nothing is put in.",
};

/// How long connections were open, rendered by [`crate::text`].
pub(crate) const CONNECTION_DURATION: Family = Family {
    name: "portcullis_connection_duration_seconds",
    help: "Time from the moment the application was given a connection until it let go of it, observed at the end.",
};

/// The process's processor time, rendered by [`crate::text`].
pub(crate) const PROCESS_CPU: Family =
    Family { name: "process_cpu_seconds_total", help: "Total user and system CPU time spent in seconds." };

/// The families of the servers behind listeners, rendered by [`crate::text`], since servers come and go with reloads.
pub(crate) const UPSTREAM_UP: Family = Family {
    name: "portcullis_upstream_up",
    help: "1 if clients are sent to the server before others, 0 if it is down.",
};
pub(crate) const UPSTREAM_CONNECTIONS: Family = Family {
    name: "portcullis_upstream_connections",
    help: "Connections to the server for clients now, those being made included.",
};
pub(crate) const UPSTREAM_CONNECTS: Family = Family {
    name: "portcullis_upstream_connects_total",
    help: "Connects to the server for clients, whatever came of them.",
};
pub(crate) const UPSTREAM_CONNECT_FAILURES: Family = Family {
    name: "portcullis_upstream_connect_failures_total",
    help: "Connects to the server for clients that failed, by reason, upon which another server is tried.",
};
pub(crate) const UPSTREAM_CONNECT_DURATION: Family = Family {
    name: "portcullis_upstream_connect_duration_seconds",
    help: "Time that the connects to the server for clients took which did not fail, a PROXY header included.",
};
pub(crate) const UPSTREAM_CHECK_FAILURES: Family =
    Family { name: "portcullis_upstream_check_failures_total", help: "Health checks of the server that failed." };

/// What metrics are about.
#[cfg_attr(not(test), expect(dead_code, reason = "`docs/metrics.md` alone has titles and notes, and a test writes it"))]
pub(crate) struct Subject {
    pub(crate) title: &'static str,
    /// What there is to say besides, or nothing.
    pub(crate) note: &'static str,
    pub(crate) families: &'static [Family],
}

/// Every family, by subject, in the order in which the documentation has them.
pub(crate) const SUBJECTS: &[Subject] = &[
    Subject {
        title: "Process",
        note: "",
        families: &[
            family("portcullis_build_info", "Version and commit of this build and the datapath it runs; always 1."),
            family("portcullis_config_reloads_total", "Reloads of the configuration, by what became of them."),
            family(
                "portcullis_config_last_reload_successful",
                "0 if the last reload found a fault and the old configuration is still in force, else 1.",
            ),
            family(
                "portcullis_config_last_reload_success_timestamp_seconds",
                "When the configuration in force was read, in seconds since 1970.",
            ),
            family("portcullis_access_log_lines_total", "Lines of the access log that were written."),
            family(
                "portcullis_access_log_dropped_total",
                "Lines of the access log that were lost, because they came faster than they could be written or the file took no more.",
            ),
            family("portcullis_key_rotations_total", "Rotations of the master key since the start."),
            family(
                "portcullis_syncookies_key_rotation_timestamp_seconds",
                "From when the latest master key makes cookies, in seconds since 1970; 0 if it is the one of the start.",
            ),
            family(
                "portcullis_admin_connections_refused_total",
                "Connections to the admin server that were closed unanswered because all of its places were taken.",
            ),
            family("portcullis_draining", "1 while connections are finishing and no new ones are taken, else 0."),
        ],
    },
    Subject {
        title: "SYN and SYN-ACK",
        note: "",
        families: &[
            family(
                "portcullis_syns_received_total",
                "SYNs for a guarded address and port that passed the sanity checks.",
            ),
            family(
                "portcullis_syns_left_to_kernel_total",
                "SYNs left to the kernel's own listening socket, because they are not plain (datapath bpf).",
            ),
            family(
                "portcullis_syns_denied_total",
                "SYNs of sources that the lists deny, which get RST or nothing; whom they deny later is in portcullis_connections_refused_total.",
            ),
            family(
                "portcullis_synacks_sent_total",
                "SYN-ACKs sent: first answers, answers to repeated SYNs and retransmissions, with a half-open entry or by cookie alone.",
            ),
            family(
                "portcullis_synacks_retransmitted_total",
                "SYN-ACKs sent again by the retransmission timer (like TcpExt TCPSynRetrans for the passive side).",
            ),
        ],
    },
    Subject {
        title: "Cookies",
        note: "",
        families: &[
            family(
                "portcullis_syncookies_sent_total",
                "SYN-ACKs for which no half-open entry was kept, so that the cookie is all there is (like TcpExt SyncookiesSent).",
            ),
            family(
                "portcullis_syncookies_valid_total",
                "ACKs whose cookie validated (like TcpExt SyncookiesRecv). In datapath bpf every handshake ends so, that of a half-open entry too.",
            ),
            family(
                "portcullis_syncookies_invalid_total",
                "ACKs refused for their cookie, by reason (like TcpExt SyncookiesFailed): its epoch is over, the MAC is wrong, none can \
         be outstanding, or the source prefix has used up its budget of bad ones. Of ACKs at random one in four is expired, not bad_mac. \
         In datapath bpf, while it is calm, bad ones are the kernel's to refuse and not counted here.",
            ),
            family(
                "portcullis_syncookies_active",
                "1 while the listener is under pressure and answers by cookie alone, else 0.",
            ),
            family(
                "portcullis_mode_switches_total",
                "Switches of the listener between the half-open queue and cookies alone.",
            ),
        ],
    },
    Subject {
        title: "The half-open queue",
        note: "",
        families: &[
            family("portcullis_half_open", "Half-open connections in the queue now."),
            family("portcullis_half_open_limit", "Half-open connections the queue holds at most."),
            family(
                "portcullis_half_open_high_watermark",
                "Half-open connections at which the listener turns to answering by cookie alone.",
            ),
            family(
                "portcullis_half_open_low_watermark",
                "Half-open connections at or below which the listener may turn back to its half-open queue.",
            ),
            family("portcullis_half_open_inserted_total", "Half-open connections put into the queue."),
            family(
                "portcullis_half_open_removed_total",
                "Half-open connections that left the queue: completed, given up after the last SYN-ACK, or reset by the client.",
            ),
            family(
                "portcullis_half_open_bypassed_total",
                "SYNs answered by cookie alone because the queue was full or under pressure, or their prefix had its share of it \
         (like TcpExt TCPReqQFullDoCookies).",
            ),
            HALF_OPEN_OCCUPANCY,
        ],
    },
    Subject {
        title: "Handshakes",
        note: "",
        families: &[
            family(
                "portcullis_handshakes_completed_total",
                "Handshakes completed, by what recognised the last segment: a half-open entry or a cookie.",
            ),
            family(
                "portcullis_handshakes_refused_total",
                "Completed handshakes that could not become a connection at once, by reason; a full accept queue counts in \
         portcullis_accept_queue_overflows_total.",
            ),
            family(
                "portcullis_early_data_bytes_total",
                "Bytes that came right behind a handshake and were put into the new socket.",
            ),
            family(
                "portcullis_old_sockets_destroyed_total",
                "Old sockets destroyed because a new handshake on their 4-tuple proved that the peer has moved on.",
            ),
            HANDSHAKE_DURATION,
        ],
    },
    Subject {
        title: "Replies and drops",
        note: "",
        families: &[
            family(
                "portcullis_resets_sent_total",
                "RST segments sent by the listener; the kernel's are in TcpOutRsts.",
            ),
            family(
                "portcullis_challenge_acks_sent_total",
                "Challenge ACKs sent, RFC 5961 (like TcpExt TCPChallengeACK).",
            ),
            family(
                "portcullis_replies_suppressed_total",
                "Replies not sent because the source prefix had used up its reply budget.",
            ),
            family("portcullis_packets_dropped_total", "Segments dropped without an answer, by reason."),
        ],
    },
    Subject {
        title: "Ring and transmission",
        note: "",
        families: &[
            family(
                "portcullis_ring_received_packets_total",
                "Frames read from the packet ring (PACKET_STATISTICS tp_packets, which has those dropped and those not read yet in it too).",
            ),
            family(
                "portcullis_ring_dropped_packets_total",
                "Frames the kernel dropped because the packet ring was full (PACKET_STATISTICS tp_drops).",
            ),
            family(
                "portcullis_transmit_errors_total",
                "Replies the kernel did not take: full device queue, no route, out of buffers.",
            ),
        ],
    },
    Subject {
        title: "Connections",
        note: "",
        families: &[
            family("portcullis_accept_queue", "Established connections the application has not accepted yet."),
            family("portcullis_accept_queue_limit", "Established connections that wait for the application at most."),
            family(
                "portcullis_accept_queue_overflows_total",
                "Completed handshakes that had to wait because the accept queue was full (like TcpExt ListenOverflows).",
            ),
            family(
                "portcullis_connections",
                "TCP sockets of the listener's addresses by state, spelt as ss and node_exporter do: from sock_diag, and syn_recv from \
         the half-open queue where the kernel does not do the handshakes.",
            ),
            family("portcullis_connections_open", "Connections accepted and not closed yet."),
            family("portcullis_connections_limit", "Connections served at once at most; +Inf: no limit."),
            family(
                "portcullis_state_transitions_total",
                "Steps of connections from one state to another (RFC 9293 section 3.3.2): those of the handshake from the listener's own \
         counters where the kernel does not do it, the others from the kernel's trace event inet_sock_set_state where \
         portcullis_state_transitions_complete is 1, else 0. In datapath kernel, listen to syn_recv is not the SYNs: the kernel has no \
         socket for them until the handshake is complete.",
            ),
            family(
                "portcullis_state_transitions_complete",
                "1 if the kernel lets us see the steps behind the handshake, else 0.",
            ),
            family("portcullis_connections_accepted_total", "Connections handed to the application."),
            family("portcullis_connections_closed_total", "Connections closed, by reason."),
            family(
                "portcullis_connections_refused_total",
                "Connections closed as soon as they were accepted, by reason: a list, a rate, a bound on connections.",
            ),
            family("portcullis_received_bytes_total", "Payload bytes received from clients."),
            family("portcullis_sent_bytes_total", "Payload bytes sent to clients."),
            CONNECTION_DURATION,
        ],
    },
    Subject {
        title: "Upstreams",
        note: "One series for each server behind a listener, from when it is configured until it is not; none without upstreams. A reload makes new ones, which begin at 0.",
        families: &[
            UPSTREAM_UP,
            UPSTREAM_CONNECTIONS,
            UPSTREAM_CONNECTS,
            UPSTREAM_CONNECT_FAILURES,
            UPSTREAM_CONNECT_DURATION,
            UPSTREAM_CHECK_FAILURES,
        ],
    },
    Subject {
        title: "The kernel's own counters",
        note: "Of the network namespace, from `/proc/net/netstat`, and OutRsts from `/proc/net/snmp`; other sockets than ours count there too.",
        families: &[
            family(
                "portcullis_kernel_tcpext_syncookies_sent_total",
                "SYN cookies the kernel sent (TcpExt SyncookiesSent).",
            ),
            family(
                "portcullis_kernel_tcpext_syncookies_received_total",
                "SYN cookies the kernel took (TcpExt SyncookiesRecv).",
            ),
            family(
                "portcullis_kernel_tcpext_syncookies_failed_total",
                "SYN cookies the kernel refused (TcpExt SyncookiesFailed).",
            ),
            family(
                "portcullis_kernel_tcpext_listen_overflows_total",
                "Times an accept queue of the kernel was full (TcpExt ListenOverflows).",
            ),
            family(
                "portcullis_kernel_tcpext_listen_drops_total",
                "SYNs the kernel's listeners dropped (TcpExt ListenDrops).",
            ),
            family(
                "portcullis_kernel_tcpext_reqq_full_do_cookies_total",
                "SYNs the kernel answered with a cookie because its SYN queue was full (TcpExt TCPReqQFullDoCookies).",
            ),
            family(
                "portcullis_kernel_tcpext_reqq_full_drop_total",
                "SYNs the kernel dropped because its SYN queue was full (TcpExt TCPReqQFullDrop).",
            ),
            family("portcullis_kernel_tcp_out_rsts_total", "RST segments the kernel sent (Tcp OutRsts)."),
        ],
    },
    Subject {
        title: "The collectors",
        note: "What has to be fetched from the kernel, at each scrape: `netstat`, `process`, and `sock_diag` (sockets by state), which may be a second old.",
        families: &[
            family(
                "portcullis_collector_success",
                "1 if the collector's last run succeeded; else 0, and its values are older ones.",
            ),
            family("portcullis_collector_duration_seconds", "How long the collector's last run took."),
        ],
    },
    Subject {
        title: "Standard metrics of a process",
        note: "Names and meanings of the Prometheus client libraries.",
        families: &[
            family("process_resident_memory_bytes", "Resident memory size in bytes."),
            family("process_virtual_memory_bytes", "Virtual memory size in bytes."),
            family("process_open_fds", "Number of open file descriptors."),
            family("process_max_fds", "Maximum number of open file descriptors."),
            family("process_start_time_seconds", "Start time of the process since unix epoch in seconds."),
            PROCESS_CPU,
        ],
    },
];

/// Every family there is.
pub(crate) fn all() -> impl Iterator<Item = &'static Family> + Clone {
    SUBJECTS.iter().flat_map(|subject| subject.families)
}

const fn family(name: &'static str, help: &'static str) -> Family {
    Family { name, help }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_counter_has_a_described_place_of_its_own() {
        let mut seen = HashSet::new();
        for counter in Counter::ALL {
            let place = place(counter);
            assert!(seen.insert((place.name, place.part)), "{counter:?} shares its series");
            assert!(all().any(|family| family.name == place.name), "{counter:?} has no HELP text");
        }
    }

    #[test]
    fn no_family_has_both_a_total_and_its_parts() {
        for counter in Counter::ALL {
            let place = place(counter);
            let alike = Counter::ALL.into_iter().map(super::place).filter(|other| other.name == place.name);
            let label = place.part.map(|(label, _)| label);
            assert!(alike.into_iter().all(|other| other.part.map(|(label, _)| label) == label), "{}", place.name);
        }
    }

    #[test]
    fn no_name_is_described_twice() {
        let mut names = HashSet::new();
        assert!(all().all(|family| names.insert(family.name)));
    }

    #[test]
    fn help_says_what_a_count_has_not_in_it() {
        for (name, word) in [
            ("portcullis_handshake_duration_seconds", "in steps of 8.4 ms"),
            ("portcullis_syncookies_valid_total", "In datapath bpf"),
            ("portcullis_syncookies_invalid_total", "one in four"),
            ("portcullis_syncookies_invalid_total", "In datapath bpf"),
            ("portcullis_state_transitions_total", "In datapath kernel"),
            ("portcullis_ring_received_packets_total", "tp_packets"),
        ] {
            let family = all().find(|family| family.name == name).expect("it is there");
            assert!(family.help.contains(word), "{name}: {}", family.help);
        }
    }
}
