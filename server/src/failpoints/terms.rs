// SPDX-License-Identifier: Apache-2.0
//! gofail's terms: `2*sleep(100)->50.0%panic("now")->off`.
//!
//! Owns      their syntax.
//! Holds     what is not done is refused: `break`, which would call a debugger; a `sleep` without a time; and a count before
//!           a chance, of which gofail counts cases that the chance lets go by.
//! Never     does what they say.

use crate::config::value::parse_duration_ns;
use cairn_engine::failpoints::{Act, Term};
use std::time::Duration;

/// The terms of a chain.
///
/// # Errors
/// What is wrong with the first that is not one.
pub fn read(text: &str) -> Result<Vec<Term>, String> {
    let (mut chain, mut rest) = (Vec::new(), text);
    loop {
        let (term, after) = term(rest)?;
        chain.push(term);
        if after.is_empty() {
            return Ok(chain);
        }
        rest = after.strip_prefix("->").ok_or_else(|| format!("{after:?} does not begin with \"->\""))?;
    }
}

/// `[P%][N*]act[(value)]`, and what follows it.
fn term(text: &str) -> Result<(Term, &str), String> {
    let (mut percent, mut times, mut rest) = (None, None, text);
    loop {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        if number.is_empty() {
            break;
        }
        let wrong = || format!("{number:?} is no number before {after:?}");
        match after.chars().next() {
            Some('%') if percent.is_none() && times.is_none() => {
                percent = Some(number.parse().map_err(|_| wrong())?)
            }
            Some('*') if times.is_none() => times = Some(number.parse().map_err(|_| wrong())?),
            Some('%' | '*') => return Err("one chance at most, and one count behind it".to_owned()),
            _ => return Err(wrong()),
        }
        rest = &after[1..];
    }
    let acts = ["off", "return", "sleep", "panic", "print"];
    let act = acts.into_iter().find(|act| rest.starts_with(act));
    let act = act.ok_or_else(|| format!("{rest:?} begins with none of {}", acts.join(", ")))?;
    let (value, after) = value(&rest[act.len()..])?;
    let act = match (act, value) {
        ("off", _) => Act::Off,
        ("return", value) => Act::Return(value.unwrap_or_default()),
        ("sleep", value) => Act::Sleep(time(&value.unwrap_or_default())?),
        ("panic", value) => Act::Panic(value),
        (_, _) => Act::Print,
    };
    Ok((Term { percent, times, act }, after))
}

/// `("text")`, `(7)`, `(true)`, `()` or nothing, and what follows it.
fn value(text: &str) -> Result<(Option<String>, &str), String> {
    let Some(inner) = text.strip_prefix('(') else { return Ok((None, text)) };
    let open = || format!("{text:?} is not closed");
    if let Some(quoted) = inner.strip_prefix('"') {
        let (mut value, mut chars) = (String::new(), quoted.char_indices());
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    let after = quoted[at + 1..].strip_prefix(')').ok_or_else(open)?;
                    return Ok((Some(value), after));
                }
                '\\' => match chars.next() {
                    Some((_, c @ ('"' | '\\'))) => value.push(c),
                    _ => return Err(format!("{text:?} has an escape other than \\\" and \\\\")),
                },
                c => value.push(c),
            }
        }
        return Err(open());
    }
    let (value, after) = inner.split_once(')').ok_or_else(open)?;
    match value {
        "" => Ok((None, after)),
        value if value.parse::<i64>().is_ok() || matches!(value, "true" | "false") => {
            Ok((Some(value.to_owned()), after))
        }
        value => Err(format!("{value:?} is neither quoted, a number nor true or false")),
    }
}

/// Milliseconds, or a duration in Go's syntax.
fn time(value: &str) -> Result<Duration, String> {
    if let Ok(ms) = value.parse() {
        return Ok(Duration::from_millis(ms));
    }
    let ns = parse_duration_ns(value).and_then(|ns| u64::try_from(ns).ok());
    ns.map(Duration::from_nanos).ok_or_else(|| format!("sleep({value}) has no time"))
}
