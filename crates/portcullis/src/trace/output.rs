//! Where rows go: whole ladders, live rows, or JSON.

use std::io::{self, IsTerminal, Write};

use super::args::TraceArgs;
use super::draw::{Style, grouped};
use super::json::{Line, Of};
use super::table::Tracked;

/// In which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A connection at a time, once it is over.
    Whole(Style),
    /// Rows as they come, each with its connection's number.
    Live(Style),
    Json,
}

/// Writes what has been seen.
pub struct Output<W> {
    to: W,
    form: Form,
    last_number: u64,
    ended_count: u64,
}

/// Standard output in the form that was asked for.
pub fn standard(args: &TraceArgs) -> Output<io::StdoutLock<'static>> {
    let stdout = io::stdout().lock();
    // https://no-color.org: present and not empty.
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let style = Style { colours: stdout.is_terminal() && !plain };
    let form = match (args.json, args.live) {
        (true, _) => Form::Json,
        (false, true) => Form::Live(style),
        (false, false) => Form::Whole(style),
    };
    Output { to: stdout, form, last_number: 0, ended_count: 0 }
}

impl<W: Write> Output<W> {
    /// Whether rows are shown before their flow ends.
    pub fn is_live(&self) -> bool {
        !matches!(self.form, Form::Whole(_))
    }

    /// Flows that were shown to their end.
    pub fn ended_count(&self) -> u64 {
        self.ended_count
    }

    /// Shows what is new of a flow that goes on.
    pub fn progress(&mut self, tracked: &mut Tracked) -> io::Result<()> {
        self.rows(tracked, false)
    }

    /// Shows the rest of a flow.
    pub fn end(&mut self, mut tracked: Tracked) -> io::Result<()> {
        self.rows(&mut tracked, true)?;
        self.ended_count += 1;
        let number = tracked.number.unwrap_or(0);
        match self.form {
            Form::Whole(_) => writeln!(self.to),
            Form::Live(_) => writeln!(self.to, "#{number:<4} end"),
            Form::Json => {
                let (begun, last) = tracked.flow.span();
                self.line(&Line::End { of: Of::new(number, &tracked.tuple, begun, last) })
            }
        }
    }

    /// What was left out, at the very end.
    pub fn summary(&mut self, unseen_segments: u64, unshown_flows: u64) -> io::Result<()> {
        match self.form {
            Form::Json => {
                let flows = self.ended_count;
                self.line(&Line::Summary { flows, segments_not_shown: unseen_segments, flows_not_shown: unshown_flows })
            }
            Form::Whole(_) | Form::Live(_) if unseen_segments + unshown_flows > 0 => writeln!(
                self.to,
                "{} segments not shown, there were too many; and {} flows that came to nothing",
                grouped(unseen_segments),
                grouped(unshown_flows)
            ),
            Form::Whole(_) | Form::Live(_) => Ok(()),
        }?;
        self.to.flush()
    }

    /// Hands on what has been written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.to, line)?;
        writeln!(self.to)
    }

    fn rows(&mut self, tracked: &mut Tracked, end: bool) -> io::Result<()> {
        let begun = tracked.flow.span().0;
        let tuple = tracked.tuple;
        let rows = tracked.flow.take_rows(end);
        if rows.is_empty() && !end {
            return Ok(());
        }
        let is_new = tracked.number.is_none();
        let number = *tracked.number.get_or_insert_with(|| {
            self.last_number += 1;
            self.last_number
        });
        match self.form {
            Form::Json => {
                for row in rows {
                    serde_json::to_writer(&mut self.to, &Line::new(number, &tuple, begun, row))?;
                    writeln!(self.to)?;
                }
            }
            Form::Whole(style) => {
                write!(self.to, "{}", style.head(number, &tuple, rows.first()))?;
                for row in rows {
                    write!(self.to, "{}", style.event(begun, row))?;
                }
            }
            Form::Live(style) => {
                if is_new {
                    writeln!(self.to, "{}", style.title(number, &tuple))?;
                }
                for row in rows {
                    for line in style.event(begun, row).lines() {
                        writeln!(self.to, "#{number:<4}{line}")?;
                    }
                }
            }
        }
        Ok(())
    }
}
