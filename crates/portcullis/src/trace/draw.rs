//! Ladders for people.

use std::fmt::Write;
use std::time::Duration;

use listener::TcpState;
use wire::{Flags, FourTuple, Options};

use super::flow::{Arrow, Bulk, Data, Event, Note, Side, States};

/// Columns between the two states.
const ARROW_WIDTH: usize = 60;
/// The longest name of a state, `SYN-RECEIVED`.
const STATE_WIDTH: usize = 12;
/// Columns of the time, seconds with six digits.
const TIME_WIDTH: usize = 11;
/// Where remarks begin and end.
const NOTE_INDENT: usize = TIME_WIDTH + 2 + STATE_WIDTH + 1;
const NOTE_WIDTH: usize = 2 * STATE_WIDTH + ARROW_WIDTH + 4 + TIME_WIDTH - NOTE_INDENT - 2;

/// How rows look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    pub colours: bool,
}

#[derive(Clone, Copy)]
enum Colour {
    Dim,
    Red,
    Yellow,
}

impl Style {
    fn paint(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Dim => "2",
            Colour::Red => "31",
            Colour::Yellow => "33",
        };
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Who talks to whom.
    pub fn title(self, number: u64, tuple: &FourTuple) -> String {
        format!("#{number:<4}{} -> {}", tuple.peer, tuple.local)
    }

    /// The head of a ladder, with the states before its first segment.
    pub fn head(self, number: u64, tuple: &FourTuple, first: Option<&Event>) -> String {
        let mut text = self.title(number, tuple) + "\n";
        let heading = format!("{:>TIME_WIDTH$}  {:<STATE_WIDTH$} {:ARROW_WIDTH$} server", "seconds", "client", "");
        let _ = writeln!(text, "{}", self.paint(Colour::Dim, &heading));
        if let Some(Event::Segment(arrow)) = first {
            let row = row("", arrow.before.client, "", arrow.before.server);
            let _ = writeln!(text, "{}", row.trim_end());
        }
        text
    }

    /// One event, as one line or several, each with its newline; times count from `begun`.
    pub fn event(self, begun: Duration, event: &Event) -> String {
        match event {
            Event::Segment(arrow) => self.segment(begun, arrow),
            Event::Data(data) => self.data(begun, data),
            Event::Note(_, note) => self.note(*note),
        }
    }

    fn segment(self, begun: Duration, arrow: &Arrow) -> String {
        let time = if arrow.inferred { String::new() } else { seconds(arrow.at, begun) };
        let drawn = shaft(arrow.from, &label(arrow), if arrow.inferred { '┄' } else { '─' });
        let drawn = if arrow.flags.contains(Flags::RST) { self.paint(Colour::Red, &drawn) } else { drawn };
        row(&time, arrow.after.client, &drawn, arrow.after.server) + "\n"
    }

    fn data(self, begun: Duration, data: &Data) -> String {
        let States { client, server } = data.states;
        let text: String = told(data).chars().take(ARROW_WIDTH - 4).collect();
        let text = format!("{:^ARROW_WIDTH$}", format!("⋮ {text} ⋮"));
        row(&seconds(data.at, begun), client, &self.paint(Colour::Dim, &text), server) + "\n"
    }

    fn note(self, note: Note) -> String {
        let mut text = String::new();
        for (index, line) in wrap(&note.to_string(), NOTE_WIDTH).iter().enumerate() {
            let mark = if index == 0 { "└" } else { " " };
            let line = format!("{mark} {line}");
            let _ = writeln!(text, "{:NOTE_INDENT$}{}", "", self.paint(Colour::Yellow, &line));
        }
        text
    }
}

fn row(time: &str, client: Option<TcpState>, between: &str, server: Option<TcpState>) -> String {
    let name = |state: Option<TcpState>| state.map_or_else(|| "?".to_owned(), |state| state.to_string());
    let between = if between.is_empty() { " ".repeat(ARROW_WIDTH) } else { between.to_owned() };
    format!("{time:>TIME_WIDTH$}  {:<STATE_WIDTH$} {between} {}", name(client), name(server))
}

