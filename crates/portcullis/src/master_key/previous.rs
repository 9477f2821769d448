//! The master keys before the one of `master.key`, for as long as a restart may need them: a line each, `KEY UNIX_SECONDS`, with the time
//! until which it makes cookies.

use std::fmt::Write;

use listener::MasterKey;
use listener::cookie::{Epoch, KeySchedule};
use zeroize::Zeroizing;

/// The text of the file; empty, if there is none before the last.
pub fn text(masters: &KeySchedule) -> Zeroizing<String> {
    // With room for all, so that nothing is left behind where it was before it grew.
    let mut text = Zeroizing::new(String::with_capacity((KeySchedule::LATER_MAX + 1) * 96));
    let mut before = masters.first();
    for (from, master) in masters.later() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{} {}", *before.to_hex(), from.begins_unix());
        before = master;
    }
    text
}

/// What such a text says, with `last` behind all of it.
///
/// # Errors
/// What is wrong with which line, without quoting it.
pub fn parse(text: &str, last: MasterKey) -> Result<KeySchedule, String> {
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let parsed =
            line.split_once(' ').ok_or("it is no key with a time behind it".to_owned()).and_then(|(key, until)| {
                let key = MasterKey::from_hex(key).map_err(|error| error.to_string())?;
                let until: u64 = until.parse().map_err(|error| format!("its time is none: {error}"))?;
                Ok((key, Epoch(until.div_ceil(Epoch::SECONDS))))
            });
        lines.push(parsed.map_err(|why| format!("line {number}: {why}"))?);
    }
    let mut masters: Option<KeySchedule> = None;
    let mut from = Epoch(0);
    for (master, until) in lines.into_iter().map(|(master, until)| (master, Some(until))).chain([(last, None)]) {
        masters = Some(match masters {
            None => KeySchedule::new(master),
            Some(mut before) => {
                before.rotate(from, master).map_err(|error| error.to_string())?;
                before
            }
        });
        from = until.unwrap_or(from);
    }
    masters.ok_or_else(|| "there is nothing in it".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let master = |byte| MasterKey::from_bytes([byte; 32]);
        let mut masters = KeySchedule::new(master(1));
        assert_eq!(*text(&masters), "");
        masters.rotate(Epoch(10), master(2)).unwrap();
        masters.rotate(Epoch(12), master(3)).unwrap();
        let read = parse(&text(&masters), master(3)).unwrap();
        for epoch in [0, 9, 10, 11, 12, 13] {
            assert!(read.master_of(Epoch(epoch)).is(masters.master_of(Epoch(epoch))), "{epoch}");
        }
        assert_eq!(read.later().count(), 2);
    }

    #[test]
    fn what_makes_no_sense_is_named_by_its_line_and_not_quoted() {
        let good = "11".repeat(32);
        for (text, part) in [
            (good.clone(), "line 1: it is no key"),
            (format!("{good} 64\nsecret 64"), "line 2: a master key is 64"),
            (format!("{good} soon"), "line 1: its time is none"),
            (format!("{good} 64\n").repeat(2).replace("64", "-1"), "line 1: its time"),
        ] {
            let why = parse(&text, MasterKey::from_bytes([3; 32])).unwrap_err();
            assert!(why.contains(part) && !why.contains("secret") && !why.contains(&good), "{why}");
        }
        let many: String = (1..20).map(|n| format!("{good} {}\n", n * 64)).collect();
        assert!(parse(&many, MasterKey::from_bytes([3; 32])).unwrap_err().contains("rotations are under way"));
    }
}
