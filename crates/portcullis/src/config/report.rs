//! What is wrong with a config file: every fault with its place, its key and what would be legal.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::str::Utf8Error;

use super::duplicate;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// Line in the file, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The full key, for example `listener.half_open.max`; empty where the fault is one of TOML syntax.
    pub key: String,
    /// What is wrong, with the value and the legal range.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Every fault of one file, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// The one fault of a file that is no text: where the first byte stands that cannot be.
    pub fn not_utf8(bytes: &[u8], error: Utf8Error) -> Diagnostics {
        let offset = error.valid_up_to();
        let (line, column) = position(std::str::from_utf8(&bytes[..offset]).unwrap_or_default(), offset);
        let what = match bytes.get(offset) {
            // An error without a length is that of a file that ends amid a character.
            Some(byte) if error.error_len().is_some() => format!("the byte 0x{byte:02x} at offset {offset}"),
            _ => format!("the end of the file, amid the character at offset {offset},"),
        };
        let message = format!("{what} is not UTF-8; legal: a TOML file, which is UTF-8");
        Diagnostics(vec![Diagnostic { line, column, key: String::new(), message }])
    }

    /// One line per fault, each beginning `file:line:column:` as compilers write it, and a last line with the number.
    pub fn render(&self, file: &Path) -> String {
        let mut text = String::new();
        for diagnostic in &self.0 {
            text.push_str(&format!("{}:{diagnostic}\n", file.display()));
        }
        let count = self.0.len();
        text.push_str(&format!("{}: {count} error{}", file.display(), if count == 1 { "" } else { "s" }));
        text
    }
}

/// Collects faults while a file is read.
pub struct Report<'i> {
    source: &'i str,
    found: RefCell<Vec<Diagnostic>>,
    syntax_error_lines: Vec<usize>,
}

impl<'i> Report<'i> {
    /// Starts with the faults the TOML parser found.
    pub fn new(source: &'i str, syntax: &[toml::de::Error]) -> Report<'i> {
        let found: Vec<_> = syntax.iter().map(|error| syntax_diagnostic(source, error)).collect();
        let syntax_error_lines = found.iter().map(|diagnostic| diagnostic.line).collect();
        Report { source, found: RefCell::new(found), syntax_error_lines }
    }

    /// Notes a fault of the value or key at `span`.
    ///
    /// On a line with a syntax error the parser had to guess the value, so a complaint about it would mislead.
    pub fn fault(&self, span: Range<usize>, key: impl Into<String>, message: impl Into<String>) {
        let (line, column) = position(self.source, span.start);
        if !self.syntax_error_lines.contains(&line) {
            self.found.borrow_mut().push(Diagnostic { line, column, key: key.into(), message: message.into() });
        }
    }

    /// Notes that something is not there. After a syntax error it may be there all the same, only unreadable.
    pub fn missing(&self, span: Range<usize>, key: impl Into<String>, message: impl Into<String>) {
        if self.syntax_error_lines.is_empty() {
            self.fault(span, key, message);
        }
    }

    /// The value as written in the file, cut short if long, for a message.
    pub fn excerpt(&self, span: Range<usize>) -> String {
        const CHARS_MAX: usize = 60;
        let text = self.source.get(span).unwrap_or_default();
        let first_line = text.lines().next().unwrap_or_default();
        if first_line.chars().count() <= CHARS_MAX && first_line.len() == text.len() {
            return text.to_owned();
        }
        first_line.chars().take(CHARS_MAX).chain(['…']).collect()
    }

    /// All faults, sorted by place; `Ok` if there were none.
    pub fn finish(self) -> Result<(), Diagnostics> {
        let mut found = self.found.into_inner();
        if found.is_empty() {
            return Ok(());
        }
        found.sort();
        found.dedup();
        Err(Diagnostics(found))
    }
}

fn syntax_diagnostic(source: &str, error: &toml::de::Error) -> Diagnostic {
    let offset = error.span().map_or(source.len(), |span| span.start);
    let (line, column) = position(source, offset);
    match duplicate::find(source, error) {
        Some(duplicate) => {
            let (first_line, first_column) = position(source, duplicate.first);
            let message = format!("duplicate key: it is given at {first_line}:{first_column} already; legal: once");
            Diagnostic { line, column, key: duplicate.key, message }
        }
        None => Diagnostic { line, column, key: String::new(), message: error.message().to_owned() },
    }
}

/// Line and column (in characters), both from 1, of a byte offset.
fn position(source: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(source.len());
    while !source.is_char_boundary(end) {
        end -= 1;
    }
    let before = &source[..end];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        assert_eq!(position("", 0), (1, 1));
        assert_eq!(position("a\nbc", 3), (2, 2));
        assert_eq!(position("ä=1", 2), (1, 2));
        assert_eq!(position("a\n", 9), (2, 1));
    }

    #[test]
    fn long_values_are_cut_in_messages() {
        let source = format!("\"{}\"", "x".repeat(100));
        let report = Report::new(&source, &[]);
        assert_eq!(report.excerpt(0..source.len()).chars().count(), 61);
        assert_eq!(report.excerpt(0..3), "\"xx");
    }
}