fn seconds(at: Duration, begun: Duration) -> String {
    format!("{:.6}", at.saturating_sub(begun).as_secs_f64())
}

/// An arrow with a text in it, [`ARROW_WIDTH`] columns wide.
fn shaft(from: Side, label: &str, line: char) -> String {
    let room = ARROW_WIDTH - 4;
    let label: String = label.chars().take(room).collect();
    let blank = room - label.chars().count();
    let ends = |count: usize| line.to_string().repeat(count);
    let (left, right) = (blank / 2, blank - blank / 2);
    match from {
        Side::Client => format!("{} {label} {}►", ends(left + 1), ends(right)),
        Side::Server => format!("◄{} {label} {}", ends(left), ends(right + 1)),
    }
}

fn label(arrow: &Arrow) -> String {
    let mut text = format!("{}  seq {}", flag_names(arrow.flags), arrow.seq);
    if let Some(ack) = arrow.ack {
        let _ = write!(text, " ack {ack}");
    }
    if arrow.len > 0 {
        let _ = write!(text, "  {} byte{}", grouped(u64::from(arrow.len)), plural(u64::from(arrow.len)));
    }
    if let Some(options) = &arrow.options {
        text.push_str(&option_names(options));
    }
    text
}

/// `SYN ACK`: what opens and closes first.
pub fn flag_names(flags: Flags) -> String {
    const NAMES: [(Flags, &str); 8] = [
        (Flags::SYN, "SYN"),
        (Flags::FIN, "FIN"),
        (Flags::RST, "RST"),
        (Flags::PSH, "PSH"),
        (Flags::URG, "URG"),
        (Flags::ECE, "ECE"),
        (Flags::CWR, "CWR"),
        (Flags::ACK, "ACK"),
    ];
    let names: Vec<_> = NAMES.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| *name).collect();
    if names.is_empty() { "no flags".to_owned() } else { names.join(" ") }
}

fn option_names(options: &Options) -> String {
    let mut text = String::new();
    if let Some(mss) = options.mss {
        let _ = write!(text, " mss {mss}");
    }
    if options.sack_permitted {
        text.push_str(" sack");
    }
    if options.timestamps.is_some() {
        text.push_str(" ts");
    }
    if let Some(shift) = options.wscale {
        let _ = write!(text, " ws {shift}");
    }
    if text.is_empty() { text } else { format!(" {text}") }
}

/// What went either way; details only where there is room.
fn told(data: &Data) -> String {
    let tell = |detail| {
        let ways = [('►', &data.client), ('◄', &data.server)];
        let ways: Vec<_> =
            ways.iter().filter_map(|(way, bulk)| Some(format!("{way} {}", amount(bulk, detail)?))).collect();
        ways.join("   ")
    };
    match tell(true) {
        text if text.is_empty() => {
            let acks = u64::from(data.client.acks.saturating_add(data.server.acks));
            format!("{} ACK{}", grouped(acks), plural(acks))
        }
        text if text.chars().count() > ARROW_WIDTH - 4 => tell(false),
        text => text,
    }
}

/// Bytes, and in how many segments where all of them were seen.
fn amount(bulk: &Bulk, detail: bool) -> Option<String> {
    let Bulk { segments, bytes, again, .. } = *bulk;
    if bytes == 0 && again == 0 {
        return None;
    }
    let mut text = format!("{} byte{}", grouped(bytes), plural(bytes));
    if detail && bulk.is_complete() && segments > 1 {
        let _ = write!(text, " in {}", grouped(u64::from(segments)));
    }
    if detail && again > 0 {
        let _ = write!(text, ", {} again", grouped(u64::from(again)));
    }
    Some(text)
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// `12,345`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Breaks a sentence at spaces.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut().filter(|line| line.chars().count() + 1 + word.chars().count() <= width) {
            Some(line) => *line += &format!(" {word}"),
            None => lines.push(word.to_owned()),
        }
    }
    lines
}
