//! The page's logic, in the browser but without a server: functions of their arguments.

use serde_json::{Value, json};
use testnet::isolated;

use crate::browser::Browser;

const LOGIC: &str = include_str!("../../../exporter/src/admin/page/logic.js");

/// What makes status objects: one listener with nothing but zeros, and what a test sets on it.
const MAKERS: &str = r#"
    const listener = more => ({ name: 'web', tier: 'raw', mode: 'queue', syns: 0, ring_dropped: 0, dropped: {}, refused: {},
        handshakes: { queue: 0, cookie: 0 }, handshakes_refused: {}, cookies_bad: 0, accept_queue_overflows: 0, replies_suppressed: 0,
        handshake_seconds: { bounds: [0.001, 0.01, 1, 3], counts: [0, 0, 0, 0, 0], sum: 0 }, switches: [], upstreams: [], states: {},
        open: 0, accepted: 0, cookies_sent: 0, transitions: { complete: false, counts: [] }, connections_max: 100, ...more });
    const server = (connects, connect_failures, more) => ({ up: true, connects, connect_failures, check_failures: 0, ...more });
    const status = (seconds, more, pid = 1) => ({ pid, clock_seconds: seconds, listeners: [listener(more)] });
    /** What is said ten seconds after a beginning at zero. */
    const judge = (more, { base = null, draining = false, before = {} } = {}) =>
        verdict([facts([status(0, before), status(10, more)], 'web', base)], draining, unix => `T${unix}`);
    const said = found => [found.level, found.title, ...found.reasons.map(reason => `${reason.level}: ${reason.text}`)];
"#;

/// The values of these expressions, each in a page of its own that has the logic and the makers.
fn values<const N: usize>(expressions: [&str; N]) -> [Value; N] {
    let browser = Browser::start(&testnet::Namespace::current());
    let tab = browser.tab();
    tab.evaluate(&format!("{LOGIC}{MAKERS}; 0"));
    expressions.map(|expression| tab.evaluate(expression))
}

/// Checks each expression against its value.
fn expect<const N: usize>(cases: [(&str, Value); N]) {
    let found = values(cases.each_ref().map(|(expression, _)| *expression));
    for ((expression, expected), found) in cases.into_iter().zip(found) {
        assert_eq!(found, expected, "{expression}");
    }
}

#[test]
fn a_rate_is_of_two_looks_at_one_process_and_one_count() {
    isolated!(|| {
        expect([
            ("rate(lookBack([status(1, {syns: 10}), status(4, {syns: 40})], 'web', 3), l => l.syns)", json!(10)),
            // One look, a listener that was not there before, or a count that began anew: there is no rate.
            ("rate(lookBack([status(1, {syns: 10})], 'web', 3), l => l.syns)", json!(null)),
            ("rate(lookBack([status(1, {name: 'old'}), status(4, {syns: 40})], 'web', 3), l => l.syns)", json!(null)),
            ("rate(lookBack([status(1, {syns: 50}), status(4, {syns: 40})], 'web', 3), l => l.syns)", json!(null)),
            // Of several looks the youngest that is old enough counts; a stream that is a little early is no reason to take one more.
            ("lookBack([0, 1, 2.1, 3, 4, 5].map(at => status(at, {})), 'web', 3).seconds", json!(2.9)),
            ("lookBack([0, 1].map(at => status(at, {})), 'web', 3).seconds", json!(1)),
        ]);
    });
}

