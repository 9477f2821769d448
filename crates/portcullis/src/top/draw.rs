//! The picture: what the app knows, on as many cells as there are.
//!
//! Everything is text, so that it reads the same without colours. What is short of room is left out from the bottom and from the right.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use portcullis::TcpState;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::app::{App, Sort};
use super::rates::Rates;
use super::words::{compact, per_second, printable};
use crate::control::{ListenerStatus, Status, TopEntry, UpstreamStatus, size, span};

/// Below this width states and prefixes do not stand side by side.
const TWO_COLUMNS_WIDTH: u16 = 60;
/// Of the column of states.
const STATES_WIDTH: u16 = 24;
/// Of a bar, without what stands around it.
const BAR_WIDTH_MAX: usize = 40;
/// An answer that is so late, beside two intervals, is said to be: a process in trouble may take its time to answer.
const LATE: Duration = Duration::from_secs(1);
/// Switches and servers that are shown at most.
const SWITCHES_MAX: usize = 4;
const UPSTREAMS_MAX: usize = 6;

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);

/// Draws the whole screen.
pub fn draw(frame: &mut Frame<'_>, app: &App, now: Instant) {
    let area = frame.area();
    let head = head(app, usize::from(area.width));
    let parts =
        [Constraint::Length(1), Constraint::Length(head.len() as u16), Constraint::Min(0), Constraint::Length(1)];
    let [title, top, body, foot] = Layout::vertical(parts).areas(area);
    frame.render_widget(title_line(app), title);
    frame.render_widget(Paragraph::new(head), top);
    if let (Some(listener), Some(sample)) = (app.listener(), app.sample()) {
        draw_body(frame, body, app, listener, &sample.status);
    }
    frame.render_widget(foot_line(app, now), foot);
}

fn draw_body(frame: &mut Frame<'_>, area: Rect, app: &App, listener: &ListenerStatus, status: &Status) {
    let details = details(app, listener, status.unix_seconds, usize::from(area.height));
    if area.width < TWO_COLUMNS_WIDTH {
        let mut lines = packed(states(listener), usize::from(area.width));
        lines.push(Line::default());
        lines.extend(details);
        return frame.render_widget(Paragraph::new(lines), area);
    }
    let [left, right] = Layout::horizontal([Constraint::Length(STATES_WIDTH), Constraint::Min(0)]).areas(area);
    let mut lines = vec![heading("STATES")];
    lines.extend(states(listener).into_iter().map(|(name, count)| Line::raw(format!("{name:<14} {count:>7}"))));
    frame.render_widget(Paragraph::new(lines), left);
    frame.render_widget(Paragraph::new(details), right);
}

fn title_line(app: &App) -> Line<'static> {
    let Some(sample) = app.sample() else { return Line::styled("portcullis", BOLD) };
    let Status { version, pid, uptime_seconds, draining, .. } = &sample.status;
    let state = if *draining { "DRAINING" } else { "running" };
    let up = span(*uptime_seconds as f64);
    Line::styled(format!("portcullis {}  process {pid}  {state}  up {up}", printable(version)), BOLD)
}

fn foot_line(app: &App, now: Instant) -> Line<'static> {
    if let Some((why, since)) = &app.trouble {
        let seconds = now.saturating_duration_since(*since).as_secs();
        let why = why.lines().next().unwrap_or_default();
        return Line::styled(format!("no answer for {seconds} s, trying again: {}", printable(why)), REVERSED);
    }
    if app.paused {
        return Line::styled("paused: p goes on", REVERSED);
    }
    if let Some(age) = app.sample().map(|sample| now.saturating_duration_since(sample.received))
        && age > 2 * app.interval + LATE
    {
        return Line::styled(format!("the last answer is {} s old", age.as_secs()), REVERSED);
    }
    let every = app.interval.as_secs_f64();
    Line::styled(format!("every {every} s  q quit  tab listener  p pause  s sort"), DIM)
}

/// The listeners, and what one sees first of the one that is chosen.
fn head(app: &App, width: usize) -> Vec<Line<'static>> {
    let Some(listener) = app.listener() else { return Vec::new() };
    let rates = app.rates();
    let mut lines = vec![tabs(app), datapath(app, listener)];
    lines.extend(packed(segment_rates(rates.as_ref()), width));
    lines.push(bar("half-open", listener.half_open, listener.half_open_max, width));
    lines.push(bar("accept queue", listener.accept_queue, listener.accept_queue_max, width));
    lines.extend(packed(connection_rates(listener, rates.as_ref()), width));
    lines.push(Line::default());
    lines
}

