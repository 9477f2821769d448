//! The core: what the segments of one connection tell of both ends, as rows of a ladder. No I/O and no clock.
//!
//! The tap is at the server, so what the client sends has come to it, and what the server sends is taken to arrive, as in the
//! figures of RFC 9293. Where a repetition shows that it did not, the state goes back. Only short segments and those with SYN,
//! FIN or RST come past the tap: how much data went by, sequence and acknowledgment numbers tell.

mod end;
mod event;
mod handshake;
mod reset;
mod synchronized;
#[cfg(test)]
mod tests;

use std::time::Duration;

use wire::{Flags, Options, SeqNum};

use end::{End, Stage};
pub use event::{Arrow, Bulk, Data, Event, Note, Side, States, Via};

/// Rows and remarks kept of one connection. At the bound, further ones are counted: a ladder of more is not read.
///
/// An event is at most 136 bytes, so that a flow takes some 9 KiB at most; one whose handshake was not completed, three or four rows.
pub const EVENTS_MAX: usize = 64;

const _: () = assert!(size_of::<Event>() <= 136);

/// A SYN-ACK that comes so long after the last SYN was sent by a timer, and is not the first.
const TIMER_MIN: Duration = Duration::from_millis(500);

/// A segment, without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seg {
    pub seq: SeqNum,
    pub ack: SeqNum,
    pub flags: Flags,
    pub window: u16,
    /// Bytes of data on the wire.
    pub len: u32,
    pub options: Options,
}

impl Seg {
    /// What a ladder needs of a segment.
    pub fn of(segment: &wire::Segment<'_>) -> Seg {
        Seg {
            seq: segment.seq,
            ack: segment.ack,
            flags: segment.flags,
            window: segment.window,
            len: u32::try_from(segment.payload_len).unwrap_or(u32::MAX),
            options: segment.options(),
        }
    }

    fn is_syn(&self) -> bool {
        self.flags.contains(Flags::SYN)
    }

    fn is_fin(&self) -> bool {
        self.flags.contains(Flags::FIN)
    }

    /// Neither data nor anything else that takes a sequence number, nor RST.
    fn is_pure_ack(&self) -> bool {
        self.len == 0 && self.flags.contains(Flags::ACK) && !self.flags.intersects(Flags::SYN | Flags::FIN | Flags::RST)
    }

    /// Behind the last number it takes.
    fn end(&self) -> SeqNum {
        self.seq + self.len + u32::from(self.is_fin()) + u32::from(self.is_syn())
    }
}

/// How much a flow has shown to be worth: a flood makes only flows that are not [`Proven`](Standing::Proven).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// SYNs, their answers, and whatever else anybody can send without having heard an answer.
    Unproven,
    /// Both ends have heard each other.
    Proven,
    /// Closed by both or reset; proven or not.
    Over,
}

/// What an end has done that calls for an answer of the other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Provocation {
    Syn,
    Rst,
    Fin,
}

/// One connection, from the first segment that was seen of it.
#[derive(Clone, Debug)]
pub struct Flow {
    client: End,
    server: End,
    events: Vec<Event>,
    hidden: u32,
    begun: Duration,
    last: Duration,
    last_syn: Duration,
    last_syn_ack: Option<Duration>,
    /// Its beginning was not seen.
    joined: bool,
    proven: bool,
    reset: bool,
    /// Established by an ACK for a SYN-ACK that nobody has seen: true until the server, or the process, says more.
    unconfirmed: bool,
    /// The number of an ACK that no handshake explains, which a RST may refuse.
    bad_ack: Option<SeqNum>,
    provocation: Option<(Side, Provocation)>,
    via: Option<Via>,
    telling: bool,
    /// How many events had come when the handshake was complete.
    made_at: usize,
    /// How many have been taken.
    shown: usize,
}

impl Flow {
    /// A flow that begins with this segment.
    pub fn begin(at: Duration, from: Side, seg: &Seg) -> Flow {
        let mut flow = Flow {
            client: End::new(Stage::Closed),
            server: End::new(Stage::Listen),
            events: Vec::new(),
            hidden: 0,
            begun: at,
            last: at,
            last_syn: at,
            last_syn_ack: None,
            joined: false,
            proven: false,
            reset: false,
            unconfirmed: false,
            bad_ack: None,
            provocation: None,
            via: None,
            telling: false,
            made_at: 0,
            shown: 0,
        };
        if !(seg.is_syn() && from == Side::Client) {
            flow.join(at, seg, from);
        }
        flow.on_segment(at, from, seg);
        flow
    }

    /// Counts from here, as if what is seen first came right behind the handshake.
    fn join(&mut self, at: Duration, seg: &Seg, from: Side) {
        self.joined = true;
        self.note(at, Note::Joined);
        self.client.stage = Stage::Unknown;
        self.server.stage = Stage::Unknown;
        if seg.is_syn() {
            return;
        }
        self.end_mut(from).count_from(seg.seq - 1);
        if seg.flags.contains(Flags::ACK) {
            self.end_mut(from.other()).count_from(seg.ack - 1);
        }
    }