#[test]
fn what_is_remembered_is_of_one_process_and_bounded() {
    isolated!(|| {
        expect([
            ("remember([status(1, {})], status(2, {})).length", json!(2)),
            ("remember([status(1, {})], status(2, {}, 99)).length", json!(1)),
            ("remember([status(9, {})], status(2, {})).length", json!(1)),
            (
                "Array.from({length: 99}, (_, at) => status(at / 2, {})).reduce(remember, []).length === SAMPLES_MAX",
                json!(true),
            ),
            // A tab was hidden: what was before is not compared with, so an old harm is no news.
            ("[0, 1, 3600].map(at => status(at, {})).reduce(remember, []).length", json!(1)),
            ("[0, 1, 2, 12, 13].map(at => status(at, {})).reduce(remember, []).length", json!(4)),
            ("[0, 5, 10].map(at => status(at, {})).reduce(remember, []).length", json!(3)),
            ("[1, 2, 299, 302].map(at => ({at})).reduce(extend, []).map(point => point.at)", json!([2, 299, 302])),
            (
                "Array.from({length: 999}, (_, at) => ({at: at / 2})).reduce(extend, []).length === HISTORY_MAX",
                json!(true),
            ),
        ]);
    });
}

#[test]
fn a_quantile_lies_within_its_bucket_and_says_where_only_a_bound_is_known() {
    isolated!(|| {
        expect([
            ("quantile([1, 2, 4], [0, 10, 10, 0], 0.5)", json!({"seconds": 2})),
            ("quantile([1, 2, 4], [0, 10, 10, 0], 0.75)", json!({"seconds": 3})),
            ("quantile([1, 2, 4], [10, 0, 0, 0], 0.99)", json!({"below": 1})),
            ("quantile([1, 2, 4], [0, 0, 0, 1], 0.5)", json!({"above": 4})),
            ("quantile([1, 2, 4], [99, 0, 0, 1], 0.99)", json!({"below": 1})),
            ("quantile([1, 2, 4], [98, 1, 0, 1], 0.99)", json!({"seconds": 2})),
            ("quantile([1, 2, 4], [0, 0, 0, 0], 0.5)", json!(null)),
            ("quantile([1, 2, 4], null, 0.5)", json!(null)),
            ("duration(quantile([0.0005, 0.001], [9, 0, 0], 0.5))", json!("< 0.5 ms")),
            ("duration(quantile([0.5, 7], [0, 0, 9], 0.5))", json!("> 7 s")),
            ("[0.00042, 0.0021, 0.0123, 0.25, 0.9996, 1.23, 3].map(seconds => duration({seconds}))", {
                json!(["0.4 ms", "2.1 ms", "12 ms", "250 ms", "1 s", "1.2 s", "3 s"])
            }),
        ]);
    });
}

#[test]
fn numbers_and_times_are_short_and_counts_are_whole() {
    isolated!(|| {
        expect([
            // The same cases as those of `portcullis top`.
            ("[0, 7.25, 12, 312.4, 999.4, 999.9, 48123, 1.5e6, -3].map(compact)", {
                json!(["0", "7.3", "12", "312", "999", "1.0k", "48.1k", "1.5M", "0"])
            }),
            ("compact(null)", json!("–")),
            ("[0.04, 0.05].map(compact)", json!(["< 0.1", "0.1"])),
            ("[0, 999, 1000, 11697190359].map(grouped)", json!(["0", "999", "1,000", "11,697,190,359"])),
            (
                "[0, 59, 60, 3700, 86400, 90061].map(span)",
                json!(["0 s", "59 s", "1 min", "1 h 1 min", "1 d", "1 d 1 h"]),
            ),
            // By time, and not by turn: what was not seen is a gap, and is not shaded either.
            (
                "sparkPath([[0, 1], [1, null], [2, 2], [3, 2], [57, 2], [60, 1]].map(([at, v]) => ({at, v})), 'v', 2, 60, 10)",
                json!("M0.0 5.0M2.0 0.0L3.0 0.0M57.0 0.0L60.0 5.0"),
            ),
            ("sparkSeconds([{at: 5}, {at: 6}])", json!(60)),
            ("[sparkSeconds([]), sparkXs([], 60), sparkXs([{at: 100}, {at: 220}], 60)]", json!([60, [], [0, 60]])),
            (
                "shadePath([[0, true], [50, true], [55, true], [60, false]].map(([at, pressure]) => ({at, pressure})), 60, 9)",
                json!("M50.0 0H55.0V9H50.0z"),
            ),
            ("[0, 9, 99999, 1e12].map(arrowWidth)", json!([1.5, 2.7, 7.5, 7.5])),
        ]);
    });
}

