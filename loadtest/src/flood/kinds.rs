//! The templates of each kind of flood.

use std::net::SocketAddr;

use testnet::{Flags, Mac, Segment};

use super::options::{ACK, ACK_TIMESTAMP_AT, Layout};
use super::prefix::Prefix;
use super::recipe::Recipe;
use super::spec::{FloodKind, FloodSpec, Place, Sources};
use super::template::{PORT_BITS, Template, Varies, key_of};

const SEQ: (usize, usize) = (4, 4);
const SEQ_AND_ACK: (usize, usize) = (4, 8);
const OPTIONS: usize = 20;
/// What Linux offers in a SYN with an MSS of 1460.
pub const WINDOW: u16 = 64_240;
/// What a SYN with data carries: a multiple of 4 bytes.
const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n\r\n";

/// The frames of a flood. `None` where they are not known beforehand: those of a replay and of sockets.
pub fn recipe(spec: &FloodSpec, place: &Place) -> Option<Recipe> {
    let layouts = spec.options.layouts();
    let templates = match spec.kind {
        FloodKind::Syn | FloodKind::HalfOpen => layouts.iter().map(|layout| syn(spec, place, layout, &[])).collect(),
        FloodKind::SynData => layouts.iter().map(|layout| syn(spec, place, layout, REQUEST)).collect(),
        FloodKind::Ack => layouts.iter().map(|layout| ack(spec, place, layout)).collect(),
        FloodKind::Rst => vec![bare(spec, place, Flags::RST)],
        FloodKind::Fin => vec![bare(spec, place, Flags::FIN)],
        FloodKind::Null => vec![bare(spec, place, Flags::NONE)],
        FloodKind::Xmas => vec![bare(spec, place, Flags::FIN | Flags::PSH | Flags::URG)],
        FloodKind::Replay
        | FloodKind::Connect
        | FloodKind::AckSilent
        | FloodKind::ZeroWindow
        | FloodKind::SlowRead
        | FloodKind::SlowWrite => return None,
    };
    Some(Recipe::new(templates, spec.seed))
}

/// The SYNs by which a replay begins.
pub fn handshakes(spec: &FloodSpec, place: &Place) -> Recipe {
    let spec = FloodSpec { sources: Sources::Random, ..spec.clone() };
    let templates = spec.options.layouts().iter().map(|layout| syn(&spec, place, layout, &[])).collect();
    Recipe::new(templates, spec.seed)
}

fn syn(spec: &FloodSpec, place: &Place, layout: &Layout, payload: &[u8]) -> Template {
    let timestamp = layout.timestamp_at.map(|at| (OPTIONS + at, 4));
    let fields = [SEQ].into_iter().chain(timestamp).collect();
    let write = |segment: Segment| segment.options(layout.syn.to_vec()).payload(payload);
    template(spec, place, Flags::SYN, fields, write)
}

fn ack(spec: &FloodSpec, place: &Place, layout: &Layout) -> Template {
    let (options, timestamps) = match layout.timestamp_at {
        Some(_) => (ACK, Some((OPTIONS + ACK_TIMESTAMP_AT, 8))),
        None => (&[][..], None),
    };
    let fields = [SEQ_AND_ACK].into_iter().chain(timestamps).collect();
    template(spec, place, Flags::ACK, fields, |segment| segment.options(options.to_vec()))
}

fn bare(spec: &FloodSpec, place: &Place, flags: Flags) -> Template {
    template(spec, place, flags, vec![SEQ], |segment| segment)
}

fn template(
    spec: &FloodSpec,
    place: &Place,
    flags: Flags,
    fields: Vec<(usize, usize)>,
    write: impl FnOnce(Segment) -> Segment,
) -> Template {
    let (source, host_bits, port) = sources(spec, &place.spoofed);
    let segment = write(Segment::new(source, spec.target, flags).window(WINDOW));
    Template::new(&frame(&segment, place.source_mac, place.gateway_mac), &Varies { host_bits, port, fields })
}

/// The frame as a client's kernel would send it: not to be fragmented, hence without a number (RFC 6864 §4.1).
pub fn frame(segment: &Segment, from: Mac, to: Mac) -> Vec<u8> {
    let mut frame = segment.frame(from, to);
    if frame[12..14] == [8, 0] {
        frame[18..22].copy_from_slice(&[0, 0, 0x40, 0]);
    }
    frame
}

/// An endpoint with zeros in what varies; how many host bits do; and whether the port does.
fn sources(spec: &FloodSpec, spoofed: &Prefix) -> (SocketAddr, u32, bool) {
    let key = key_of(spec.seed);
    let one = spoofed.host(u128::from(key) << 64 | u128::from(key.rotate_left(32)));
    let ports = 1 << PORT_BITS;
    let narrow = Prefix::of(one, if one.is_ipv4() { 24 } else { 64 });
    let narrow = if spoofed.covers(&narrow) { narrow } else { *spoofed };
    let kind = if spec.kind == FloodKind::HalfOpen { Sources::Random } else { spec.sources };
    match kind {
        Sources::Random => (SocketAddr::new(spoofed.network(), ports), spoofed.host_bits(), true),
        Sources::Prefix => (SocketAddr::new(narrow.network(), ports), narrow.host_bits(), true),
        Sources::One => (SocketAddr::new(one, ports), 0, true),
        Sources::Tuple => (SocketAddr::new(one, ports | (key as u16) >> 1), 0, false),
    }
}
