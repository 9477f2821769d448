//! Which key was given twice, and where it stands first: the parser tells only the place of the second.

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

/// A key that is given twice.
#[derive(Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// The full name, for example `listener.half_open.max`.
    pub key: String,
    /// Byte offset of the first place.
    pub first: usize,
}

/// A key that no file has. Not of the bare keys, so quoted.
const MARK: &str = "\u{1}";

/// What an error is about, if it is about a duplicate.
///
/// The second key is renamed and the text parsed again: then the new name stands beside the first key, in the same table.
pub fn find(source: &str, error: &Error) -> Option<Duplicate> {
    let span = error.span().filter(|_| error.message() == "duplicate key")?;
    let name = key_name(source.get(span.clone())?)?;
    let renamed = format!("{}\"\\u0001\"{}", &source[..span.start], &source[span.end..]);
    let (document, _) = DeTable::parse_recoverable(&renamed);
    let (mut path, table) = table_with_mark(document.get_ref())?;
    let (first, _) = table.iter().find(|(key, _)| **key.get_ref() == *name)?;
    path.push(&name);
    Some(Duplicate { key: path.join("."), first: first.span().start }).filter(|found| found.first < span.start)
}

/// The key as written, without quotes and escapes.
fn key_name(written: &str) -> Option<String> {
    let text = format!("{written} = 0");
    let (table, errors) = DeTable::parse_recoverable(&text);
    let key = table.get_ref().keys().next()?;
    errors.is_empty().then(|| key.get_ref().to_string())
}

/// The table with the renamed key, and its path.
fn table_with_mark<'t, 'i>(table: &'t DeTable<'i>) -> Option<(Vec<&'t str>, &'t DeTable<'i>)> {
    if table.contains_key(MARK) {
        return Some((Vec::new(), table));
    }
    table.iter().find_map(|(key, value)| {
        let (mut path, found) = value_with_mark(value)?;
        path.insert(0, key.get_ref());
        Some((path, found))
    })
}

fn value_with_mark<'t, 'i>(value: &'t Spanned<DeValue<'i>>) -> Option<(Vec<&'t str>, &'t DeTable<'i>)> {
    match value.get_ref() {
        DeValue::Table(table) => table_with_mark(table),
        DeValue::Array(items) => items.iter().find_map(value_with_mark),
        _ => None,
    }
}
