//! A table as text, with columns that line up.

use std::fmt::Write;

use super::{Cell, Table, Tone};

impl Table {
    /// The table with a line of titles, and its notes below. `colour` is for a terminal.
    pub fn to_text(&self, colour: bool) -> String {
        let widths = self.widths();
        let titles: Vec<Cell> = self.columns.iter().map(Cell::plain).collect();
        let mut text = format!("{}\n", without_controls(&self.caption));
        for row in std::iter::once(&titles).chain(&self.rows) {
            push_row(&mut text, row, &widths, colour);
        }
        for note in &self.notes {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {}", without_controls(note));
        }
        text
    }

    /// The table for a document in Markdown, with its notes below.
    pub fn to_markdown(&self) -> String {
        let line = |fields: Vec<String>| format!("| {} |\n", fields.join(" | "));
        let escaped = |text: &str| without_controls(text).replace('|', "\\|").replace('*', "\\*");
        let mut text = line(self.columns.iter().map(|column| escaped(column)).collect());
        text.push_str(&format!("|---|{}\n", "---:|".repeat(self.columns.len().saturating_sub(1))));
        for row in &self.rows {
            text.push_str(&line(row.iter().map(|cell| escaped(&cell.text)).collect()));
        }
        for note in &self.notes {
            let _ = writeln!(text, "\n{}", escaped(note));
        }
        text
    }

    /// The widest field of each column, in characters.
    fn widths(&self) -> Vec<usize> {
        let column = |i: usize| self.rows.iter().filter_map(move |row| row.get(i)).map(|cell| width(&cell.text));
        let title = |i: usize, title: &String| column(i).chain([width(title)]).max().unwrap_or(0);
        self.columns.iter().enumerate().map(|(i, text)| title(i, text)).collect()
    }
}

/// One line. Words stand left, numbers right.
fn push_row(text: &mut String, row: &[Cell], widths: &[usize], colour: bool) {
    let mut line = String::new();
    for (i, (cell, width)) in row.iter().zip(widths).enumerate() {
        let shown = without_controls(&cell.text);
        let padded = if i == 0 { format!("{shown:<width$}") } else { format!("{shown:>width$}") };
        let _ = write!(line, "  {}", painted(&padded, cell.tone, colour));
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

/// Red and green by the sixteen colours that every terminal lets its owner choose.
fn painted(text: &str, tone: Tone, colour: bool) -> String {
    match tone {
        Tone::Good if colour => format!("\x1b[32m{text}\x1b[0m"),
        Tone::Bad if colour => format!("\x1b[1;31m{text}\x1b[0m"),
        Tone::Plain | Tone::Good | Tone::Bad => text.to_owned(),
    }
}

/// Names come from files; a terminal must not obey them.
fn without_controls(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// Width in a terminal, for the characters that occur here.
fn width(text: &str) -> usize {
    without_controls(text).chars().count()
}