#[test]
fn without_an_attack_and_with_nobody_harmed_it_is_calm() {
    isolated!(|| {
        let handshakes = "syns: 50, handshakes: {queue: 50, cookie: 0}, handshake_seconds: {bounds: [0.001, 0.01, 1, 3], counts: [50, 0, 0, 0, 0]}";
        expect([
            ("said(judge({}))", json!(["calm", "Calm", "calm: 0 SYN/s, 0 handshakes/s"])),
            (&format!("said(judge({{{handshakes}}}))"), {
                json!(["calm", "Calm", "calm: 5 SYN/s, 5 handshakes/s; 99 of 100 of them within 1 ms"])
            }),
            // One look is too few.
            (
                "said(verdict([facts([status(1, {mode: 'cookies'})], 'web', null)], false, String))",
                json!(["wait", "Looking …"]),
            ),
            // A busy hour: SYNs that become connections are no attack, however many.
            ("judge({syns: 9000, handshakes: {queue: 8000, cookie: 0}}).level", json!("calm")),
            // Of the kernel's own listener nothing is seen.
            ("judge({tier: 'kernel', mode: 'kernel'}).level", json!("blind")),
            // What has no part in it: a server of several is down, some packets are lost.
            ("said(judge({upstreams: [server(0, 0), server(0, 0, {up: false})]})).slice(1)", {
                json!(["Calm", "note: 1 of 2 servers behind it is down", "calm: 0 SYN/s, 0 handshakes/s"])
            }),
            ("judge({}, {draining: true}).title", json!("Draining: no new connections are taken")),
        ]);
    });
}

#[test]
fn an_attack_is_told_by_the_mode_the_syns_the_cookies_or_the_noise() {
    isolated!(|| {
        let served = "handshakes: {queue: 0, cookie: 30}";
        expect([
            (
                &format!(
                    "said(judge({{mode: 'cookies', switches: [{{to: 'cookies', unix_seconds: 7}}], {served}}}, {{base: 6}}))"
                ),
                json!([
                    "attack",
                    "Under attack: users get in",
                    "attack: the half-open queue was about to fill: SYNs are answered with cookies alone since T7",
                    "calm: 3 handshakes/s complete"
                ]),
            ),
            (
                &format!("said(judge({{syns: 9000, {served}}}, {{base: 6}})).slice(1, 3)"),
                json!(["Under attack: users get in", "attack: 900 SYN/s come in, and 3/s become a connection"]),
            ),
            (
                &format!("judge({{cookies_bad: 1000, {served}}}, {{base: 6}}).title"),
                json!("Under attack: users get in"),
            ),
            (
                &format!("judge({{dropped: {{reset: 10000}}, {served}}}, {{base: 6}}).title"),
                json!("Under attack: users get in"),
            ),
            // The traffic of open connections passes the tap too.
            ("judge({dropped: {kernel_owns: 100000}}).title", json!("Calm")),
            // Nobody comes: that may be the hour, or the attack. It is said as it is.
            ("judge({mode: 'cookies'}).title", json!("Under attack: no users seen")),
            ("judge({mode: 'cookies'}).levels", json!({"web": "attack"})),
        ]);
    });
}

