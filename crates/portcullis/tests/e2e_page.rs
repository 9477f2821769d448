//! The live page in a real browser: what it shows is what `/metrics` tells, during a flood and at rest.

mod browser;
#[path = "browser/logic.rs"]
mod logic;
mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::thread;

use browser::numbers::{Number, assert_between, expect_equal, numbers, wait_for_samples};
use browser::scene::{PAGE, TITLE, attack, door, page, wait_for_title};
use browser::{Browser, Tab};
use serde_json::json;
use support::clients::Clients;
use support::{Door, Lab, PATIENCE, Scratch, V4, connect_from};
use testnet::{eventually, isolated, states, take_turns};

const ADMIN_PORT: u16 = 9464;
/// Few entries, which are given up soon: an attack is one at once, and it is over soon after its end.
const SMALL_QUEUE: &str = "half_open.max = 256\nhalf_open.synack_retries = 1\n";

/// Checks that the page asked nobody but its server, and that the browser had nothing to complain of.
fn assert_clean(tab: &Tab<'_>) {
    let foreign: Vec<_> =
        tab.requests().into_iter().filter(|url| !url.starts_with(PAGE) && !url.starts_with("data:")).collect();
    assert!(foreign.is_empty(), "asked for {foreign:?}");
    let complaints = tab.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn a_flood_is_told_as_an_attack_that_some_survive_and_every_number_is_that_of_metrics() {
    let _turn = take_turns();
    isolated!(|| {
        let (lab, scratch, stop) = (Lab::new(), Scratch::new(), AtomicBool::new(false));
        let door = door(&lab, &scratch, &[("web", 8080, &format!("service = \"echo\"\n{SMALL_QUEUE}"))]);
        let browser = Browser::start(&lab.server);
        let tab = page(&browser);
        wait_for_title(&tab, "Calm");
        let clients = Clients::default();
        thread::scope(|scope| {
            let _attack = attack(scope, &lab, &stop, 2000);
            let _until = clients.come(scope, &lab.client, [V4]);
            // The calm before was too short to know how many are usual.
            wait_for_title(&tab, "Under attack: some get in");
            for _ in 0..3 {
                let before = door.metrics();
                wait_for_samples(&tab, 2);
                let shown = numbers(&tab);
                assert_between(&before, &shown, &door.metrics());
                assert!(
                    shown.iter().any(|number| number.name == "portcullis_syncookies_active" && number.value == 1.0)
                );
            }
            assert_eq!(tab.evaluate("document.getElementById('listeners').hidden"), json!(true), "one needs no tabs");
            wait_for_title(&tab, "Under attack: some get in");
            assert!(clients.served() > 0);
        });
        wait_for_title(&tab, "Calm");
        expect_equal(&door, &tab);
        let switches = tab.evaluate(
            "[...document.querySelectorAll('#side section:nth-of-type(2) tbody th')].map(e => e.textContent)",
        );
        assert_eq!(switches, json!(["half-open queue", "cookies alone"]));
        assert_clean(&tab);
    });
}

/// The states in the diagram that have a count, LISTEN aside.
const COUNTS: &str = r"Object.fromEntries([...document.querySelectorAll('.state:not(.end)')]
    .map(state => [state.querySelector('.name').textContent, Number(state.querySelector('.count').textContent)])
    .filter(([name, count]) => count > 0 && name !== 'LISTEN'))";