fn tabs(app: &App) -> Line<'static> {
    let chosen = app.selected_index();
    let tab = |(index, listener): (usize, &ListenerStatus)| {
        let style = if index == chosen { REVERSED } else { Style::new() };
        Span::styled(format!(" {} ", printable(&listener.name)), style)
    };
    // The chosen one first to be seen, should there be more than fit.
    let skipped = chosen.saturating_sub(3);
    app.listeners().iter().enumerate().skip(skipped).map(tab).collect::<Vec<_>>().into()
}

fn datapath(app: &App, listener: &ListenerStatus) -> Line<'static> {
    let cookies = listener.mode == "cookies";
    let mode = Span::styled(format!("mode {}", printable(&listener.mode)), if cookies { REVERSED } else { BOLD });
    let now = app.sample().map_or(0, |sample| sample.status.unix_seconds);
    let since =
        listener.switches.last().map_or_else(String::new, |switch| format!(" for {}", ago(now, switch.unix_seconds)));
    let bind: Vec<_> = listener.bind.iter().take(4).map(ToString::to_string).collect();
    Line::from(vec![
        mode,
        Span::raw(since),
        Span::raw(format!("  datapath {}  {}", printable(&listener.tier), bind.join(", "))),
    ])
}

type Cells = Vec<(String, String)>;

fn segment_rates(rates: Option<&Rates>) -> Cells {
    let rate = |of: fn(&Rates) -> f64| per_second(rates.map(of));
    cells([
        ("SYN", rate(|r| r.syns)),
        ("SYN-ACK", rate(|r| r.synacks_sent)),
        ("cookies", rate(|r| r.cookies_sent)),
        ("valid", rate(|r| r.cookies_valid)),
        ("bad", rate(|r| r.cookies_bad)),
    ])
}

fn connection_rates(listener: &ListenerStatus, rates: Option<&Rates>) -> Cells {
    let rate = |of: fn(&Rates) -> f64| per_second(rates.map(of));
    let bytes =
        |of: fn(&Rates) -> f64| rates.map_or_else(|| "-".to_owned(), |rates| format!("{}/s", size(of(rates) as u64)));
    cells([
        ("open", listener.open.to_string()),
        ("accepted", rate(|r| r.accepted)),
        ("closed", rate(|r| r.closed)),
        ("refused", rate(|r| r.refused)),
        ("in", bytes(|r| r.received_bytes)),
        ("out", bytes(|r| r.sent_bytes)),
    ])
}

fn cells<const N: usize>(cells: [(&str, String); N]) -> Cells {
    cells.map(|(name, value)| (name.to_owned(), value)).into()
}

/// As many to a line as fit.
fn packed(cells: Cells, width: usize) -> Vec<Line<'static>> {
    const GAP: usize = 2;
    let (mut lines, mut line, mut used) = (Vec::new(), Vec::new(), 0);
    for (name, value) in cells {
        let len = name.chars().count() + 1 + value.chars().count();
        if used > 0 && used + GAP + len > width {
            lines.push(Line::from(std::mem::take(&mut line)));
            used = 0;
        }
        if used > 0 {
            line.push(Span::raw(" ".repeat(GAP)));
            used += GAP;
        }
        line.extend([Span::raw(name + " "), Span::styled(value, BOLD)]);
        used += len;
    }
    lines.push(Line::from(line));
    lines
}

/// How full something is that has a bound: `half-open    [######......]  3072 of 4096, 75 %`.
fn bar(name: &str, value: u64, max: u64, width: usize) -> Line<'static> {
    let percent = (u128::from(value) * 100 / u128::from(max.max(1))).min(999);
    let (before, behind) = (format!("{name:<12} ["), format!("]  {value} of {max}, {percent} %"));
    let room = width.saturating_sub(before.len() + behind.len()).min(BAR_WIDTH_MAX);
    let full = (u128::from(value.min(max)) * room as u128).div_ceil(u128::from(max.max(1))) as usize;
    Line::raw(format!("{before}{}{}{behind}", "#".repeat(full), ".".repeat(room - full)))
}

/// All eleven, whatever the process says: a version that does not count them has none.
fn states(listener: &ListenerStatus) -> Cells {
    let count = |state: TcpState| {
        let counted = listener.states.as_ref().and_then(|states| states.get(&state.to_string()));
        counted.map_or_else(|| "-".to_owned(), u64::to_string)
    };
    TcpState::ALL.into_iter().map(|state| (state.to_string(), count(state))).collect()
}

