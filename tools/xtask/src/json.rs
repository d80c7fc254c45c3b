// SPDX-License-Identifier: Apache-2.0
//! JSON, as much of it as `cargo metadata` writes.
//!
//! Holds     what cannot be read is an error with its place.
//! Never     writes JSON.

use std::collections::BTreeMap;

use crate::Outcome;

#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    /// As it is written.
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

impl Json {
    /// Reads a whole text.
    pub fn read(text: &str) -> Outcome<Json> {
        let mut reader = Reader { bytes: text.as_bytes(), at: 0 };
        let value = reader.value(0)?;
        match reader.next_token() {
            None => Ok(value),
            Some(_) => Err(reader.wrong()),
        }
    }

    /// The value under a key; `Null` if there is none.
    pub fn get(&self, key: &str) -> &Json {
        match self {
            Json::Object(fields) => fields.get(key).unwrap_or(&Json::Null),
            _ => &Json::Null,
        }
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn list(&self) -> &[Json] {
        match self {
            Json::List(items) => items,
            _ => &[],
        }
    }
}

/// Deeper than this nothing is written that we read.
const DEPTH_MAX: u32 = 64;

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn wrong(&self) -> String {
        format!("JSON: byte {} cannot be read", self.at)
    }

    /// The next byte that is no space.
    fn next_token(&mut self) -> Option<u8> {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is = self.next_token() == Some(byte);
        self.at += usize::from(is);
        is
    }

    fn value(&mut self, depth: u32) -> Outcome<Json> {
        if depth > DEPTH_MAX {
            return Err(self.wrong());
        }
        match self.next_token() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Json::Text),
            Some(b'-' | b'0'..=b'9') => {
                let begin = self.at;
                let more = |b: &u8| matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
                while self.bytes.get(self.at).is_some_and(more) {
                    self.at += 1;
                }
                Ok(Json::Number(String::from_utf8_lossy(&self.bytes[begin..self.at]).into_owned()))
            }
            _ => {
                for (word, value) in
                    [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))]
                {
                    if self.bytes[self.at..].starts_with(word.as_bytes()) {
                        self.at += word.len();
                        return Ok(value);
                    }
                }
                Err(self.wrong())
            }
        }
    }

    fn object(&mut self, depth: u32) -> Outcome<Json> {
        self.at += 1;
        let mut fields = BTreeMap::new();
        if self.take(b'}') {
            return Ok(Json::Object(fields));
        }
        loop {
            if self.next_token() != Some(b'"') {
                return Err(self.wrong());
            }
            let key = self.string()?;
            if !self.take(b':') {
                return Err(self.wrong());
            }
            fields.insert(key, self.value(depth + 1)?);
            if self.take(b'}') {
                return Ok(Json::Object(fields));
            }
            if !self.take(b',') {
                return Err(self.wrong());
            }
        }
    }

    fn array(&mut self, depth: u32) -> Outcome<Json> {
        self.at += 1;
        let mut items = Vec::new();
        if self.take(b']') {
            return Ok(Json::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.take(b']') {
                return Ok(Json::List(items));
            }
            if !self.take(b',') {
                return Err(self.wrong());
            }
        }
    }

    /// A text; the reader stands at its first quote.
    fn string(&mut self) -> Outcome<String> {
        self.at += 1;
        let mut out = Vec::new();
        loop {
            let byte = *self.bytes.get(self.at).ok_or_else(|| self.wrong())?;
            self.at += 1;
            match byte {
                b'"' => return String::from_utf8(out).map_err(|_| self.wrong()),
                b'\\' => {
                    let escaped = *self.bytes.get(self.at).ok_or_else(|| self.wrong())?;
                    self.at += 1;
                    match escaped {
                        b'n' => out.push(b'\n'),
                        b't' => out.push(b'\t'),
                        b'r' => out.push(b'\r'),
                        b'b' => out.push(8),
                        b'f' => out.push(12),
                        b'u' => {
                            let hex = self.bytes.get(self.at..self.at + 4).ok_or_else(|| self.wrong())?;
                            let code = std::str::from_utf8(hex).ok();
                            let code = code.and_then(|hex| u32::from_str_radix(hex, 16).ok());
                            self.at += 4;
                            // One half of a pair stands for nothing alone; names have none.
                            let c = code.and_then(char::from_u32).unwrap_or('\u{fffd}');
                            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                        }
                        other => out.push(other),
                    }
                }
                other => out.push(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_what_is_none_is_refused() {
        let value = Json::read(r#" {"a": [1, -2.5e3, "x\n\"é\u00e9"], "b": {"c": null, "d": true}} "#);
        let value = value.expect("JSON");
        assert_eq!(value.get("a").list()[1], Json::Number("-2.5e3".into()));
        assert_eq!(value.get("a").list()[2].text(), Some("x\n\"éé"));
        assert_eq!((value.get("b").get("c"), value.get("b").get("d")), (&Json::Null, &Json::Bool(true)));
        assert_eq!(value.get("z"), &Json::Null);
        for bad in ["", "{", "[1,]", "{\"a\" 1}", "\"x", "[1] 2", "nul", &"[".repeat(100)] {
            assert!(Json::read(bad).is_err(), "{bad}");
        }
    }
}