#[test]
fn at_rest_every_number_of_every_listener_is_that_of_metrics() {
    let _turn = take_turns();
    isolated!(|| {
        let (lab, scratch) = (Lab::new(), Scratch::new());
        let (upstream, address) = lab.upstream();
        let to_upstream = format!("upstream = \"{address}\"");
        // A handshake that stays open for a minute.
        let echo = "service = \"echo\"\nhalf_open.synack_retries = 5";
        let door = door(&lab, &scratch, &[("echo", 8080, echo), ("relay", 8081, &to_upstream)]);
        let browser = Browser::start(&lab.server);
        let tab = page(&browser);
        let relay = SocketAddr::new(V4.ip(), 8081);
        let relayed = || {
            let client = lab.connect(relay);
            (client, upstream.accept().expect("the relay connects").0)
        };
        let host = lab.raw_host(V4);

        // One after the other: ESTABLISHED twice, LAST-ACK, SYN-RECEIVED; CLOSE-WAIT, FIN-WAIT-2, TIME-WAIT.
        let _established = [lab.connect(V4), lab.connect(V4)];
        let mut last_ack = host.script(2000, V4);
        last_ack.handshake();
        last_ack.fin();
        last_ack.expect_fin();
        let (close_wait, fin_wait2, (mut time_wait, server)) = (relayed(), relayed(), relayed());
        close_wait.0.shutdown(Shutdown::Write).expect("the client's FIN");
        fin_wait2.1.shutdown(Shutdown::Write).expect("the upstream's FIN");
        drop(server);
        assert_eq!(time_wait.read(&mut [0]).expect("the upstream's FIN"), 0);
        drop(time_wait);
        let mut syn_received = host.script(2001, V4);
        syn_received.syn();
        syn_received.expect_syn_ack();

        let expected = [
            ("echo", json!({"ESTABLISHED": 2, "LAST-ACK": 1, "SYN-RECEIVED": 1})),
            ("relay", json!({"CLOSE-WAIT": 1, "FIN-WAIT-2": 1, "TIME-WAIT": 1})),
        ];
        for (at, (listener, states)) in expected.into_iter().enumerate() {
            tab.evaluate(&format!("document.querySelectorAll('#tabs input')[{at}].click()"));
            tab.wait_for(
                "the listener's numbers",
                &format!("document.getElementById('about').textContent.startsWith('{listener}')"),
            );
            // The kernel's sockets are counted once a second at most.
            eventually(&format!("{states} of {listener} on the page"), PATIENCE, || tab.evaluate(COUNTS) == states);
            expect_equal(&door, &tab);
            let is_its_own = |number: &Number| number.labels.get("listener").is_none_or(|name| name == listener);
            assert!(numbers(&tab).iter().all(is_its_own), "numbers of another listener than {listener}");
        }
        assert_eq!(tab.text(TITLE), "Calm");
        assert_clean(&tab);
    });
}

/// Streams of the admin server.
fn streams(lab: &Lab) -> usize {
    states(&lab.server, ADMIN_PORT).get("established").copied().unwrap_or(0)
}

#[test]
fn a_page_that_nobody_sees_has_no_stream_and_goes_on_when_it_is_seen() {
    let _turn = take_turns();
    isolated!(|| {
        let lab = Lab::new();
        let _door = Door::open(&lab, "echo");
        let browser = Browser::start(&lab.server);
        let tab = page(&browser);
        eventually("a stream, and nothing besides", PATIENCE, || streams(&lab) == 1);
        let other = browser.tab();
        other.show();
        tab.wait_for("another tab in front", "document.hidden");
        eventually("no stream of a hidden page", PATIENCE, || streams(&lab) == 0);
        // As after a long time. What is shown is told to be old before anything new is there.
        tab.evaluate(
            "lastData -= 60000; var titles = []; const set = setText; \
             setText = (node, text) => { if (node.id === 'title') titles.push([text, document.body.classList.contains('lost')]); set(node, text); }; 0",
        );
        tab.show();
        let clock = tab.evaluate("samples[samples.length - 1].clock_seconds");
        tab.wait_for("the page goes on", &format!("samples[samples.length - 1].clock_seconds > {clock}"));
        assert_eq!(tab.evaluate("titles[0]"), json!(["Looking …", true]));
        tab.wait_for("what is new", "!document.body.classList.contains('lost')");
        assert_clean(&tab);
        tab.close();
        eventually("no stream of a closed page", PATIENCE, || streams(&lab) == 0);
    });
}

/// What the tiles say, by their titles.
const TILES: &str = "Object.fromEntries([...document.querySelectorAll('.tile')].map(tile => [tile.querySelector('h3').textContent, \
                     tile.querySelector('.big').textContent]))";

#[test]
fn of_the_kernels_own_listener_what_is_not_seen_is_a_question_mark() {
    let _turn = take_turns();
    isolated!(|| {
        let lab = Lab::new();
        let _door = Door::with(&lab, &["--service", "echo", "--datapath", "kernel"]);
        let browser = Browser::start(&lab.server);
        let tab = page(&browser);
        wait_for_title(&tab, "Datapath kernel: a flood would not be seen here");
        for title in ["SYNs", "Handshake time, p99", "Bad cookies", "Lost unread"] {
            assert_eq!(tab.evaluate(TILES)[title], json!("?"), "{title}");
        }
        assert_eq!(tab.evaluate(TILES)["Handshakes completed"], json!("0 per second"));
        let cards = tab.text(
            "[...document.querySelectorAll('.card:not([hidden]) h3')].map(title => title.textContent).join(', ')",
        );
        assert_eq!(cards, "TCP states, Mode, Process, Connections");
        assert_eq!(tab.evaluate("[...document.querySelectorAll('#tiles .spark')][0].getAttribute('d')"), json!(""));
        assert_clean(&tab);
    });
}