/// Prefixes, as many as the rest leaves room for, and the rest.
fn details(app: &App, listener: &ListenerStatus, now: u64, height: usize) -> Vec<Line<'static>> {
    let mut rest = Vec::new();
    if !listener.upstreams.is_empty() {
        rest.push(heading("UPSTREAMS"));
        rest.extend(listener.upstreams.iter().take(UPSTREAMS_MAX).map(upstream));
    }
    if !listener.switches.is_empty() {
        rest.push(heading("MODE SWITCHES"));
        let latest = listener.switches.iter().rev().take(SWITCHES_MAX);
        rest.extend(latest.map(|it| Line::raw(format!("to {} {} ago", printable(&it.to), ago(now, it.unix_seconds)))));
    }
    rest.extend(since_the_start("refused", &listener.refused));
    rest.extend(since_the_start("dropped", &listener.dropped));
    if listener.ring_dropped > 0 {
        rest.push(Line::raw(format!("ring overruns {}", compact(listener.ring_dropped as f64))));
    }
    let prefixes = app.prefixes();
    let mut lines = vec![prefix_heading(app)];
    let room = height.saturating_sub(lines.len() + rest.len()).max(3);
    lines.extend(prefixes.into_iter().take(room).map(prefix));
    lines.extend(rest);
    lines
}

fn prefix_heading(app: &App) -> Line<'static> {
    let mark = |sort: Sort, word: &str| if app.sort == sort { format!("{word}*") } else { word.to_owned() };
    let (open, received, sent) = (mark(Sort::Open, "OPEN"), mark(Sort::Received, "RECEIVED"), mark(Sort::Sent, "SENT"));
    Line::styled(format!("{:<22} {open:>7} {received:>11} {sent:>11}", "PREFIX"), BOLD)
}

fn prefix(entry: &TopEntry) -> Line<'static> {
    let (received, sent) = (size(entry.traffic.received_bytes), size(entry.traffic.sent_bytes));
    Line::raw(format!("{:<22} {:>7} {received:>11} {sent:>11}", entry.prefix.to_string(), entry.open))
}

fn upstream(server: &UpstreamStatus) -> Line<'static> {
    let state = if server.up { Span::raw("up  ") } else { Span::styled("DOWN", REVERSED) };
    let UpstreamStatus { server: name, connections, connects, connect_failures, check_failures, .. } = server;
    let (connects, failed) =
        (compact(*connects as f64), compact(connect_failures.saturating_add(*check_failures) as f64));
    let rest = format!(" {}  {connections} open  {connects} connects  {failed} failed", printable(name));
    Line::from(vec![state, Span::raw(rest)])
}

/// What occurred, by reason, if anything did.
fn since_the_start(what: &str, counts: &BTreeMap<String, u64>) -> Option<Line<'static>> {
    let occurred: Vec<_> = counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| format!("{} {}", compact(*count as f64), printable(reason)))
        .collect();
    (!occurred.is_empty()).then(|| Line::raw(format!("{what} {}", occurred.join(", "))))
}

