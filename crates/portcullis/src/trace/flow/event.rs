//! What a ladder is made of.

use std::fmt;
use std::time::Duration;

use listener::TcpState;
use wire::{Flags, Options};

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

impl Side {
    /// The one it talks to.
    pub fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }

    /// `client` or `server`.
    pub fn word(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Server => "server",
        }
    }
}

/// The states of both ends. An end of whose connection too little was seen has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct States {
    pub client: Option<TcpState>,
    pub server: Option<TcpState>,
}

/// One row of the ladder, or a remark below one. Fixed in size, so that a flow's bound in rows is one in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    Segment(Arrow),
    Data(Data),
    Note(Duration, Note),
}

impl Event {
    /// When it happened; of several, the first.
    pub fn at(&self) -> Duration {
        match self {
            Event::Segment(arrow) => arrow.at,
            Event::Data(data) => data.at,
            Event::Note(at, _) => *at,
        }
    }
}

/// A segment that is drawn by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrow {
    pub at: Duration,
    pub from: Side,
    pub flags: Flags,
    /// From the sender's initial sequence number, so that a SYN has 0; less than 0 for a number that lies before.
    pub seq: i64,
    /// From the receiver's; `None` without ACK.
    pub ack: Option<i64>,
    /// As it stands in the header; `None` where the segment is inferred.
    pub window: Option<u16>,
    /// Of a SYN or SYN-ACK that was seen.
    pub options: Option<Options>,
    pub len: u32,
    /// It passed below the tap, and follows from what came after it.
    pub inferred: bool,
    pub before: States,
    pub after: States,
}

/// Segments between two that are drawn: data, and the ACKs of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Data {
    /// When the first and the last was seen.
    pub at: Duration,
    pub until: Duration,
    pub client: Bulk,
    pub server: Bulk,
    pub states: States,
}

/// What one end has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bulk {
    /// Segments with data that came past the tap. Large ones do not: see [`bytes`](Bulk::bytes).
    pub segments: u32,
    /// How far its sequence numbers went, data included that was only seen to be acknowledged.
    pub bytes: u64,
    /// Bytes of those segments: less than `bytes` if some were not seen.
    pub seen_bytes: u64,
    /// Segments that had been sent before.
    pub again: u32,
    /// ACKs without data.
    pub acks: u32,
}

impl Bulk {
    /// Whether every byte was in a segment that was seen, so that their count means something.
    pub fn is_complete(&self) -> bool {
        self.seen_bytes >= self.bytes
    }
}

/// By which path the listener made a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Cookie,
    Queue,
    Kernel,
}

impl Via {
    /// As `ctl conns` has it.
    pub fn word(self) -> &'static str {
        match self {
            Via::Cookie => "cookie",
            Via::Queue => "queue",
            Via::Kernel => "kernel",
        }
    }

    /// The path of this name, as `ctl conns` has it.
    pub fn from_word(word: &str) -> Option<Via> {
        match word {
            "cookie" => Some(Via::Cookie),
            "queue" => Some(Via::Queue),
            "kernel" => Some(Via::Kernel),
            _ => None,
        }
    }
}

/// What the arrows alone do not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The first segment seen was not a SYN.
    Joined,
    /// The first segment seen ended a handshake.
    HandshakeUnseen,
    BelowTap,
    Via(Via),
    SynAgain(Duration),
    SynAckAgain(Duration),
    /// The SYN-ACK is a repetition, whose first copy was not seen.
    SynAckLate(Duration),
    SynInside,
    OldSynAck,
    BadAck {
        acked: i64,
        wanted: i64,
    },
    /// An ACK that was refused or left unanswered, and that the listener made no connection of.
    BadCookie {
        reset: bool,
    },
    Refused,
    /// Reset by the server before it has sent data: as lists and limits refuse, and services that give up.
    RefusedEstablished,
    HandshakeReset(Side),
    Reset(Side),
    RstInWindow(Side),
    RstRefused(Side),
    RstUnanswered(Side),
    ChallengeAck,
    FinAgain(Side, Duration),
    /// The client's FIN again sooner than any timer sends it: the listener repeats one that came before the socket stood.
    FinHandedOn(Duration),
    TimeWaitAnswers,
    HalfClosed(Side),
    SimultaneousClose,
    SynUnanswered,
    AckWithheld,
    RowsHidden(u32),
}