/// Streams that there may be at once.
const STREAMS_MAX: usize = 8;

#[test]
fn one_viewer_too_many_is_told_so_and_looks_now_and_then() {
    let _turn = take_turns();
    isolated!(|| {
        let lab = Lab::new();
        let _door = Door::open(&lab, "echo");
        let admin = SocketAddr::new([127, 0, 0, 1].into(), ADMIN_PORT);
        let others: Vec<_> = (0..STREAMS_MAX)
            .map(|_| {
                let mut stream = connect_from(&lab.server, admin).expect("the admin server");
                stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n").expect("a request");
                assert_ne!(stream.read(&mut [0; 512]).expect("an answer"), 0);
                stream
            })
            .collect();
        let browser = Browser::start(&lab.server);
        let tab = page(&browser);
        let said = "document.getElementById('link-text').textContent";
        assert!(tab.text(said).starts_with("eight others are looking"), "{}", tab.text(said));
        wait_for_title(&tab, "Calm");
        let first = tab.evaluate("samples.length");
        tab.wait_for("a further look", &format!("samples.length > {first}"));
        assert_eq!(tab.text(TITLE), "Calm");
        // Places come free at the next event. The page would try for one within half a minute; here it is told to.
        drop(others);
        tab.wait_for("the stream", &format!("(stream || clearTimeout(poll), connect(), {said} === 'live')"));
    });
}

#[test]
fn a_lost_server_is_said_and_another_process_begins_anew() {
    let _turn = take_turns();
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        let browser = Browser::start(&lab.server);
        let tab = page(&browser);
        let points = "history.get(chosen).points.length";
        tab.wait_for("some history", &format!("{points} > 3"));
        door.kill();
        wait_for_title(&tab, "Connection lost");
        assert!(tab.text("document.getElementById('reasons').textContent").contains("No word from the server since"));
        assert_eq!(tab.text("document.getElementById('link-text').textContent"), "connection lost; trying again");
        let door = Door::open(&lab, "echo");
        wait_for_title(&tab, "Calm");
        assert_eq!(tab.evaluate("samples.every(status => status.pid === samples[0].pid)"), json!(true));
        assert_eq!(tab.evaluate("samples[0].pid"), json!(door.pid()));
        let since = tab.evaluate(&format!("{points} <= samples[samples.length - 1].uptime_seconds + 1"));
        assert_eq!(since, json!(true), "points of the process before");
        assert_eq!(tab.text("document.getElementById('link-text').textContent"), "live");
    });
}

/// The least contrast of text with what is behind it, as WCAG 2.2 §1.4.3 computes it, and of which text that is.
const CONTRAST: &str = r#"(() => {
    const rgb = color => { const [r, g, b, a = 1] = color.match(/[\d.]+/g).map(Number); return a === 1 ? [r, g, b] : null; };
    const linear = value => value <= 0.04045 * 255 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4;
    const luminance = color => [0.2126, 0.7152, 0.0722].reduce((sum, part, i) => sum + part * linear(color[i]), 0);
    const behind = node => {
        const box = node.tagName === 'text' && node.parentElement.querySelector(':scope > rect');
        const fill = box && rgb(getComputedStyle(box).fill.replace('none', 'rgba(0, 0, 0, 0)'));
        if (fill) return fill;
        for (; node; node = node.parentElement) { const color = rgb(getComputedStyle(node).backgroundColor); if (color) return color; }
        return [255, 255, 255];
    };
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
    while (texts.nextNode()) {
        const node = texts.currentNode.parentElement, text = texts.currentNode.data.trim();
        if (!text || !node.getClientRects().length || node.closest('.hidden, script, noscript')) continue;
        const style = getComputedStyle(node), front = rgb(node.namespaceURI.endsWith('svg') ? style.fill : style.color);
        const [dark, light] = [luminance(front), luminance(behind(node))].sort((a, b) => a - b);
        found.push([(light + 0.05) / (dark + 0.05), text]);
    }
    found.sort((a, b) => a[0] - b[0]);
    return [found.length, ...found[0]];
})()"#;