    /// Takes the next segment.
    pub fn on_segment(&mut self, at: Duration, from: Side, seg: &Seg) {
        self.last = self.last.max(at);
        if from == Side::Server && !seg.flags.contains(Flags::RST) && !seg.is_syn() {
            // Only a socket sends such a segment.
            self.unconfirmed = false;
            self.proven = true;
            self.stand();
        }
        match (seg.flags.contains(Flags::RST), seg.is_syn(), from) {
            (true, _, _) => self.on_rst(at, from, seg),
            (false, true, Side::Client) => self.on_syn(at, seg),
            (false, true, Side::Server) => self.on_syn_ack(at, seg),
            (false, false, _) if self.is_shaking_hands() => self.on_handshake(at, from, seg),
            (false, false, _) => self.on_synchronized(at, from, seg),
        }
        self.note_window(from, seg);
    }

    /// Whether this SYN begins another connection than the one the flow shows.
    pub fn is_succeeded_by(&self, from: Side, seg: &Seg) -> bool {
        let first = from == Side::Client && seg.is_syn() && !seg.flags.intersects(Flags::ACK | Flags::RST);
        let shaking = self.is_shaking_hands() || self.joined && !self.proven;
        first && self.client.isn != Some(seg.seq) && (self.standing() == Standing::Over || shaking)
    }

    /// What it has shown to be worth.
    pub fn standing(&self) -> Standing {
        use listener::TcpState::{Closed, TimeWait};
        let ended = |end: &End| matches!(end.state(), Some(Closed | TimeWait));
        if self.reset || self.client.isn.is_some() && ended(&self.client) && ended(&self.server) {
            Standing::Over
        } else if self.proven {
            Standing::Proven
        } else {
            Standing::Unproven
        }
    }

    /// Whether it went so far that the process may know by which path it was made, and that is not known yet.
    pub fn wants_via(&self) -> bool {
        let told = self.via.is_some() || self.standing() == Standing::Over;
        let made = self.client.stage == Stage::Synchronized && self.server.stage == Stage::Synchronized;
        !told && (made || self.joined && self.client.isn.is_some())
    }

    /// The process says by which path it was made, and how long ago.
    pub fn on_via(&mut self, at: Duration, via: Via, age: Duration) {
        self.unconfirmed = false;
        self.proven = true;
        if self.via.is_some() {
            return;
        }
        let seen = at.saturating_sub(self.begun);
        if !self.joined || age <= seen + SEEN_LATE {
            self.via = Some(via);
            self.insert_via(via);
            self.stand();
        }
    }

    /// All connections of the process are made by this path: so was this one, if it was made.
    pub fn on_always(&mut self, via: Via) {
        if self.via.is_none() && self.proven && self.made_at > 0 {
            self.via = Some(via);
            self.insert_via(via);
        }
    }

    /// Puts the remark below the segment that ended the handshake, unless what follows has been shown already.
    fn insert_via(&mut self, via: Via) {
        if let Some(first @ Event::Note(_, Note::Joined)) = self.events.first_mut() {
            *first = Event::Note(self.begun, Note::HandshakeUnseen);
            // Below the segment that was seen first.
            self.made_at = 2;
            self.telling = true;
        }
        let place = self.made_at.max(self.shown).min(self.events.len());
        let at = self.events.get(place.saturating_sub(1)).map_or(self.begun, Event::at);
        if self.events.len() < EVENTS_MAX {
            self.events.insert(place, Event::Note(at, Note::Via(via)));
        }
    }

    /// The process knows no such connection, though the client believes in one.
    pub fn on_unknown(&mut self, at: Duration) {
        let only_client = self.joined && !self.proven && self.standing() == Standing::Unproven;
        if self.unconfirmed || only_client {
            self.unconfirmed = false;
            self.reset = true;
            self.server.stage = Stage::Listen;
            let server = self.server.state();
            if let Some(Event::Segment(last)) = self.events.get_mut(self.shown..).and_then(|rows| rows.last_mut()) {
                last.after.server = server;
            }
            self.note(at, Note::BadCookie { reset: false });
        }
    }

    /// How long it may be quiet until it counts as ended; `None`: for ever.
    pub fn quiet_max(&self) -> Option<Duration> {
        let both_fins = self.client.fin.is_some() && self.server.fin.is_some();
        match self.standing() {
            Standing::Over => Some(LINGER),
            _ if matches!(self.provocation, Some((_, Provocation::Rst))) => Some(LINGER),
            Standing::Proven if both_fins => Some(LAST_ACK_QUIET),
            Standing::Proven => None,
            Standing::Unproven if self.is_shaking_hands() => Some(HANDSHAKE_QUIET),
            Standing::Unproven => Some(JOINED_QUIET),
        }
    }