fn heading(text: &'static str) -> Line<'static> {
    Line::styled(text, BOLD)
}

fn ago(now: u64, then: u64) -> String {
    span(now.saturating_sub(then) as f64)
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::app::Action;
    use super::super::testing::{a_second_later, sample};
    use super::*;

    /// The screen's lines, without the spaces behind them.
    fn screen(app: &App, width: u16, height: u16, now: Instant) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, app, now)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect()
    }

    fn app() -> App {
        let mut app = App::new(Duration::from_secs(2));
        app.looked(Ok(sample()), Instant::now());
        app.looked(Ok(a_second_later()), Instant::now());
        app
    }

    #[test]
    fn a_usual_terminal_shows_all_of_a_listener() {
        let expected = "\
portcullis 0.1.0  process 4711  running  up 1h02m
 web  api
mode cookies for 12.0s  datapath raw  198.18.0.1:443
SYN 48.1k/s  SYN-ACK 48.0k/s  cookies 47.9k/s  valid 12/s  bad 0/s
half-open    [##############################..........]  3072 of 4096, 75 %
accept queue [........................................]  0 of 2500, 0 %
open 12  accepted 30/s  closed 25/s  refused 2/s  in 0 B/s  out 3.0 MiB/s

STATES                  PREFIX                   OPEN*    RECEIVED        SENT
CLOSED               0  198.18.2.0/24                7       100 B       200 B
LISTEN               1  198.18.3.0/24                4       900 B       100 B
SYN-SENT             0  2001:db8::/64                1        10 B     4.9 KiB
SYN-RECEIVED      3072  UPSTREAMS
ESTABLISHED          9  up   198.18.0.3:80  12 open  112 connects  0 failed
FIN-WAIT-1           0  DOWN unix:/run/app.sock  0 open  3 connects  12 failed
FIN-WAIT-2           2  MODE SWITCHES
CLOSE-WAIT           1  to cookies 12.0s ago
CLOSING              0  to queue 30.0s ago
LAST-ACK             0  to cookies 1m00s ago
TIME-WAIT           40  refused 5 denied
                        dropped 4 bad_checksum
                        ring overruns 6

every 2 s  q quit  tab listener  p pause  s sort";
        assert_eq!(screen(&app(), 80, 24, Instant::now()).join("\n"), expected);
    }

    #[test]
    fn a_narrow_terminal_has_the_rates_and_the_queue() {
        let expected = "\
portcullis 0.1.0  process 4711  running
 web  api
mode cookies for 12.0s  datapath raw  19
SYN 48.1k/s  SYN-ACK 48.0k/s
cookies 47.9k/s  valid 12/s  bad 0/s
half-open    [#..]  3072 of 4096, 75 %";
        let shown = screen(&app(), 40, 10, Instant::now());
        assert!(
            shown.join("\n").replace("###.", "#..").replace("##.", "#..").starts_with(&expected[..150]),
            "{shown:#?}"
        );
        assert_eq!(shown.len(), 10);
        assert!(shown[9].starts_with("every 2 s  q quit"), "{shown:#?}");
        assert!(shown[5].contains("3072 of 4096, 75 %") && shown[6].contains("0 of 2500, 0 %"), "{shown:#?}");
    }

    #[test]
    fn every_size_is_drawn() {
        let mut apps = [App::new(Duration::from_secs(2)), app(), app(), app()];
        apps[2].act(Action::Next); // A listener of a version that knows less.
        apps[3].looked(Err("gone".to_owned()), Instant::now());
        for (width, height) in [(1, 1), (1, 60), (200, 1), (2, 2), (40, 10), (80, 24), (200, 60), (13, 7), (0, 0)] {
            for app in &apps {
                assert_eq!(screen(app, width, height, Instant::now()).len(), usize::from(height), "{width}x{height}");
            }
        }
        let wide = screen(&apps[1], 200, 60, Instant::now()).join("\n");
        assert!(wide.contains("2001:db8::/64") && wide.contains("TIME-WAIT           40"), "{wide}");
    }

    #[test]
    fn a_version_that_knows_less_is_shown_with_dashes() {
        let mut app = app();
        app.act(Action::Next);
        let shown = screen(&app, 80, 24, Instant::now()).join("\n");
        assert!(
            shown.contains("mode queue  datapath bpf  [2001:db8::1]:80") && shown.contains("TIME-WAIT            -"),
            "{shown}"
        );
        assert!(shown.contains("SYN 0/s") && !shown.contains("UPSTREAMS"), "{shown}");
    }

    #[test]
    fn trouble_and_pause_are_said_at_the_foot() {
        let (mut app, now) = (app(), Instant::now());
        assert_eq!(screen(&app, 80, 24, now + Duration::from_secs(9))[23], "the last answer is 9 s old");
        app.act(Action::Pause);
        assert!(screen(&app, 80, 24, now)[23].contains("paused"));
        app.looked(Err("/run/c.sock: no process answers there\nand more".to_owned()), now);
        let shown = screen(&app, 80, 24, now + Duration::from_secs(4));
        assert_eq!(shown[23], "no answer for 4 s, trying again: /run/c.sock: no process answers there");
        assert!(shown[3].starts_with("SYN 48.1k/s"), "what was known stays");
    }

    #[test]
    fn no_escape_sequence_in_a_name_gets_to_the_terminal() {
        let mut sample = sample();
        let evil = "\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}";
        sample.status.version = evil.to_owned();
        let web = &mut sample.status.listeners[0];
        (web.name, web.tier, web.mode) = (evil.to_owned(), evil.to_owned(), evil.to_owned());
        web.upstreams[0].server = evil.to_owned();
        web.switches[0].to = evil.to_owned();
        web.refused.insert(evil.to_owned(), 1);
        let mut app = App::new(Duration::from_secs(2));
        app.looked(Ok(sample), Instant::now());
        let mut shown = screen(&app, 200, 60, Instant::now());
        app.looked(Err(evil.to_owned()), Instant::now());
        shown.extend(screen(&app, 200, 60, Instant::now()));
        assert!(shown.iter().all(|line| !line.chars().any(|c| c.is_control() || c == '\u{202e}')), "{shown:#?}");
        assert!(shown[1].contains("?]0;owned??2J?"), "{shown:#?}");
    }

    #[test]
    fn numbers_at_their_limits_are_drawn() {
        let mut app = app();
        let mut sample = a_second_later();
        let web = &mut sample.status.listeners[0];
        (web.half_open, web.half_open_max) = (u64::MAX, 0);
        (web.accept_queue, web.accept_queue_max) = (u64::MAX, u64::MAX);
        web.upstreams[0].connect_failures = u64::MAX;
        app.looked(Ok(sample), Instant::now());
        let shown = screen(&app, 80, 24, Instant::now());
        assert!(shown[5].ends_with("100 %"), "{shown:#?}");
    }
}
