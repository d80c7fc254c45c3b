// SPDX-License-Identifier: Apache-2.0
//! The part of `benches/README.md` that a run writes.
//!
//! Owns      what stands between the two marks of a size of values.
//! Holds     all else in the file is left as a person wrote it.
//! Never     writes a path.

use super::{About, Titled, about_lines};
use crate::store::Answer;

/// The marks, and what stands between them.
pub struct Section {
    begin: String,
    end: String,
    text: String,
}

pub fn section(about: &About<'_>, tables: &[Titled], goals: Option<&Titled>) -> Section {
    let value = about.settings.value_bytes;
    let mut text = String::new();
    for line in about_lines(about) {
        text += &format!("- {line}\n");
    }
    for (title, table) in goals.into_iter().chain(tables) {
        text += &format!("\n**{title}**\n\n{}", table.markdown());
    }
    Section {
        begin: format!("<!-- rivals {value}: begin -->"),
        end: format!("<!-- rivals {value}: end -->"),
        text,
    }
}

/// `whole` with the section in its place.
pub fn replace(whole: &str, section: &Section) -> Answer<String> {
    let Section { begin, end, text } = section;
    let missing = |mark| format!("benches/README.md has no mark {mark:?}");
    let (before, rest) = whole.split_once(begin.as_str()).ok_or_else(|| missing(begin))?;
    let (_, after) = rest.split_once(end.as_str()).ok_or_else(|| missing(end))?;
    Ok(format!("{before}{begin}\n{text}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let section = Section { begin: "<a>".to_owned(), end: "</a>".to_owned(), text: "new\n".to_owned() };
        assert_eq!(
            replace("x\n<a>\nold\n</a>\ny\n", &section).ok().as_deref(),
            Some("x\n<a>\nnew\n</a>\ny\n")
        );
        assert!(replace("x\n<a>\nold\n", &section).is_err());
    }
}
