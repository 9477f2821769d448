//! Numbers with few digits, and text that is safe to show.

/// Most characters of a name that are shown.
const NAME_CHARS_MAX: usize = 64;

/// A count or a rate with three digits or so: `7.2`, `312`, `48.1k`, `1.5M`.
pub fn compact(value: f64) -> String {
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    let (mut value, mut unit) = (value.max(0.0), 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(value < 99.95 && (unit > 0 || value.fract() != 0.0));
    format!("{value:.digits$}{}", UNITS[unit])
}

/// A rate: `48.1k/s`; `-` where there is none yet.
pub fn per_second(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), |rate| format!("{}/s", compact(rate)))
}

/// A name that came over the socket: without control characters, so that no escape sequence gets to the terminal, without those that turn or
/// hide what stands beside them, and not too long.
pub fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() || is_format(c) { '?' } else { c };
    let mut shown: String = text.chars().take(NAME_CHARS_MAX + 1).map(shown).collect();
    if shown.chars().count() > NAME_CHARS_MAX {
        shown = shown.chars().take(NAME_CHARS_MAX - 3).chain("...".chars()).collect();
    }
    shown
}

/// Characters without a shape of their own: joiners, marks and turns of direction, tags, the byte order mark.
fn is_format(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_few_digits() {
        for (value, shown) in [
            (0.0, "0"),
            (7.25, "7.2"),
            (12.0, "12"),
            (312.4, "312"),
            (999.4, "999"),
            (999.9, "1.0k"),
            (48_123.0, "48.1k"),
            (1_500_000.0, "1.5M"),
            (1e20, "100000000T"),
            (-3.0, "0"),
        ] {
            assert_eq!(compact(value), shown, "{value}");
        }
        assert_eq!((per_second(None), per_second(Some(5.0))), ("-".to_owned(), "5/s".to_owned()));
    }

    #[test]
    fn no_escape_sequence_gets_through() {
        assert_eq!(printable("web\u{1b}[2J\u{7}\r\n\u{9b}1m"), "web?[2J????1m");
        assert_eq!(printable("a\u{202e}b\u{200b}c\u{feff}"), "a?b?c?");
        assert_eq!(printable("naïve-名前"), "naïve-名前");
        let long = printable(&"x".repeat(1000));
        assert!(long.ends_with("...") && long.len() == NAME_CHARS_MAX);
    }
}