#[test]
fn that_users_get_in_is_said_only_by_what_is_usual() {
    isolated!(|| {
        let attacked = "mode: 'cookies', syns: 80000, handshakes: {queue: 0, cookie: 3}";
        let reasons = |reason: &str| {
            json!([
                "attack: the half-open queue was about to fill: SYNs are answered with cookies alone",
                "attack: 8.0k SYN/s come in, and 0.3/s become a connection",
                reason
            ])
        };
        let said = |base: &str| format!("said(judge({{{attacked}}}, {{base: {base}}})).slice(2)");
        let title = |base: &str| format!("judge({{{attacked}}}, {{base: {base}}}).title");
        let kinds = ["null", "0.6", "0.7"];
        let [unknown, half, less] = kinds.map(said);
        let [unknown_title, half_title, less_title] = kinds.map(title);
        expect([
            // The page was opened after the flood had begun: whether 0.3 a second are all or few, nobody knows here.
            (&unknown_title, json!("Under attack: some get in")),
            (&unknown, {
                reasons(
                    "note: 0.3 handshakes/s complete. What is usual is not known, for this page has not seen enough calm",
                )
            }),
            (&half_title, json!("Under attack: users get in")),
            (&half, reasons("calm: 0.3 handshakes/s complete")),
            // Fewer than half, of so few that chance may do it.
            (&less_title, json!("Under attack: some get in")),
            (&less, reasons("note: 0.3 handshakes/s complete. Usual are 0.7/s: too few to tell")),
            // Of two listeners one lets its users in, and at the other nobody is seen.
            (
                "(() => { const two = (seconds, cookie) => ({ ...status(seconds), listeners: [listener({ mode: 'cookies', \
                 handshakes: { queue: 0, cookie } }), listener({ name: 'b', mode: 'cookies' })] }); const looks = [two(0, 0), two(10, 50)]; \
                 return verdict([facts(looks, 'web', 5), facts(looks, 'b', null)], false, String).title; })()",
                json!("Under attack: some get in"),
            ),
        ]);
    });
}

#[test]
fn users_lose_by_lost_packets_full_queues_dead_servers_and_slow_or_missing_handshakes() {
    isolated!(|| {
        let attacked = "mode: 'cookies', syns: 1000, handshakes: {queue: 0, cookie: 30}";
        let losing = json!("Under attack: users are losing");
        let alone = json!("No attack, but users are losing");
        expect([
            (&format!("judge({{{attacked}, ring_dropped: 100}}).title"), losing.clone()),
            (
                &format!("judge({{{attacked}, ring_dropped: 10}}, {{base: 5}}).title"),
                json!("Under attack: users get in"),
            ),
            // The bpf tier's ring has reports; a lost one costs no client.
            (
                &format!("judge({{{attacked}, tier: 'bpf', ring_dropped: 100}}, {{base: 5}}).title"),
                json!("Under attack: users get in"),
            ),
            (&format!("judge({{{attacked}}}, {{base: 10}}).title"), losing.clone()),
            (&format!("judge({{{attacked}}}, {{base: 5}}).title"), json!("Under attack: users get in")),
            ("judge({accept_queue_overflows: 2}).title", alone.clone()),
            ("judge({accept_queue_overflows: 9}, {before: {accept_queue_overflows: 9}}).title", json!("Calm")),
            ("judge({handshakes_refused: {no_descriptors: 2}}).title", alone.clone()),
            ("judge({handshakes_refused: {no_memory: 2}}).title", alone.clone()),
            // A client that reuses a port is turned away with reason.
            ("judge({handshakes_refused: {tuple_busy: 1}}).title", json!("Calm")),
            ("judge({refused: {connection_limit: 2}}).title", alone.clone()),
            (
                "said(judge({refused: {rate_limit: 270}, handshakes: {queue: 300, cookie: 0}})).slice(1)",
                json!([
                    "No attack, but users are losing",
                    "harm: 27 connections/s are reset at once: more come than limits.new_per_second allows"
                ]),
            ),
            ("judge({refused: {denied: 1}}).title", json!("Calm")),
            ("judge({open: 100}).title", alone.clone()),
            ("judge({upstreams: [server(0, 0, {up: false, check_failures: 1})]}).title", alone.clone()),
            ("judge({upstreams: [server(10, 10)]}, {before: {upstreams: [server(0, 0)]}}).title", alone.clone()),
            ("judge({handshake_seconds: {bounds: [0.001, 0.01, 1, 3], counts: [17, 0, 0, 3, 0]}}).title", alone),
            (
                "judge({handshake_seconds: {bounds: [0.001, 0.01, 1, 3], counts: [18, 0, 0, 2, 0]}}).title",
                json!("Calm"),
            ),
            // Of three handshakes one slow one says nothing.
            ("judge({handshake_seconds: {bounds: [0.001, 0.01, 1, 3], counts: [2, 0, 0, 1, 0]}}).title", json!("Calm")),
        ]);
    });
}