    /// Nothing more is expected: says what the silence means.
    pub fn finish(&mut self) {
        let at = self.last;
        if let Some((side, Provocation::Rst)) = self.provocation.take() {
            self.note(at, Note::RstUnanswered(side));
        }
        if self.standing() != Standing::Over {
            match (self.client.stage, self.server.isn) {
                (Stage::SynSent, None) => self.note(at, Note::SynUnanswered),
                (_, Some(_)) if self.server.stage == Stage::SynReceived => self.note(at, Note::AckWithheld),
                _ => {}
            }
        }
        if self.hidden > 0 {
            let hidden = Event::Note(at, Note::RowsHidden(std::mem::take(&mut self.hidden)));
            self.events.push(hidden);
        }
    }

    /// What is to be shown and has not been taken yet, in the order of time. A row that may still change is left for later, but
    /// not at the end.
    pub fn take_rows(&mut self, end: bool) -> &[Event] {
        let open = !end && matches!(self.events.last(), Some(Event::Data(_)));
        let from = self.shown;
        self.shown = (self.events.len() - usize::from(open)).max(from);
        &self.events[from..self.shown]
    }

    /// Whether it is worth a ladder: of a connection that was joined, data and ACKs alone are not.
    pub fn is_telling(&self) -> bool {
        self.telling
    }

    /// When its first and its last segment was seen.
    pub fn span(&self) -> (Duration, Duration) {
        (self.begun, self.last)
    }

    /// Whether the answer to its SYN is still out, as far as was seen.
    pub fn is_shaking_hands(&self) -> bool {
        !self.joined && (self.client.stage == Stage::SynSent || self.server.stage == Stage::SynReceived)
    }

    fn note_window(&mut self, from: Side, seg: &Seg) {
        // RFC 7323 §2.2: the window of a SYN is never scaled.
        let end = self.end_mut(from);
        let shift = if seg.is_syn() { 0 } else { end.wscale };
        if !seg.flags.contains(Flags::RST) {
            end.window_bytes = u32::from(seg.window) << shift;
        }
    }

    fn end(&self, side: Side) -> &End {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    fn end_mut(&mut self, side: Side) -> &mut End {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    fn states(&self) -> States {
        States { client: self.client.state(), server: self.server.state() }
    }

    /// Draws a segment, whose effects have been taken into account.
    fn arrow(&mut self, at: Duration, from: Side, seg: &Seg, before: States) {
        let ack = seg.flags.contains(Flags::ACK).then(|| self.end(from.other()).relative(seg.ack));
        self.push(Event::Segment(Arrow {
            at,
            from,
            flags: seg.flags,
            seq: self.end(from).relative(seg.seq),
            ack,
            window: Some(seg.window),
            options: seg.is_syn().then_some(seg.options),
            len: seg.len,
            inferred: false,
            before,
            after: self.states(),
        }));
    }

    fn note(&mut self, at: Duration, note: Note) {
        self.push(Event::Note(at, note));
    }

    /// Counts a segment into the row of data that is open, or opens one.
    fn data(&mut self, at: Duration, from: Side, seg: &Seg, news: u32, acked: u32) {
        let states = self.states();
        if !matches!(self.events.last(), Some(Event::Data(_))) {
            let [client, server] = [Bulk::default(); 2];
            self.push(Event::Data(Data { at, until: at, client, server, states }));
        }
        let Some(Event::Data(row)) = self.events.last_mut() else { return };
        row.until = at;
        let (sender, other) = match from {
            Side::Client => (&mut row.client, &mut row.server),
            Side::Server => (&mut row.server, &mut row.client),
        };
        sender.bytes += u64::from(news);
        other.bytes += u64::from(acked);
        match (seg.len, news) {
            (0, _) => sender.acks = sender.acks.saturating_add(1),
            (_, 0) => sender.again = sender.again.saturating_add(1),
            _ => {
                sender.segments = sender.segments.saturating_add(1);
                sender.seen_bytes += u64::from(seg.len.min(news));
            }
        }
    }

    fn push(&mut self, event: Event) {
        self.telling |= match &event {
            Event::Segment(arrow) => arrow.flags.intersects(Flags::SYN | Flags::FIN | Flags::RST),
            Event::Note(_, note) => !matches!(note, Note::Joined),
            Event::Data(_) => false,
        };
        if self.events.len() < EVENTS_MAX {
            self.events.push(event);
        } else {
            self.hidden = self.hidden.saturating_add(1);
        }
    }
}

/// A flow that is over is kept for repeated FINs, whose timer is 200 ms at least, and for late RSTs; and so is one with a RST that
/// nothing answers.
const LINGER: Duration = Duration::from_secs(1);

/// Both have sent FIN, and the last ACK was not seen: as long as Linux stays in TIME-WAIT.
const LAST_ACK_QUIET: Duration = Duration::from_secs(60);

/// Between two attempts of a handshake: clients repeat a SYN after 1, 2, 4 and 8 s, and give up some time later.
const HANDSHAKE_QUIET: Duration = Duration::from_secs(10);

/// A flow that was joined, and in which only one end was heard.
const JOINED_QUIET: Duration = Duration::from_secs(2);

/// How much older than the first segment seen a connection may be that began with it: the time it takes to ask.
const SEEN_LATE: Duration = Duration::from_millis(250);
