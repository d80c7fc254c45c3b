// SPDX-License-Identifier: Apache-2.0
//! The text of one line.
//!
//! Owns      the order of the keys and the form of the time.
//! Never     writes anywhere.

use super::{Field, Level, Value};
use std::{
    panic::Location,
    time::{SystemTime, UNIX_EPOCH},
};

const SECONDS_PER_DAY: u64 = 86_400;

/// LG-1: one JSON object and a newline.
pub fn json(now: SystemTime, level: Level, caller: &str, message: &str, fields: &[Field<'_>]) -> String {
    let mut out = format!(
        "{{\"level\":\"{}\",\"ts\":\"{}\",\"caller\":{},\"msg\":{}",
        level.name(),
        timestamp(now),
        Value::from(caller),
        Value::from(message)
    );
    for (key, value) in fields {
        out.push_str(&format!(",{}:{value}", Value::from(*key)));
    }
    out.push_str("}\n");
    out
}

/// LG-2: tabs between the parts, fields as one JSON object if there are any.
pub fn console(now: SystemTime, level: Level, caller: &str, message: &str, fields: &[Field<'_>]) -> String {
    let mut out = format!("{}\t{}\t{caller}\t{message}", timestamp(now), level.name());
    for (i, (key, value)) in fields.iter().enumerate() {
        let opening = if i == 0 { "\t{" } else { ", " };
        out.push_str(&format!("{opening}{}: {value}", Value::from(*key)));
    }
    out.push_str(if fields.is_empty() { "\n" } else { "}\n" });
    out
}

/// `directory/file.rs:line`.
pub fn caller(location: &Location<'_>) -> String {
    let path = location.file();
    let from = path.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
    format!("{}:{}", &path[from..], location.line())
}

/// `2024-03-05T11:22:33.123456Z`.
pub fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / SECONDS_PER_DAY, since.as_secs() % SECONDS_PER_DAY);
    let (year, month, day) = date_of(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_micros()
    )
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar. Counts in years that begin
/// in March, so that the leap day is the last of its year, and in eras of 400 years (146,097 days).
fn date_of(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468; // days since 0000-03-01
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    // rule: LG-1
    // rule: LG-2
    #[test]
    fn lines_have_etcds_keys_in_their_order() {
        let now = UNIX_EPOCH + Duration::new(1_709_637_753, 123_456_789);
        let fields = [("took", Value::from("1.2ms")), ("count", Value::from(3))];
        assert_eq!(
            json(now, Level::Warn, "src/x.rs:7", "a \"quoted\" message", &fields),
            "{\"level\":\"warn\",\"ts\":\"2024-03-05T11:22:33.123456Z\",\"caller\":\"src/x.rs:7\",\
             \"msg\":\"a \\\"quoted\\\" message\",\"took\":\"1.2ms\",\"count\":3}\n"
        );
        assert_eq!(
            console(now, Level::Info, "src/x.rs:7", "m", &fields),
            "2024-03-05T11:22:33.123456Z\tinfo\tsrc/x.rs:7\tm\t{\"took\": \"1.2ms\", \"count\": 3}\n"
        );
        assert!(console(now, Level::Info, "c", "m", &[]).ends_with("\tc\tm\n"));
    }

    #[test]
    fn dates_know_leap_years() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn the_caller_is_a_directory_a_file_and_a_line() {
        let text = caller(Location::caller());
        let (path, line) = text.split_once(':').expect("a colon");
        assert_eq!(path, "log/line.rs");
        assert!(line.parse::<u32>().is_ok());
    }
}