#[test]
fn an_accident_is_a_note_and_harm_begins_where_the_alerts_begin() {
    isolated!(|| {
        let connects = |connects, failures, up| {
            format!(
                "judge({{upstreams: [server({connects}, {failures}, {{up: {up}}}), server(9, 0, {{up: {up}}})]}}, {{before: {{upstreams: [server(0, 0), server(9, 0)]}}}})"
            )
        };
        let failing = |count, of, up| format!("said({}).slice(1, 3)", connects(of, count, up));
        let [retried, none_served, one_failed, both_down] =
            [failing(10, 20, true), failing(10, 10, true), failing(1, 1, true), failing(1, 1, false)];
        let harmed = "No attack, but users are losing";
        expect([
            // More than one in a hundred, and more than one in ten seconds.
            ("judge({accept_queue_overflows: 1}).title", json!("Calm")),
            ("judge({accept_queue_overflows: 9, handshakes: {queue: 1000, cookie: 0}}).title", json!("Calm")),
            ("judge({accept_queue_overflows: 11, handshakes: {queue: 1000, cookie: 0}}).title", json!(harmed)),
            (
                "said(judge({accept_queue_overflows: 9, handshakes: {queue: 1000, cookie: 0}}))[2]",
                json!("note: the accept queue was full for 0.9 finished handshakes/s"),
            ),
            // All reasons together.
            (
                "said(judge({refused: {rate_limit: 1}})).slice(1, 3)",
                json!([
                    "Calm",
                    "note: 0.1 connections/s are reset at once: more come than limits.new_per_second allows"
                ]),
            ),
            ("judge({refused: {rate_limit: 1}, handshakes_refused: {no_memory: 1}}).title", json!(harmed)),
            // One is one, also for a page that has looked on for a second only.
            (
                "verdict([facts([status(0, {}), status(1, {refused: {rate_limit: 1}})], 'web', null)], false, String).title",
                json!("Calm"),
            ),
            // Another server was tried, and served everyone.
            (&retried, json!(["Calm", "note: 1 connects/s to a server behind it fail, and others succeed"])),
            (&none_served, json!([harmed, "harm: every connect to the servers behind it fails"])),
            (&one_failed, json!(["Calm", "calm: 0 SYN/s, 0 handshakes/s"])),
            (&both_down, json!([harmed, "harm: both servers behind it are down"])),
            // Without checks and without clients nobody knows whether they have come back.
            (
                "said(judge({upstreams: [1, 2, 3].map(() => server(7, 7, {up: false}))}, {before: {upstreams: [1, 2, 3].map(() => server(7, 7))}})).slice(1, 3)",
                json!([
                    "Calm",
                    "note: all 3 servers behind it are marked down since connects failed; none was tried lately"
                ]),
            ),
        ]);
    });
}

