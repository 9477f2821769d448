//! Packet traces and the ladders that become of them: each file has a sentence, the packets, and the diagram.

mod properties;

use std::net::SocketAddr;
use std::time::Duration;

use wire::{Endpoint, Flags, FourTuple, Options, SeqNum, TimestampOption};

use super::super::draw::Style;
use super::{EVENTS_MAX, Event, Flow, Seg, Side, Standing, Via};

/// The ladder of the packets of a file.
fn ladder(packets: &str) -> String {
    let mut flow = None;
    packets.lines().filter(|line| !line.is_empty()).for_each(|line| play(&mut flow, line));
    let mut flow = flow.expect("a packet");
    flow.finish();
    draw(&mut flow)
}

fn draw(flow: &mut Flow) -> String {
    let end = |text: &str| Endpoint::from(text.parse::<SocketAddr>().unwrap());
    let tuple = FourTuple { local: end("198.18.0.1:8080"), peer: end("198.18.0.2:40000") };
    let (begun, style) = (flow.span().0, Style::default());
    let rows = flow.take_rows(true).to_vec();
    let head = style.head(1, &tuple, rows.first());
    head + &rows.iter().map(|row| style.event(begun, row)).collect::<String>()
}

/// One line of a trace: `0.002 client PSH,ACK 1001 5001 len 18`, `0.002 via cookie`, `0.6 unknown`.
fn play(flow: &mut Option<Flow>, line: &str) {
    let mut words = line.split_whitespace();
    let mut word = || words.next();
    let at = Duration::from_secs_f64(word().unwrap().parse().unwrap());
    let from = match word().unwrap() {
        "via" => return flow.as_mut().unwrap().on_via(at, Via::from_word(word().unwrap()).unwrap(), at),
        "unknown" => return flow.as_mut().unwrap().on_unknown(at),
        "client" => Side::Client,
        "server" => Side::Server,
        other => panic!("who is {other}?"),
    };
    let flags = word().unwrap().split(',').fold(Flags::NONE, |all, name| all | flag(name));
    let number = |text: Option<&str>| SeqNum::new(text.unwrap().parse().unwrap());
    let seq = number(word());
    let ack = if flags.contains(Flags::ACK) { number(word()) } else { SeqNum::new(0) };
    let mut seg = Seg { seq, ack, flags, window: 1000, len: 0, options: Options::default() };
    while let Some(name) = word() {
        match name {
            "len" => seg.len = word().unwrap().parse().unwrap(),
            "mss" => seg.options.mss = word().unwrap().parse().ok(),
            "ws" => seg.options.wscale = word().unwrap().parse().ok(),
            "sack" => seg.options.sack_permitted = true,
            "ts" => seg.options.timestamps = Some(TimestampOption::default()),
            other => panic!("what is {other}?"),
        }
    }
    match flow {
        Some(flow) => flow.on_segment(at, from, &seg),
        None => *flow = Some(Flow::begin(at, from, &seg)),
    }
}

fn flag(name: &str) -> Flags {
    match name {
        "SYN" => Flags::SYN,
        "ACK" => Flags::ACK,
        "FIN" => Flags::FIN,
        "RST" => Flags::RST,
        "PSH" => Flags::PSH,
        other => panic!("no flag {other}"),
    }
}

macro_rules! ladders {
    ($($name:ident)+) => { $(
        #[test]
        fn $name() {
            check(include_str!(concat!(stringify!($name), ".txt")));
        }
    )+ };
}

/// Plays the packets of a file and compares with its diagram.
fn check(file: &str) {
    let (_sentence, rest) = file.split_once("\n\n").expect("a sentence and an empty line");
    let (packets, expected) = rest.split_once("\n\n").expect("packets and an empty line");
    let shown = ladder(packets);
    assert!(shown == expected, "expected:\n{expected}\nshown:\n{shown}");
    for line in shown.lines() {
        assert!(line.chars().count() <= 100, "wider than 100 columns: {line}");
    }
}

ladders! {
    ack_is_withheld
    ack_out_of_the_blue
    ack_out_of_the_blue_in_silence
    ack_proves_nothing
    bad_cookie_behind_a_syn
    client_half_closes
    data_is_sent_again
    fins_cross
    fin_before_the_socket
    first_syn_ack_is_below_the_tap
    handshake_below_the_tap
    handshake_by_an_entry
    handshake_left_out_in_a_flood
    refused_behind_the_handshake
    rst_at_three_places
    rst_unanswered
    server_closes_first
    syn_inside_a_connection
    syn_is_not_answered
    syn_is_refused
    teardown_of_an_older_connection
    time_wait_answers_again
}

fn flow_of(packets: &[&str]) -> Flow {
    let mut flow = None;
    packets.iter().for_each(|line| play(&mut flow, line));
    flow.unwrap()
}

#[test]
fn syn_alone_proves_nothing() {
    let flow = flow_of(&["0 client SYN 1000"]);
    assert_eq!(flow.standing(), Standing::Unproven);
    assert!(!flow.wants_via(), "the process would be asked about every SYN of a flood");
}

#[test]
fn ack_for_an_unseen_syn_ack_proves_nothing_until_the_server_speaks() {
    let flow = flow_of(&["0 client SYN 1000", "1 client ACK 1001 5001"]);
    assert_eq!(flow.standing(), Standing::Unproven);
    assert!(flow.wants_via());
    let flow = flow_of(&["0 client SYN 1000", "1 client ACK 1001 5001 len 9", "2 server ACK 5001 1010"]);
    assert_eq!(flow.standing(), Standing::Proven);
}

#[test]
fn another_syn_on_the_tuple_of_a_connection_that_is_over_begins_another() {
    let over = flow_of(&["0 client SYN 1000", "0.1 server RST,ACK 0 1001"]);
    let stands = flow_of(&["0 client SYN 1000", "0.1 server SYN,ACK 5000 1001", "0.2 client ACK 1001 5001"]);
    let seg = |seq| Seg {
        seq: SeqNum::new(seq),
        ack: SeqNum::new(0),
        flags: Flags::SYN,
        window: 0,
        len: 0,
        options: Options::default(),
    };
    assert!(over.is_succeeded_by(Side::Client, &seg(2000)));
    assert!(!stands.is_succeeded_by(Side::Client, &seg(2000)), "that calls for a challenge ACK");
}

#[test]
fn rows_have_a_bound_and_what_is_beyond_is_counted() {
    let mut flow = Some(flow_of(&["0 client SYN 1000"]));
    for second in 1..1000 {
        play(&mut flow, &format!("{second} client SYN 1000"));
    }
    let mut flow = flow.unwrap();
    flow.finish();
    let rows = flow.take_rows(true);
    assert!(rows.len() <= EVENTS_MAX + 1);
    assert!(matches!(rows.last(), Some(Event::Note(_, super::Note::RowsHidden(1936)))), "{:?}", rows.last());
}

#[test]
fn row_of_data_is_held_back_while_it_grows() {
    let mut flow = flow_of(&[
        "0 client SYN 1000",
        "0.1 server SYN,ACK 5000 1001",
        "0.2 client ACK 1001 5001",
        "0.3 client ACK 1001 5001 len 5",
    ]);
    assert_eq!(flow.take_rows(false).len(), 3);
    assert_eq!(flow.take_rows(false).len(), 0);
    assert_eq!(flow.take_rows(true).len(), 1);
}
