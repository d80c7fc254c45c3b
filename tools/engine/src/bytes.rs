// SPDX-License-Identifier: Apache-2.0
//! How bytes and sizes are shown and typed.
//!
//! Owns      the escapes of keys in tables, the two forms of bytes in JSON, and sizes for people.
//! Holds     1. whatever the bytes, what is shown is one line of printable text, and no two keys are shown alike;
//!           2. what is shown can be typed again, with `--escaped`.
//! Never     guesses an encoding: bytes are UTF-8 or they are not.

use std::fmt::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD as STANDARD};
use serde::ser::{SerializeMap, Serializer};

/// Text as it is, a backslash as `\\`, and each byte that is not printable text, or a space at either end, as `\xNN`.
pub fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    let before = bytes.iter().take_while(|byte| **byte == b' ').count();
    let rest = &bytes[before..];
    let behind = rest.iter().rev().take_while(|byte| **byte == b' ').count();
    (0..before).for_each(|_| hex(&mut out, b' '));
    for chunk in rest[..rest.len() - behind].utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                c if c.is_control() => {
                    let mut utf8 = [0; 4];
                    c.encode_utf8(&mut utf8).bytes().for_each(|byte| hex(&mut out, byte));
                }
                c => out.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| hex(&mut out, *byte));
    }
    (0..behind).for_each(|_| hex(&mut out, b' '));
    out
}

fn hex(out: &mut String, byte: u8) {
    write!(out, "\\x{byte:02x}").expect("a string takes all");
}

/// The bytes that `text` shows.
///
/// # Errors
/// The place of an escape that is none.
pub fn unescaped(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at + 1..];
        if let Some(after) = escape.strip_prefix('\\') {
            out.push(b'\\');
            rest = after;
            continue;
        }
        let digits = escape.strip_prefix('x').and_then(|digits| digits.get(..2));
        let byte = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = byte.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(byte.ok_or_else(|| format!("{text:?} has an escape that is neither \\\\ nor \\xNN"))?);
        rest = &escape[3..];
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

/// Standard base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The bytes of standard base64 with padding; `None` for anything else.
pub fn unbase64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Puts bytes into a JSON object: under `name` if they are UTF-8, else as base64 under `name_base64`.
pub fn put<M: SerializeMap>(map: &mut M, name: &str, bytes: &[u8]) -> Result<(), M::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => map.serialize_entry(name, text),
        Err(_) => map.serialize_entry(&format!("{name}_base64"), &base64(bytes)),
    }
}

/// Bytes as a JSON value of their own: an object with one field, `text` or `text_base64`.
pub fn as_text<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    put(&mut map, "text", bytes)?;
    map.end()
}

/// A size for people: `0 B`, `1023 B`, `1.0 KiB`, `2.5 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // Rounded up to 1024.0 it would read as the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A number with a comma at each thousand.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A share in percent; of nothing it is none.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".into() } else { format!("{:.1} %", part as f64 * 100.0 / whole as f64) }
}

/// `count` of `noun`, with an s unless it is one.
pub fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_on_one_line_and_can_be_typed_again() {
        for (bytes, shown) in [
            (&b"registry/pods/a"[..], "registry/pods/a"),
            (b"a\\b", "a\\\\b"),
            (b"\0\n\x7f\xff", "\\x00\\x0a\\x7f\\xff"),
            ("gr\u{fc}n\u{85}".as_bytes(), "gr\u{fc}n\\xc2\\x85"),
            (b"\xc3", "\\xc3"),
            (b"", ""),
            (b"a b", "a b"),
            (b" a ", "\\x20a\\x20"),
            (b"  ", "\\x20\\x20"),
        ] {
            assert_eq!(escaped(bytes), shown);
            assert_eq!(unescaped(shown).as_deref(), Ok(bytes));
        }
        for wrong in ["\\", "a\\x1", "\\xg0", "\\n", "\\x+1", "\\x\u{fc}"] {
            assert!(unescaped(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn base64_is_padded() {
        let shown: Vec<String> = ["", "f", "fo", "foo", "foob"].map(|text| base64(text.as_bytes())).into();
        assert_eq!(shown, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
        for bytes in [&b""[..], b"f", b"fo", b"foo", b"\xff\xfe\xfd\x00"] {
            assert_eq!(unbase64(&base64(bytes)).as_deref(), Some(bytes));
        }
        for wrong in ["Z", "Zg=", "Zh==", "Zg==Zg==", "Z===", "Zm9=", "Zg!="] {
            assert_eq!(unbase64(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_and_numbers_are_for_people() {
        let sizes = [0, 1023, 1024, 1536, (1 << 20) - 1, 5 << 30, u64::MAX].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "5.0 GiB", "16.0 EiB"]);
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!((percent(1, 3), percent(0, 0)), ("33.3 %".into(), "-".into()));
        assert_eq!((counted(1, "page"), counted(2000, "page")), ("1 page".into(), "2,000 pages".into()));
    }
}
