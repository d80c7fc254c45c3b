// SPDX-License-Identifier: Apache-2.0
//! The words of a script's command, and the requests they stand for.
//!
//! Owns      the syntax. A word is bare or has quoted parts (`"\x00"`); `name=value` is an option; any
//!           other word is positional or a flag.
//! Holds     every word is used, or the command is refused.

use bytes::Bytes;
use cairn_proto::etcdserverpb::compare::TargetUnion;
use cairn_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
    request_op,
};

/// One word, and where its unquoted `=` stands.
#[derive(Clone, Debug)]
struct Word {
    bytes: Vec<u8>,
    equals: Option<usize>,
    /// `(`, `)` or `;`
    mark: bool,
}

/// The words of a command not yet used.
#[derive(Clone, Debug)]
pub struct Words {
    line: String,
    words: Vec<Word>,
}

impl Words {
    pub fn of(line: &str) -> Words {
        Words { line: line.to_owned(), words: split(line) }
    }

    /// The next positional word.
    pub fn bytes(&mut self) -> Bytes {
        assert!(!self.words.is_empty(), "{:?} ends too soon", self.line);
        self.words.remove(0).bytes.into()
    }

    pub fn text(&mut self) -> String {
        String::from_utf8(self.bytes().to_vec()).unwrap_or_else(|e| panic!("{:?}: {e}", self.line))
    }

    pub fn number(&mut self) -> i64 {
        let text = self.text();
        text.parse().unwrap_or_else(|e| panic!("{:?}: {text}: {e}", self.line))
    }

    /// A bare word of this name, wherever it stands.
    pub fn flag(&mut self, name: &str) -> bool {
        let at = self.words.iter().position(|w| w.equals.is_none() && w.bytes == name.as_bytes());
        at.map(|at| self.words.remove(at)).is_some()
    }

    pub fn option(&mut self, name: &str) -> Option<Bytes> {
        let is_it = |w: &Word| w.equals.is_some_and(|at| &w.bytes[..at] == name.as_bytes());
        let at = self.words.iter().position(is_it)?;
        let word = self.words.remove(at);
        Some(word.bytes[name.len() + 1..].to_vec().into())
    }

    pub fn option_number(&mut self, name: &str) -> Option<i64> {
        let text = String::from_utf8(self.option(name)?.to_vec()).expect("a number is text");
        Some(text.parse().unwrap_or_else(|e| panic!("{:?}: {name}={text}: {e}", self.line)))
    }

    fn number_or_0(&mut self, name: &str) -> i64 {
        self.option_number(name).unwrap_or(0)
    }

    /// Every word was used.
    pub fn end(self) {
        assert!(self.words.is_empty(), "{:?}: not understood: {:?}", self.line, self.words);
    }

    /// What stands in the parentheses that come next, cut at its semicolons.
    fn list(&mut self) -> Vec<Words> {
        let open = self.words.remove(0);
        assert!(open.mark && open.bytes == b"(", "{:?}: a ( is missing", self.line);
        let (mut depth, mut items, mut item) = (1, Vec::new(), Vec::new());
        while depth > 0 {
            assert!(!self.words.is_empty(), "{:?}: a ) is missing", self.line);
            let word = self.words.remove(0);
            match (word.mark, word.bytes.as_slice()) {
                (true, b"(") => depth += 1,
                (true, b")") => depth -= 1,
                (true, b";") if depth == 1 => {
                    items.push(std::mem::take(&mut item));
                    continue;
                }
                _ => {}
            }
            if depth > 0 {
                item.push(word);
            }
        }
        if !item.is_empty() || !items.is_empty() {
            items.push(item);
        }
        items.into_iter().map(|words| Words { line: self.line.clone(), words }).collect()
    }
}