#[test]
fn what_a_datapath_does_not_see_is_not_told_as_nothing() {
    isolated!(|| {
        let counts = "{tier, transitions: {complete, counts: [['LISTEN', 'SYN-RECEIVED'], ['SYN-RECEIVED', 'CLOSED'], \
                      ['SYN-RECEIVED', 'ESTABLISHED'], ['ESTABLISHED', 'CLOSE-WAIT']].map(([from, to], i) => ({from, to, count: i + 1}))}}";
        let steps = "[['LISTEN', 'LISTEN'], ['LISTEN', 'SYN-RECEIVED'], ['SYN-RECEIVED', 'CLOSED'], ['SYN-RECEIVED', 'ESTABLISHED'], \
                     ['ESTABLISHED', 'CLOSE-WAIT'], ['CLOSING', 'TIME-WAIT']]";
        let flows = |tier, complete| {
            format!(
                "((tier, complete) => {steps}.map(([from, to]) => flowCount(listener({counts}), from, to)))('{tier}', {complete})"
            )
        };
        let point = |tier| {
            format!(
                "(({{syns, done, queue, cookie, bad, ring, p99}}) => [syns, done, queue, cookie, bad, ring, p99])((looks => pointOf(looks, facts(looks, 'web', null), true))([status(0, {{tier: '{tier}'}}), status(1, {{tier: '{tier}', accepted: 7}})]))"
            )
        };
        let cookies = |tier| {
            format!(
                "judge({{tier: '{tier}', mode: 'cookies', accepted: 30, handshakes: {{queue: 0, cookie: 30}}, handshake_seconds: {{bounds: [1, 3], counts: [1, 40, 0]}}}}, {{base: 3, before: {{handshake_seconds: {{bounds: [1, 3], counts: [1, 0, 0]}}}}}}).reasons.map(reason => reason.text).filter(text => text.includes('handshakes'))[0]"
            )
        };
        let half = |by_cookie, counts: [u64; 2]| {
            format!(
                "handshakeTime({{seconds: 1, then: {{handshakes: {{cookie: 5}}, handshake_seconds: {{counts: [0, 0, 0]}}}}, now: {{tier: 'bpf', handshakes: {{cookie: 5 + {by_cookie}}}, handshake_seconds: {{bounds: [0.004, 0.05], counts: [{}, {}, 0]}}}}}}, 0.5)",
                counts[0], counts[1]
            )
        };
        expect([
            (&flows("raw", true), json!([0, 1, 2, 3, 4, null])),
            (&flows("raw", false), json!([0, 1, 2, 3, null, null])),
            // Of the kernel's own, what comes out of the accept queue is seen; SYNs and what came to nothing are not.
            (&flows("kernel", true), json!([null, null, null, 3, 4, null])),
            (&flows("kernel", false), json!([null, null, null, null, null, null])),
            (&point("raw"), json!([0, 0, 0, 0, 0, 0, null])),
            (&point("kernel"), json!([null, 7, 7, null, null, null, null])),
            (&cookies("raw"), json!("100 % of the handshakes take longer than a second")),
            (&cookies("bpf"), json!("100 % of the handshakes take longer than a second")),
            (&cookies("kernel"), json!("3 handshakes/s complete; how long they take is not measured")),
            // The clock by which those by cookie are timed has steps of 8.4 ms.
            (&half(0, [9, 0]), json!({"below": 0.004})),
            (&half(1, [9, 0]), json!({"below": 0.0084})),
            (&half(1, [0, 9]), json!({"seconds": 0.027})),
            (
                "['raw', 'bpf', 'kernel'].map(tier => ['queue', 'cookies'].map(mode => unmeasured({tier, mode}) !== ''))",
                json!([[false, false], [false, false], [true, true]]),
            ),
        ]);
    });
}

#[test]
fn silence_after_a_drain_is_the_end_and_any_other_is_a_loss() {
    isolated!(|| {
        let clock = "unix => `T${unix}`";
        expect([
            (&format!("said(loss({{unix_seconds: 7, draining: true}}, {clock}))"), {
                json!([
                    "drain",
                    "The process has ended",
                    "note: No word from the server since T7: the numbers below are of then",
                    "note: It was draining. This page goes on with the next process"
                ])
            }),
            (&format!("said(loss({{unix_seconds: 7, draining: false}}, {clock})).slice(0, 3)"), {
                json!([
                    "lost",
                    "Connection lost",
                    "harm: No word from the server since T7: the numbers below are of then"
                ])
            }),
            ("said(loss(undefined, String))[2]", json!("harm: The server does not answer")),
        ]);
    });
}

#[test]
fn the_calm_before_is_the_mean_of_enough_calm_points() {
    isolated!(|| {
        expect([
            ("baseRate(Array.from({length: 20}, (_, at) => ({calm: true, done: at})))", json!(9.5)),
            ("baseRate(Array.from({length: 19}, () => ({calm: true, done: 5})))", json!(null)),
            ("baseRate(Array.from({length: 99}, () => ({calm: false, done: 5})))", json!(null)),
        ]);
    });
}
