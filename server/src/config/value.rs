// SPDX-License-Identifier: Apache-2.0
//! Values as Go's flag package reads and prints them.
//!
//! Owns      the syntax of booleans, numbers, durations and comma lists.
//! Never     knows which flag a value belongs to.

use std::time::Duration;

/// As `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// As `strconv.ParseUint(text, 0, 64)`: decimal, `0x`, `0o` or `0`, `0b`, underscores after a prefix.
pub fn parse_uint(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (lower[2..].replace('_', ""), 16),
        [b'0', b'b', ..] => (lower[2..].replace('_', ""), 2),
        [b'0', b'o', ..] => (lower[2..].replace('_', ""), 8),
        [b'0', _, ..] => (lower[1..].replace('_', ""), 8),
        _ => (lower, 10),
    };
    // `from_str_radix` would take a sign.
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    u64::from_str_radix(&digits, radix).ok()
}

/// As `strconv.ParseInt(text, 0, 64)`.
pub fn parse_int(text: &str) -> Option<i64> {
    match text.strip_prefix('-') {
        Some(rest) => 0i64.checked_sub_unsigned(parse_uint(rest)?),
        None => parse_uint(text.strip_prefix('+').unwrap_or(text))?.try_into().ok(),
    }
}

/// As `time.ParseDuration`, in nanoseconds: `1h2m3.5s`, `300ms`, `-1.5h`, `0`.
pub fn parse_duration_ns(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, after) = rest.split_at(number);
        let unit = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let unit_ns: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(scaled(digits, unit_ns)?)?;
        rest = after;
    }
    let magnitude = i64::try_from(total).ok()?;
    Some(if negative { -magnitude } else { magnitude })
}

/// `digits` (at most one point) times `unit_ns`, the fraction cut.
fn scaled(digits: &str, unit_ns: u128) -> Option<u128> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut part = 0;
    let mut scale = unit_ns;
    for digit in fraction.bytes() {
        scale /= 10;
        part += u128::from(digit - b'0') * scale;
    }
    whole.checked_mul(unit_ns)?.checked_add(part)
}

/// As Go prints a `time.Duration`: `1h0m0s`, `1.5s`, `300ms`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    let ns = duration.as_nanos();
    let with_fraction = |unit_ns: u128, unit: &str| {
        let fraction = format!("{:0width$}", ns % unit_ns, width = unit_ns.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() || unit_ns == 1 { "" } else { "." };
        let fraction = if unit_ns == 1 { "" } else { fraction };
        format!("{}{point}{fraction}{unit}", ns / unit_ns)
    };
    match ns {
        0 => "0s".into(),
        1..1_000 => with_fraction(1, "ns"),
        1_000..1_000_000 => with_fraction(1_000, "µs"),
        1_000_000..1_000_000_000 => with_fraction(1_000_000, "ms"),
        _ => {
            let minutes = duration.as_secs() / 60;
            let rest = Duration::from_nanos((ns % 60_000_000_000) as u64);
            let seconds = format!("{}.{:09}", rest.as_secs(), rest.subsec_nanos());
            let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, m) => format!("{m}m{seconds}s"),
                (h, m) => format!("{h}h{m}m{seconds}s"),
            }
        }
    }
}

/// The parts of a comma list; none of an empty text.
pub fn parse_list(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { text.split(',').map(|part| part.trim().to_owned()).collect() }
}

/// The candidate nearest to `word`, if one is near enough to have been meant.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (edits(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    // rule: FL-1
    #[test]
    fn durations_are_read_and_printed_as_go_does() {
        for (text, ns, printed) in [
            ("0", 0, "0s"),
            ("1s", 1_000_000_000, "1s"),
            ("300ms", 300_000_000, "300ms"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            ("2h0m0s", 7_200_000_000_000, "2h0m0s"),
            ("1m1.25s", 61_250_000_000, "1m1.25s"),
            ("1500us", 1_500_000, "1.5ms"),
            ("17ns", 17, "17ns"),
            ("1.5us", 1_500, "1.5µs"),
        ] {
            assert_eq!(parse_duration_ns(text), Some(ns), "{text}");
            assert_eq!(format_duration(Duration::from_nanos(ns as u64)), printed, "{text}");
        }
        assert_eq!(parse_duration_ns("-2s"), Some(-2_000_000_000));
        for text in ["", "1", "s", "1x", ".s", "1..2s", "300000000h"] {
            assert_eq!(parse_duration_ns(text), None, "{text}");
        }
    }

    // rule: FL-1
    #[test]
    fn numbers_are_read_as_go_does() {
        for (text, value) in [("0", 0), ("128", 128), ("0x10", 16), ("010", 8), ("0b11", 3), ("0o17", 15)] {
            assert_eq!(parse_uint(text), Some(value), "{text}");
        }
        for text in ["", "-1", "+1", "1.5", "1e3", "0x", "18446744073709551616", "a"] {
            assert_eq!(parse_uint(text), None, "{text}");
        }
        assert_eq!(parse_int("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_int("9223372036854775808"), None);
        assert_eq!(parse_int("--1"), None);
    }

    #[test]
    fn the_nearest_name_is_one_that_may_have_been_meant() {
        let names = ["data-dir", "wal-dir", "name"];
        assert_eq!(nearest("data-dri", names.into_iter()), Some("data-dir"));
        assert_eq!(nearest("frobnicate", names.into_iter()), None);
    }
}