fn split(line: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    while let Some(first) = chars.peek().copied() {
        if first == ' ' {
            chars.next();
            continue;
        }
        if matches!(first, '(' | ')' | ';') {
            chars.next();
            words.push(Word { bytes: vec![first as u8], equals: None, mark: true });
            continue;
        }
        let mut word = Word { bytes: Vec::new(), equals: None, mark: false };
        while let Some(c) = chars.next_if(|c| !matches!(c, ' ' | '(' | ')' | ';')) {
            if c == '"' {
                word.bytes.extend(quoted(&mut chars));
                continue;
            }
            if c == '=' && word.equals.is_none() && !word.bytes.is_empty() {
                word.equals = Some(word.bytes.len());
            }
            word.bytes.extend(c.to_string().as_bytes());
        }
        if matches!(word.bytes.as_slice(), b"!=" | b"=") {
            word.equals = None;
        }
        words.push(word);
    }
    words
}

/// The rest of a quoted part; `*N` after a letter's quote is not needed: long values are `x*N`.
fn quoted(chars: &mut impl Iterator<Item = char>) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        match chars.next().expect("a quote is closed") {
            '"' => return bytes,
            '\\' => match chars.next().expect("an escape has its letter") {
                'x' => {
                    let hex: String = chars.take(2).collect();
                    bytes.push(u8::from_str_radix(&hex, 16).expect("two hex digits"));
                }
                '0' => bytes.push(0),
                other => bytes.extend(other.to_string().as_bytes()),
            },
            other => bytes.extend(other.to_string().as_bytes()),
        }
    }
}

/// `KEY [end=] [rev=] [limit=] [order=] [target=] [min_mod= …] [keys_only] [count_only] [serializable]`
pub fn range(words: &mut Words) -> RangeRequest {
    RangeRequest {
        key: words.bytes(),
        range_end: words.option("end").unwrap_or_default(),
        limit: words.number_or_0("limit"),
        revision: words.number_or_0("rev"),
        sort_order: words.option("order").map_or(0, |w| index(&w, &["none", "ascend", "descend"])),
        sort_target: words
            .option("target")
            .map_or(0, |w| index(&w, &["key", "version", "create", "mod", "value"])),
        serializable: words.flag("serializable"),
        keys_only: words.flag("keys_only"),
        count_only: words.flag("count_only"),
        min_mod_revision: words.number_or_0("min_mod"),
        max_mod_revision: words.number_or_0("max_mod"),
        min_create_revision: words.number_or_0("min_create"),
        max_create_revision: words.number_or_0("max_create"),
    }
}

/// `KEY VALUE [lease=] [prev] [ignore_value] [ignore_lease]`; `VALUE` may be `BYTE*COUNT`.
pub fn put(words: &mut Words) -> PutRequest {
    let (prev_kv, ignore_value, ignore_lease) =
        (words.flag("prev"), words.flag("ignore_value"), words.flag("ignore_lease"));
    PutRequest {
        lease: words.number_or_0("lease"),
        key: words.bytes(),
        value: long(words.bytes()),
        prev_kv,
        ignore_value,
        ignore_lease,
    }
}

/// `x*1000` stands for a thousand x.
fn long(value: Bytes) -> Bytes {
    let text = std::str::from_utf8(&value).ok();
    match text.and_then(|t| t.split_once('*')).and_then(|(byte, n)| Some((byte, n.parse::<usize>().ok()?))) {
        Some((byte, n)) => byte.repeat(n).into(),
        None => value,
    }
}

/// `KEY [end=] [prev]`
pub fn delete(words: &mut Words) -> DeleteRangeRequest {
    DeleteRangeRequest {
        range_end: words.option("end").unwrap_or_default(),
        prev_kv: words.flag("prev"),
        key: words.bytes(),
    }
}

/// `[if (COMPARE; …)] [then (OP; …)] [else (OP; …)]`, in this order
pub fn txn(words: &mut Words) -> TxnRequest {
    let mut list = |name: &str| if words.flag_first(name) { words.list() } else { Vec::new() };
    TxnRequest {
        compare: list("if").into_iter().map(compare).collect(),
        success: list("then").into_iter().flat_map(op).collect(),
        failure: list("else").into_iter().flat_map(op).collect(),
    }
}

impl Words {
    fn flag_first(&mut self, name: &str) -> bool {
        let is_it = self.words.first().is_some_and(|w| w.bytes == name.as_bytes());
        if is_it {
            self.words.remove(0);
        }
        is_it
    }
}

