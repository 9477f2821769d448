//! Numbers as a person reads them: three digits, and a unit that fits.

/// Stands where there is nothing to show.
pub const NOTHING: &str = "–";

/// A number with so many significant digits, without exponent: `0.0123`, `1.23`, `123`, `12345`.
pub fn significant(value: f64, digits: i32) -> String {
    if !value.is_finite() {
        return NOTHING.to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    // The exponent after rounding: 0.9997 with three digits is 1.00, not 1.000.
    let rounded = format!("{value:.*e}", digits.saturating_sub(1).max(0) as usize);
    let exponent: i32 = rounded.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    // Nine decimals are a nanosecond of a second; what is smaller is nothing.
    let decimals = (digits - 1 - exponent).clamp(0, 9) as usize;
    format!("{value:.decimals$}")
}

/// A count or a rate: `0`, `950`, `12.3 k`, `1.20 M`.
pub fn si(value: f64) -> String {
    scaled(value, 1000.0, &["", " k", " M", " G", " T"])
}

/// A count or a rate as the label of an axis, without digits that say nothing: `10 k`, `1.5 M`.
pub fn si_short(value: f64) -> String {
    let long = si(value);
    let (number, unit) = long.split_once(' ').unwrap_or((&long, ""));
    let number = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    if unit.is_empty() { number.to_owned() } else { format!("{number} {unit}") }
}

/// A size: `0 B`, `1.50 MiB`.
pub fn bytes(value: f64) -> String {
    scaled(value, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB"])
}

/// Microseconds as milliseconds, without the unit.
pub fn millis(micros: f64) -> String {
    significant(micros / 1000.0, 3)
}

/// A percentage without its sign. Cut, not rounded, where it nears 100: only everything is `100`.
pub fn percent(value: f64) -> String {
    match value {
        value if !value.is_finite() => NOTHING.to_owned(),
        100.0 => "100".to_owned(),
        // The tiny addend undoes what binary fractions lose: 99.9 is 99.900 and not 99.89.
        value if value >= 99.0 => format!("{:.2}", (value * 100.0 + 1e-6).floor() / 100.0),
        value => format!("{value:.1}"),
    }
}

/// How many times as much.
pub fn ratio(value: f64) -> String {
    if value.is_finite() { format!("{}×", significant(value, 3)) } else { NOTHING.to_owned() }
}

/// Three digits and the largest unit that leaves a number of at least 1. Counts below the first unit stay whole.
fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    if !value.is_finite() {
        return NOTHING.to_owned();
    }
    let (mut value, mut unit) = (value, 0);
    // 999.5 would be written as 1000 of the smaller unit.
    while value.abs() >= step - 0.5 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let digits = if unit == 0 && value.fract() == 0.0 { value.to_string() } else { significant(value, 3) };
    format!("{digits}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn significant_keeps_digits_not_decimals() {
        let shown =
            [0.0, 0.012345, 0.9997, 1.2345, 12.345, 123.45, 12345.6, f64::NAN].map(|value| significant(value, 3));
        assert_eq!(shown, ["0", "0.0123", "1.00", "1.23", "12.3", "123", "12346", NOTHING]);
    }

    #[test]
    fn si_picks_a_unit() {
        let shown = [0.0, 950.0, 999.7, 10_000.0, 1_204_000.0, f64::INFINITY].map(si);
        assert_eq!(shown, ["0", "950", "1.00 k", "10.0 k", "1.20 M", NOTHING]);
        assert_eq!([0.0, 100.0, 10_000.0, 1_500_000.0].map(si_short), ["0", "100", "10 k", "1.5 M"]);
    }

    #[test]
    fn bytes_picks_a_unit() {
        assert_eq!([0.0, 512.0, 1536.0 * 1024.0].map(bytes), ["0 B", "512 B", "1.50 MiB"]);
    }

    #[test]
    fn percent_never_rounds_up_to_all() {
        let shown = [100.0, 99.9999, 99.9, 98.76, 0.0, f64::NAN].map(percent);
        assert_eq!(shown, ["100", "99.99", "99.90", "98.8", "0.0", NOTHING]);
    }
}
