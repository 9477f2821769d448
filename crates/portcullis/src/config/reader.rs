//! Reads one TOML table key by key, notes every fault, and goes on with the default.
//!
//! serde stops at the first error; an operator wants them all.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::Report;

/// A value and where it stands in the file.
#[derive(Clone, Debug)]
pub struct Located<T> {
    pub value: T,
    pub span: Range<usize>,
}

/// A value that is one of a few words.
pub trait Choice: Copy + 'static {
    /// Every legal word with its meaning.
    const WORDS: &'static [(&'static str, Self)];

    /// The value a word stands for.
    fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(name, _)| *name == word).map(|(_, value)| *value)
    }

    /// The word that stands for a value.
    fn word(self) -> &'static str
    where
        Self: PartialEq,
    {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }

    /// The legal words, as a message lists them.
    fn legal() -> String {
        let words: Vec<_> = Self::WORDS.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        words.join(", ")
    }
}

/// One table that is being read. Every key that was never asked for is a fault ([`close`](Section::close)).
pub struct Section<'a, 'i> {
    report: &'a Report<'i>,
    path: String,
    table: Option<&'a DeTable<'i>>,
    span: Range<usize>,
    asked: Vec<&'static str>,
}

impl<'a, 'i> Section<'a, 'i> {
    /// The whole document.
    pub fn root(report: &'a Report<'i>, document: &'a Spanned<DeTable<'i>>) -> Section<'a, 'i> {
        Section { report, path: String::new(), table: Some(document.get_ref()), span: document.span(), asked: vec![] }
    }

    /// Where the table stands in the file.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The full name of a key of this table.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Whether the key is there, legal or not.
    pub fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Whether the key holds a list without items.
    pub fn is_empty_list(&self, key: &str) -> bool {
        let list = self.table.and_then(|table| table.get(key)).and_then(|entry| entry.get_ref().as_array());
        list.is_some_and(|items| items.is_empty())
    }

    /// Where the key's value stands; the table itself if there is none.
    pub fn span_of(&self, key: &str) -> Range<usize> {
        self.table.and_then(|table| table.get(key)).map_or(self.span(), Spanned::span)
    }

    /// Notes that a key is needed and is not there.
    pub fn missing(&self, key: &str, legal: &str) {
        self.report.missing(self.span(), self.path_of(key), format!("missing; legal: {legal}"));
    }

    /// Notes a fault of one of this table's keys.
    pub fn fault(&self, span: Range<usize>, key: &str, message: impl Into<String>) {
        self.report.fault(span, self.path_of(key), message);
    }

    /// An integer within `legal`.
    pub fn integer(&mut self, key: &'static str, legal: RangeInclusive<u64>, unit: &str, default: u64) -> u64 {
        let expected = format!("an integer from {} to {} ({unit})", legal.start(), legal.end());
        self.get(key, &expected, |value| {
            let DeValue::Integer(number) = value else { return None };
            // A negative number parses as none and so is out of range, as it should be.
            let number = u64::from_str_radix(number.as_str(), number.radix()).ok()?;
            legal.contains(&number).then_some(number)
        })
        .map_or(default, |located| located.value)
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        self.get(key, "true or false", DeValue::as_bool).map_or(default, |located| located.value)
    }

    /// One of a few words.
    pub fn choice<T: Choice>(&mut self, key: &'static str) -> Option<Located<T>> {
        let expected = format!("one of {}", T::legal());
        self.get(key, &expected, |value| value.as_str().and_then(T::from_word))
    }

    /// A string that `parse` understands; `legal` describes what that is.
    pub fn string<T, E: Display>(
        &mut self,
        key: &'static str,
        legal: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Located<T>> {
        let entry = self.find(key)?;
        self.parse_string(key, entry, legal, &parse)
    }

    /// A list of strings that `parse` understands; `None` if the key is absent or no list.
    pub fn strings<T, E: Display>(
        &mut self,
        key: &'static str,
        legal: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Vec<Located<T>>> {
        let expected = format!("a list, each item {legal}");
        let entry = self.find(key)?;
        let Some(items) = entry.get_ref().as_array() else {
            self.illegal(key, entry, &expected);
            return None;
        };
        Some(items.iter().filter_map(|item| self.parse_string(key, item, legal, &parse)).collect())
    }

    /// A table inside this one; an empty one if absent.
    pub fn table(&mut self, key: &'static str) -> Section<'a, 'i> {
        let entry = self.find(key);
        let table = entry.and_then(|entry| entry.get_ref().as_table());
        if let (Some(entry), None) = (entry, table) {
            self.illegal(key, entry, "a table");
        }
        self.inner(key, table, entry.map_or(self.span.clone(), Spanned::span))
    }

    /// The tables of an array of tables, `[[key]]`; none if absent.
    pub fn tables(&mut self, key: &'static str) -> Vec<Section<'a, 'i>> {
        let Some(entry) = self.find(key) else { return Vec::new() };
        let items = entry.get_ref().as_array().map(|items| items.iter().map(|item| (item, item.get_ref().as_table())));
        let Some(items) = items else {
            self.illegal(key, entry, &format!("an array of tables, written [[{key}]]"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (item, table) in items {
            match table {
                Some(table) => sections.push(self.inner(key, Some(table), item.span())),
                None => self.illegal(key, item, &format!("a table, written [[{key}]]")),
            }
        }
        sections
    }

    /// Ends the reading: what was not asked for has no meaning, and is a fault, not a silent nothing.
    pub fn close(self) {
        for key in self.table.into_iter().flat_map(DeTable::keys) {
            let name: &str = key.get_ref();
            if !self.asked.contains(&name) {
                self.fault(key.span(), name, format!("unknown key; legal here: {}", self.asked.join(", ")));
            }
        }
    }

    fn inner(&self, key: &str, table: Option<&'a DeTable<'i>>, span: Range<usize>) -> Section<'a, 'i> {
        Section { report: self.report, path: self.path_of(key), table, span, asked: vec![] }
    }

    fn find(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.asked.push(key);
        self.table.and_then(|table| table.get(key))
    }

    fn get<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        convert: impl FnOnce(&DeValue<'i>) -> Option<T>,
    ) -> Option<Located<T>> {
        let entry = self.find(key)?;
        match convert(entry.get_ref()) {
            Some(value) => Some(Located { value, span: entry.span() }),
            None => {
                self.illegal(key, entry, expected);
                None
            }
        }
    }

    fn parse_string<T, E: Display>(
        &self,
        key: &str,
        entry: &Spanned<DeValue<'i>>,
        legal: &str,
        parse: &impl Fn(&str) -> Result<T, E>,
    ) -> Option<Located<T>> {
        let Some(text) = entry.get_ref().as_str() else {
            self.illegal(key, entry, legal);
            return None;
        };
        match parse(text) {
            Ok(value) => Some(Located { value, span: entry.span() }),
            Err(why) => {
                let written = self.report.excerpt(entry.span());
                self.fault(entry.span(), key, format!("{written} is not legal: {why}; legal: {legal}"));
                None
            }
        }
    }

    fn illegal(&self, key: &str, entry: &Spanned<DeValue<'i>>, legal: &str) {
        let written = self.report.excerpt(entry.span());
        let kind = entry.get_ref().type_str();
        self.fault(entry.span(), key, format!("{written} ({kind}) is not legal; legal: {legal}"));
    }
}