/// One op, or `COUNT times OP`.
fn op(mut words: Words) -> Vec<RequestOp> {
    let times = if words.words.get(1).is_some_and(|w| w.bytes == b"times") {
        let n = words.number();
        words.words.remove(0);
        usize::try_from(n).expect("a count")
    } else {
        1
    };
    let kind = words.text();
    let request = match kind.as_str() {
        "get" => Some(request_op::Request::RequestRange(range(&mut words))),
        "put" => Some(request_op::Request::RequestPut(put(&mut words))),
        "del" => Some(request_op::Request::RequestDeleteRange(delete(&mut words))),
        "txn" => Some(request_op::Request::RequestTxn(txn(&mut words))),
        "unset" => None,
        other => panic!("no op {other:?}"),
    };
    words.end();
    vec![RequestOp { request }; times]
}

/// `TARGET KEY = OPERAND [end=] [as=TARGET]`; numbers outside the enums are written as such, and the operand
/// `unset` leaves it out.
fn compare(mut words: Words) -> Compare {
    const TARGETS: &[&str] = &["version", "create", "mod", "value", "lease"];
    let range_end = words.option("end").unwrap_or_default();
    let target = index(&words.bytes(), TARGETS);
    let operand_of = words.option("as").map_or(target, |w| index(&w, TARGETS));
    let key = words.bytes();
    let result = index(&words.bytes(), &["=", ">", "<", "!="]);
    let unset = words.flag("unset");
    let target_union = match operand_of {
        _ if unset => None,
        0 => Some(TargetUnion::Version(words.number())),
        1 => Some(TargetUnion::CreateRevision(words.number())),
        2 => Some(TargetUnion::ModRevision(words.number())),
        3 => Some(TargetUnion::Value(words.bytes())),
        4 => Some(TargetUnion::Lease(words.number())),
        other => panic!("no operand for target {other}"),
    };
    words.end();
    Compare { result, target, key, range_end, target_union }
}

/// `KEY [end=] [rev=] [id=] [progress] [prev] [fragment] [noput] [nodelete]`
pub fn watch(words: &mut Words) -> WatchCreateRequest {
    let mut filters = Vec::new();
    filters.extend(words.flag("noput").then_some(0));
    filters.extend(words.flag("nodelete").then_some(1));
    filters.extend(words.option_number("filter").map(|n| i32::try_from(n).expect("a filter's number")));
    WatchCreateRequest {
        range_end: words.option("end").unwrap_or_default(),
        start_revision: words.number_or_0("rev"),
        progress_notify: words.flag("progress"),
        filters,
        prev_kv: words.flag("prev"),
        watch_id: words.number_or_0("id"),
        fragment: words.flag("fragment"),
        key: words.bytes(),
    }
}

/// The place of a name, or the number that it is.
fn index(word: &[u8], names: &[&str]) -> i32 {
    let word = String::from_utf8_lossy(word);
    let place = names.iter().position(|name| *name == word).and_then(|at| i32::try_from(at).ok());
    place
        .or_else(|| word.parse().ok())
        .unwrap_or_else(|| panic!("{word:?} is none of {names:?}, and no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_escapes_and_options_are_read() {
        let mut words = Words::of(r#"get "a\x00\"b" end="\0" keys_only limit=-3"#);
        assert_eq!(words.text(), "get");
        let range = range(&mut words);
        words.end();
        assert_eq!(range.key, b"a\0\"b".as_slice());
        assert_eq!((range.range_end.as_ref(), range.limit, range.keys_only), (b"\0".as_slice(), -3, true));
    }

    #[test]
    fn transactions_nest() {
        let mut words =
            Words::of("if (value a = x; mod b > 3 end=c) then (put a 1; txn then (2 times get a)) else ()");
        let txn = txn(&mut words);
        words.end();
        assert_eq!((txn.compare.len(), txn.success.len(), txn.failure.len()), (2, 2, 0));
        assert_eq!(txn.compare[1].range_end, "c");
        let Some(request_op::Request::RequestTxn(inner)) = &txn.success[1].request else { panic!("a txn") };
        assert_eq!(inner.success.len(), 2);
    }

    #[test]
    #[should_panic(expected = "not understood")]
    fn a_word_too_many_is_refused() {
        let mut words = Words::of("a keysonly");
        range(&mut words);
        words.end();
    }
}