impl Note {
    /// A word for scripts.
    pub fn code(self) -> &'static str {
        match self {
            Note::Joined => "joined",
            Note::HandshakeUnseen => "handshake_unseen",
            Note::BelowTap => "below_tap",
            Note::Via(_) => "via",
            Note::SynAgain(_) => "syn_again",
            Note::SynAckAgain(_) => "syn_ack_again",
            Note::SynAckLate(_) => "syn_ack_late",
            Note::SynInside => "syn_inside",
            Note::OldSynAck => "old_syn_ack",
            Note::BadAck { .. } => "bad_ack",
            Note::BadCookie { .. } => "bad_cookie",
            Note::Refused => "refused",
            Note::RefusedEstablished => "refused_established",
            Note::HandshakeReset(_) => "handshake_reset",
            Note::Reset(_) => "reset",
            Note::RstInWindow(_) => "rst_in_window",
            Note::RstRefused(_) => "rst_refused",
            Note::RstUnanswered(_) => "rst_unanswered",
            Note::ChallengeAck => "challenge_ack",
            Note::FinAgain(..) => "fin_again",
            Note::FinHandedOn(_) => "fin_handed_on",
            Note::TimeWaitAnswers => "time_wait_answers",
            Note::HalfClosed(_) => "half_closed",
            Note::SimultaneousClose => "simultaneous_close",
            Note::SynUnanswered => "syn_unanswered",
            Note::AckWithheld => "ack_withheld",
            Note::RowsHidden(_) => "rows_hidden",
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Note::Joined => write!(f, "begins in the middle: numbers count from what was seen first"),
            Note::HandshakeUnseen => {
                write!(f, "SYN and SYN-ACK not seen: answered below the tap, or too many came")
            }
            Note::BelowTap => write!(f, "not seen: answered below the tap; inferred from the client's ACK"),
            Note::Via(Via::Cookie) => {
                write!(f, "by a cookie: nothing was kept, the ACK itself proved the handshake")
            }
            Note::Via(Via::Queue) => write!(f, "by an entry of the half-open queue"),
            Note::Via(Via::Kernel) => write!(f, "by the kernel's own listener"),
            Note::SynAgain(after) => {
                write!(f, "the same SYN again, {} later: no answer has reached the client", Span(after))
            }
            Note::SynAckAgain(after) => {
                write!(f, "SYN-ACK retransmitted after {}: the client's ACK has not come", Span(after))
            }
            Note::SynAckLate(after) => write!(
                f,
                "SYN-ACK retransmitted, {} after the SYN: the first passed below the tap, and the client's ACK has not come",
                Span(after)
            ),
            Note::SynInside => {
                write!(f, "a SYN inside a connection that stands: it calls for a challenge ACK (RFC 5961 §4.2)")
            }
            Note::OldSynAck => write!(f, "a SYN-ACK that answers another SYN than this client's"),
            Note::BadAck { acked, wanted } => {
                write!(f, "acknowledges {acked} where the SYN-ACK calls for {wanted}: no entry and no cookie fits")
            }
            Note::BadCookie { reset: true } => {
                write!(f, "bad cookie: this ACK belongs to no connection and proves no handshake; refused with RST")
            }
            Note::BadCookie { reset: false } => write!(
                f,
                "bad cookie: the listener made no connection of this ACK; its RST passed below the tap, or it kept silent"
            ),
            Note::Refused => write!(f, "refused: RST in answer to the SYN"),
            Note::RefusedEstablished => {
                write!(f, "refused: RST before the server has sent anything, as lists and limits do it")
            }
            Note::HandshakeReset(side) => write!(f, "the {} gave the handshake up with RST", side.word()),
            Note::Reset(side) => write!(f, "reset by the {}", side.word()),
            Note::RstInWindow(side) => write!(
                f,
                "this RST is in the {}'s window but not at its edge: it calls for a challenge ACK (RFC 5961 §3.2)",
                side.other().word()
            ),
            Note::RstRefused(side) => write!(
                f,
                "RST refused: its number is outside the {}'s window, the connection stands (RFC 5961 §3.2)",
                side.other().word()
            ),
            Note::RstUnanswered(side) => write!(f, "no challenge came: the {}'s RST may have been good", side.word()),
            Note::ChallengeAck => write!(f, "challenge ACK: the connection stands (RFC 5961)"),
            Note::FinAgain(side, after) => {
                write!(f, "the {}'s FIN again, {} later: the ACK of it was lost or is late", side.word(), Span(after))
            }
            Note::FinHandedOn(after) => write!(
                f,
                "the FIN again, {} later, too soon for a timer: it came before the socket stood, and the listener hands it on to the kernel",
                Span(after)
            ),
            Note::TimeWaitAnswers => write!(f, "TIME-WAIT acknowledges the repeated FIN once more"),
            Note::HalfClosed(side) => {
                write!(f, "half-closed: the {} will send no more, the {} still may", side.word(), side.other().word())
            }
            Note::SimultaneousClose => write!(f, "the FINs crossed: a simultaneous close"),
            Note::SynUnanswered => {
                write!(f, "no answer was seen: silence, or an answer below the tap that brought no ACK")
            }
            Note::AckWithheld => write!(f, "the handshake was not completed: no ACK for the SYN-ACK has come"),
            Note::RowsHidden(count) => write!(f, "{count} more rows are not shown"),
        }
    }
}

/// A time between two segments, to three digits.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_secs_f64() * 1e3;
        match millis {
            ..10.0 => write!(f, "{millis:.2} ms"),
            ..999.5 => write!(f, "{millis:.0} ms"),
            _ => write!(f, "{:.2} s", millis / 1e3),
        }
    }
}
