//! Whatever comes: no panic, bounds kept, accounts that add up.

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes, in whatever order: nothing panics, the queue keeps its bound, and the accounts add up.
    #[test]
    fn any_traffic_keeps_the_invariants(
        frames in proptest::collection::vec((0u8..=255, 0u16..6, 0u32..4, 0u32..4, any::<bool>()), 1..400)
    ) {
        let mut bench = Bench::with(|config| {
            config.half_open_max = 4;
            config.prefix_share_percent = 100;
        });
        let mut last_isn = [SeqNum::new(0); 6];
        let all = [Flags::FIN, Flags::SYN, Flags::RST, Flags::PSH, Flags::ACK, Flags::URG];
        for (bits, who, seq, ack, timestamps) in frames {
            let flags = all.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, flag)| *flag);
            let flags = flags.fold(Flags::PSH, |sum, flag| sum | flag);
            let options = if timestamps { EVERYTHING } else { BARE };
            let client = USUAL_AT.port(500 + who);
            let isn = last_isn[usize::from(who)];
            match bench.send(client, flags, IRS + seq, (isn + ack).value(), options) {
                Disposition::Reply(reply) => last_isn[usize::from(who)] = reply.seq,
                Disposition::Accept(accepted) if bits & 64 == 0 => { let _ = bench.established(&accepted); }
                Disposition::Accept(accepted) => {
                    let _ = bench.listen.refused(&accepted, Refusal::AcceptQueueFull, bench.now);
                }
                Disposition::Captured | Disposition::Drop(_) => {}
            }
            if bits & 128 != 0 {
                let _ = bench.pass(Duration::from_millis(600));
                bench.host.sockets.clear();
            }
            let entries = bench.listen.half_open.len() as u64;
            prop_assert!(entries <= 4);
            prop_assert_eq!(entries, bench.listen.shared.half_open());
            let removed = bench.count(Counter::HalfOpenCompleted)
                + bench.count(Counter::HalfOpenTimedOut)
                + bench.count(Counter::HalfOpenReset);
            prop_assert_eq!(entries, bench.count(Counter::HalfOpenInserted) - removed);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(packet in proptest::collection::vec(any::<u8>(), 0..120), v6: bool) {
        let mut bench = Bench::new();
        let mut packet = packet;
        if let Some(first) = packet.first_mut() {
            *first = if v6 { 0x60 } else { 0x45 };
        }
        let parsed = Packet::parse_ip(&packet, packet.len(), Checksums::Trust);
        let _ = bench.listen.on_packet(parsed, &bench.arrival, &mut bench.host, bench.now);
    }
}