#[test]
fn on_a_phone_nothing_scrolls_sideways_and_text_stands_out_in_light_and_dark() {
    let _turn = take_turns();
    isolated!(|| {
        let (lab, scratch) = (Lab::new(), Scratch::new());
        let (_upstream, address) = lab.upstream();
        let long = "a-name-of-sixty-four-letters-which-is-the-most-that-is-legal-here";
        let to_upstream =
            format!("upstreams = [\"{address}\", \"unix:/run/a-rather-long-way/to/an-application.sock\"]");
        let _door = door(&lab, &scratch, &[(&long[..64], 8080, &to_upstream), ("b", 8081, "service = \"echo\"")]);
        let browser = Browser::start(&lab.server);
        let tab = page(&browser);
        for width in [320, 360, 700, 1280, 1920] {
            tab.size(width, 800);
            for scheme in ["light", "dark"] {
                tab.prefer(scheme);
                let wide = tab.evaluate("document.documentElement.scrollWidth");
                assert!(wide.as_u64() <= Some(u64::from(width)), "{wide} px wide on a screen of {width} px");
                let contrast = tab.evaluate(CONTRAST);
                assert!(
                    contrast[0].as_u64() > Some(100) && contrast[1].as_f64() >= Some(4.5),
                    "{width} {scheme}: {contrast}"
                );
            }
        }
        // The diagram changes with the screen.
        let layout = "document.querySelector('.diagram').classList.contains('narrow')";
        assert_eq!(tab.evaluate(layout), json!(false));
        tab.size(360, 800);
        tab.wait_for("the narrow diagram", layout);
        // A server's last error can be read, and what the verdict says comes first.
        let error = tab.evaluate(
            "(() => { const forged = structuredClone(samples[samples.length - 1]); forged.clock_seconds += 0.01; \
             for (const server of forged.listeners[0].upstreams) server.last_error = 'connect: Connection refused (os error 111)'; \
             take(forged); const line = document.querySelector('tr.error').getBoundingClientRect(); \
             return [line.width > 250, line.height < 60, document.querySelectorAll('tr.error').length]; })()",
        );
        assert_eq!(error, json!([true, true, 2]));
        let top =
            |id: &str| tab.evaluate(&format!("document.querySelector('{id}').getBoundingClientRect().top")).as_f64();
        assert!(top("#verdict") < top("header"));
        // The system's choice can be overruled, by the keyboard.
        tab.evaluate("document.getElementById('theme').focus()");
        tab.press_enter();
        assert_eq!(tab.text("document.documentElement.dataset.theme"), "light");
        assert_eq!(tab.text("getComputedStyle(document.body).backgroundColor"), "rgb(246, 246, 243)");
        assert_clean(&tab);
    });
}

#[test]
fn names_are_text_and_never_become_elements() {
    let _turn = take_turns();
    isolated!(|| {
        let (lab, scratch) = (Lab::new(), Scratch::new());
        let (_upstream, address) = lab.upstream();
        let _door = door(&lab, &scratch, &[("web", 8080, &format!("upstream = \"{address}\""))]);
        let browser = Browser::start(&lab.server);
        let tab = page(&browser);
        // A configuration takes no such names; a page does not rely on that.
        let evil = "<img src=x onerror=\"document.title='taken'\"><b>";
        tab.evaluate(&format!(
            "disconnect(); const evil = {}; const forged = structuredClone(samples[samples.length - 1]); forged.clock_seconds += 1; \
             forged.version = forged.log_level = evil; const [one] = forged.listeners; one.name = one.tier = one.mode = evil; one.bind = [evil]; \
             one.upstreams[0].server = one.upstreams[0].last_error = evil; one.switches = [{{ to: evil, unix_seconds: 1 }}]; \
             for (const counts of [one.closed, one.refused, one.dropped, one.half_open_removed, one.cookies_invalid]) counts[evil] = 7; \
             forged.listeners.push({{ ...one, name: 'other' }}); \
             take(forged); take({{ ...forged, clock_seconds: forged.clock_seconds + 1 }}); 0",
            json!(evil)
        ));
        let shown = tab.evaluate("document.body.textContent.split(evil).length - 1");
        assert!(shown.as_u64() > Some(8), "shown {shown} times");
        assert_eq!(tab.evaluate("document.querySelectorAll('main img, main b b, [onerror]').length"), json!(0));
        assert_ne!(tab.text("document.title"), "taken");
        // Nor could the page's own script do it by mistake: the browser was told not to let it.
        let refused = tab.evaluate("try { document.body.innerHTML = '<i>'; 'done' } catch (error) { error.name }");
        assert_eq!(refused, json!("TypeError"));
    });
}
