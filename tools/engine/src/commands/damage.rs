// SPDX-License-Identifier: Apache-2.0
//! How damage is told: a line for people, an object for programs.
//!
//! Owns      the words and fields of one finding.
//! Holds     a finding names its file, and page, tree and keys where it has them.
//! Never     decides what is damage.

use cairn_engine::inspect::{Findings, Keys};
use cairn_engine::{Corruption, Error, Schema, TreeKind};
use serde::{Serialize, Serializer};

use crate::bytes::{as_text, escaped};
use crate::outcome::Outcome;
use crate::output::{Output, Paint};

/// One finding.
#[derive(Serialize, Clone, Debug)]
pub struct Damage {
    pub file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree: Option<String>,
    pub what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// The keys that it hides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<Hidden>,
}

/// Keys from `low` up to `high`.
#[derive(Serialize, Clone, Debug)]
pub struct Hidden {
    pub low: Key,
    /// `None` is the end of the tree.
    pub high: Option<Key>,
}

/// A key of a tree; that of an append tree is a revision.
#[derive(Clone, Debug)]
pub enum Key {
    Bytes(Vec<u8>),
    Revision(u64, u64),
}

impl Key {
    pub fn of(kind: TreeKind, key: &[u8]) -> Key {
        match (kind, key.first_chunk(), key.last_chunk()) {
            (TreeKind::Append, Some(main), Some(sub)) if key.len() == 16 => {
                Key::Revision(u64::from_be_bytes(*main), u64::from_be_bytes(*sub))
            }
            _ => Key::Bytes(key.to_vec()),
        }
    }

    pub fn shown(&self) -> String {
        match self {
            Key::Bytes(key) => format!("\"{}\"", escaped(key)),
            Key::Revision(main, sub) => format!("{main}.{sub}"),
        }
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Key::Bytes(key) => as_text(key, serializer),
            Key::Revision(..) => serializer.serialize_str(&self.shown()),
        }
    }
}

impl Damage {
    pub fn new(error: &Error, keys: Option<&Keys>, schema: Schema) -> Damage {
        let mut damage = match error {
            Error::Corrupt(corruption) => Damage::from(&**corruption),
            Error::Io(failure) => Damage {
                offset: failure.offset,
                ..Damage::of(
                    failure.file.display().to_string(),
                    format!("cannot be read: {}", failure.source),
                )
            },
            other => Damage::of(String::new(), other.to_string()),
        };
        let tree = schema.iter().find(|tree| damage.tree.as_deref() == Some(tree.name));
        damage.keys = keys.zip(tree).map(|(keys, tree)| Hidden {
            low: Key::of(tree.kind, &keys.low),
            high: keys.high.as_ref().map(|high| Key::of(tree.kind, high)),
        });
        damage
    }

    fn of(file: String, what: String) -> Damage {
        let (offset, page, tree, expected, found, keys) = Default::default();
        Damage { file, offset, page, tree, what, expected, found, keys }
    }

    /// The finding on one line, the file left out.
    fn line(&self) -> String {
        let mut line = String::new();
        let mut part = |text: String| {
            if !line.is_empty() {
                line.push_str(", ");
            }
            line.push_str(&text);
        };
        self.offset.into_iter().for_each(|offset| part(format!("offset {offset}")));
        self.page.into_iter().for_each(|page| part(format!("page {page}")));
        self.tree.iter().for_each(|tree| part(format!("tree {tree}")));
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&self.what);
        self.expected.iter().for_each(|expected| line.push_str(&format!(", expected {expected}")));
        self.found.iter().for_each(|found| line.push_str(&format!(", found {found}")));
        if let Some(Hidden { low, high }) = &self.keys {
            let high = high.as_ref().map_or("the end".to_owned(), Key::shown);
            line.push_str(&format!("; hides keys {} to {high}", low.shown()));
        }
        line
    }
}

impl From<&Corruption> for Damage {
    fn from(corruption: &Corruption) -> Damage {
        let Corruption { file, offset, page, tree, what, expected, found } = corruption.clone();
        Damage { offset, page, tree, expected, found, ..Damage::of(file.display().to_string(), what) }
    }
}

/// All findings of a pass.
pub fn list(findings: &Findings, schema: Schema) -> Vec<Damage> {
    findings.damage.iter().map(|(error, keys)| Damage::new(error, keys.as_ref(), schema)).collect()
}

/// Tells on standard error what was found beside what was asked for.
pub fn tell(findings: &Findings) {
    for (error, _) in &findings.damage {
        eprintln!("engine: {error}");
    }
}

/// Prints what was found, file by file.
pub fn print(output: &mut Output, damage: &[Damage], count: u64) -> Outcome<()> {
    let mut file = None;
    for finding in damage {
        if file != Some(&finding.file) {
            output.line(&output.paint(Paint::Bad, &format!("damage in {}:", finding.file)))?;
            file = Some(&finding.file);
        }
        output.line(&format!("  {}", finding.line()))?;
    }
    let more = count - damage.len() as u64;
    if more > 0 {
        output.line(&format!("  and {more} more"))?;
    }
    Ok(())
}
