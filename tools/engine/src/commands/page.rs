// SPDX-License-Identifier: Apache-2.0
//! `engine page`: one page, and what is in it.
//!
//! Owns      how each kind of page is shown.
//! Holds     damage in the page is shown with what of it can be read, and answered with exit status 1 if the page is
//!           in use.
//! Never     follows a pointer.

use cairn_engine::format::Fault;
use cairn_engine::format::blob::Segment;
use cairn_engine::format::header::{Header, Kind};
use cairn_engine::format::node::{Layout, ValueCell};
use cairn_engine::format::slot::Slot;
use cairn_engine::inspect::{ExtentLook, Position, Role, Store, look};
use cairn_engine::page::PageId;
use cairn_engine::{Error, TreeKind};
use cairn_mvcc::SCHEMA;
use serde::Serialize;

use super::damage::Key;
use super::{PAGE, vfs};
use crate::bytes::{counted, percent};
use crate::cli;
use crate::outcome::{Failure, Outcome, Verdict};
use crate::output::{Column, Facts, Output, Paint, Table, left, right};
use crate::place::Place;

const LEAF_COLUMNS: &[Column] = &[right("ENTRY"), right("BYTES"), left("VALUE"), left("KEY")];
const BRANCH_COLUMNS: &[Column] =
    &[right("CHILD"), right("PAGE"), right("PAGES"), right("BIRTH"), right("WEIGHT"), left("FROM KEY")];

#[derive(Serialize)]
struct Report {
    file: String,
    page: u64,
    offset: u64,
    /// Whether the newest checkpoint uses it; `None` where its map is damaged, and for pages of the system.
    in_use: Option<bool>,
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used_pages: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extent: Option<ExtentReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

#[derive(Serialize)]
struct ExtentReport {
    tree: String,
    level: u8,
    first_page: u64,
    pages: u16,
    birth: u64,
    used_bytes: u32,
    /// Of a leaf.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    entries: Vec<EntryReport>,
    /// Of a branch.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    children: Vec<ChildReport>,
    /// Of a blob: bytes in this segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    blob_bytes: Option<u64>,
    /// Of a blob: where it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page: Option<u64>,
}

#[derive(Serialize)]
struct EntryReport {
    key: Key,
    /// The key goes on in the blob at this page.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_blob: Option<u64>,
    value_bytes: u64,
    /// The value is the blob at this page.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_blob: Option<u64>,
}

#[derive(Serialize)]
struct ChildReport {
    /// The first child's stands for all keys below the second.
    from: Option<Key>,
    page: u64,
    pages: u16,
    birth: u64,
    weight: u64,
}

pub fn run(args: &cli::Page, output: &mut Output) -> Outcome {
    let dir = Place::find_store(&args.store)?;
    let page = PageId::checked(args.number);
    let report = look(&vfs(), &dir, SCHEMA, |store| match page {
        Some(page) if args.hex => Ok(if page.get() < store.file_pages() {
            Seen::Bytes(store.bytes(page, 1)?)
        } else {
            beyond(store)
        }),
        Some(page) => Ok(match store.role(page)? {
            Some(role) => Seen::Report(Box::new(report(store, page, &role)?)),
            None => beyond(store),
        }),
        None => Ok(beyond(store)),
    })?;
    match report {
        Seen::Beyond { file, pages } => {
            let last = counted(pages, "page");
            Err(Failure::Unable(format!("{file} has no page {}: it has {last}", args.number)))
        }
        Seen::Bytes(bytes) => {
            hex(&bytes, output)?;
            Ok(Verdict::Sound)
        }
        Seen::Report(report) => {
            if output.json {
                output.json(&report)?;
            } else {
                print(&report, output)?;
            }
            let damaged = report.fault.is_some() && report.in_use != Some(false);
            Ok(Verdict::of(damaged.into()))
        }
    }
}

enum Seen {
    Beyond { file: String, pages: u64 },
    Bytes(Vec<u8>),
    Report(Box<Report>),
}

fn beyond(store: &Store) -> Seen {
    Seen::Beyond { file: store.path().display().to_string(), pages: store.file_pages() }
}

fn report(store: &Store, page: PageId, role: &Role) -> Result<Report, Error> {
    let n = page.get();
    let used = store.used_runs()?;
    let in_use = used.map(|runs| runs.iter().any(|(start, len)| (*start..start + len).contains(&n)));
    let mut report = Report {
        file: store.path().display().to_string(),
        page: n,
        offset: page.byte_offset(),
        in_use: None,
        role: "",
        checkpoint: None,
        region: None,
        used_pages: None,
        extent: None,
        fault: None,
    };
    match role {
        Role::Superblock => {
            report.role = "superblock";
            let broken = store.broken_twin() == Some(page);
            report.fault = broken.then(|| "it is not whole; the next start heals it".to_owned());
        }
        Role::Slot => {
            report.role = "commit slot";
            match store.ring().find(|(at, _)| *at == page).map(|(_, position)| position) {
                Some(Position::Whole(Slot { seq, .. })) => report.checkpoint = Some(*seq),
                Some(Position::Broken) => report.fault = Some("it is not whole".to_owned()),
                Some(Position::Blank) | None => {}
            }
        }
        Role::SpaceMap { region, version } => {
            report.role = "space map";
            report.region = Some(*region);
            report.checkpoint = version.map(|(seq, _)| seq);
            report.used_pages = version.map(|(_, used)| used);
        }
        Role::Reserved => report.role = "reserved",
        Role::Unknown => {
            report.role = "nothing that can be read";
            report.in_use = in_use;
            report.fault = (in_use == Some(true)).then(|| "it is in use, and part of no extent".to_owned());
        }
        Role::Extent(extent) => {
            report.in_use = in_use;
            report.role = match extent.header.kind {
                Kind::Leaf => "leaf",
                Kind::Branch => "branch",
                Kind::Blob => "blob",
            };
            let (content, fault) = content(extent);
            let fault = extent.fault.or(fault);
            report.fault = fault.map(|fault| {
                let Fault { what, at, expected, found } = fault;
                format!("{what}, at byte {at} of the extent, expected {expected}, found {found}")
            });
            report.extent = Some(content);
        }
    }
    Ok(report)
}

/// What is in an extent, as far as it can be read.
fn content(extent: &ExtentLook) -> (ExtentReport, Option<Fault>) {
    let Header { tree, level, npages, birth, used, page, .. } = extent.header;
    let known = SCHEMA.iter().find(|def| def.id == tree);
    let mut report = ExtentReport {
        tree: known.map_or_else(|| tree.to_string(), |def| def.name.to_owned()),
        level,
        first_page: page.get(),
        pages: npages,
        birth,
        used_bytes: used,
        entries: Vec::new(),
        children: Vec::new(),
        blob_bytes: None,
        next_page: None,
    };
    let kind = known.map_or(TreeKind::Ordered, |def| def.kind);
    let read = match extent.header.kind {
        Kind::Leaf | Kind::Branch => node(extent, kind, &mut report),
        Kind::Blob => blob(extent, &mut report),
    };
    (report, read.err())
}

fn node(extent: &ExtentLook, kind: TreeKind, report: &mut ExtentReport) -> Result<(), Fault> {
    let bytes = &extent.bytes[..];
    let mut layout = Layout::open(&extent.header)?;
    layout.close(bytes)?;
    let prefix = layout.prefix(bytes)?;
    for index in 0..layout.count() {
        let cell = layout.key(bytes, index)?;
        let key = Key::of(kind, &[prefix, cell.suffix].concat());
        if extent.header.kind == Kind::Branch {
            let child = layout.child(bytes, index)?;
            report.children.push(ChildReport {
                from: (index > 0).then_some(key),
                page: child.page.get(),
                pages: child.npages,
                birth: child.birth,
                weight: child.weight,
            });
            continue;
        }
        let (value_bytes, value_blob) = match layout.value(bytes, index)? {
            ValueCell::Inline(span) => (span.len() as u64, None),
            ValueCell::Blob(blob) => (u64::from(blob.len), Some(blob.page.get())),
        };
        let key_blob = cell.tail.map(|tail| tail.page.get());
        report.entries.push(EntryReport { key, key_blob, value_bytes, value_blob });
    }
    Ok(())
}

fn blob(extent: &ExtentLook, report: &mut ExtentReport) -> Result<(), Fault> {
    let len = Segment::stated_len(&extent.header, &extent.bytes)?;
    let segment = Segment::decode(&extent.header, &extent.bytes, len)?;
    report.blob_bytes = Some(segment.bytes.len() as u64);
    report.next_page = segment.next.map(|next| next.page.get());
    Ok(())
}

fn print(report: &Report, output: &mut Output) -> Outcome<()> {
    let mut facts = Facts::default();
    facts.add("page", format!("{} of {}, at offset {}", report.page, report.file, report.offset));
    facts.add("role", report.role);
    if let Some(region) = report.region {
        facts.add("region", region.to_string());
    }
    if let Some(checkpoint) = report.checkpoint {
        facts.add("checkpoint", checkpoint.to_string());
    }
    if let Some(used) = report.used_pages {
        facts.add("used", format!("{} of the region", counted(used, "page")));
    }
    if let Some(in_use) = report.in_use {
        facts.add("in use", if in_use { "yes" } else { "no" });
    }
    if let Some(extent) = &report.extent {
        let last = extent.first_page + u64::from(extent.pages) - 1;
        facts.add("tree", format!("{}, level {}", extent.tree, extent.level));
        facts.add(
            "extent",
            format!("pages {} to {last}, written by checkpoint {}", extent.first_page, extent.birth),
        );
        let room = u64::from(extent.pages) * PAGE;
        let fill = percent(extent.used_bytes.into(), room);
        facts.add("fill", format!("{} of {room} bytes, {fill}", extent.used_bytes));
        if let Some(bytes) = extent.blob_bytes {
            let next =
                extent.next_page.map_or("ends here".to_owned(), |page| format!("goes on at page {page}"));
            facts.add("blob", format!("{bytes} bytes; {next}"));
        }
    }
    if let Some(fault) = &report.fault {
        facts.add("fault", output.paint(Paint::Bad, fault));
    } else if report.extent.is_some() {
        facts.add("checksums", "right");
    }
    facts.print(output)?;
    let Some(extent) = &report.extent else { return Ok(()) };
    if !extent.entries.is_empty() {
        output.line("")?;
        let mut table = Table::new(LEAF_COLUMNS);
        for (at, entry) in extent.entries.iter().enumerate() {
            let value = entry.value_blob.map_or("here".to_owned(), |page| format!("page {page}"));
            let mut key = entry.key.shown();
            if let Some(page) = entry.key_blob {
                key += &format!(" and on at page {page}");
            }
            table.row(output, vec![at.to_string(), entry.value_bytes.to_string(), value, key])?;
        }
        table.end(output)?;
    }
    if !extent.children.is_empty() {
        output.line("")?;
        let mut table = Table::new(BRANCH_COLUMNS);
        for (at, child) in extent.children.iter().enumerate() {
            let cells = vec![
                at.to_string(),
                child.page.to_string(),
                child.pages.to_string(),
                child.birth.to_string(),
                child.weight.to_string(),
                child.from.as_ref().map_or("the start".to_owned(), Key::shown),
            ];
            table.row(output, cells)?;
        }
        table.end(output)?;
    }
    Ok(())
}

fn hex(bytes: &[u8], output: &mut Output) -> Outcome<()> {
    const LINE: usize = 16;
    let mut zeros = false;
    for (at, line) in bytes.chunks(LINE).enumerate() {
        let blank = line.iter().all(|byte| *byte == 0);
        if blank && at > 0 {
            if !zeros {
                output.line("*")?;
            }
            zeros = true;
            continue;
        }
        zeros = false;
        let digits: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let (low, high) = digits.split_at(LINE / 2);
        let text: String = line
            .iter()
            .map(|byte| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' })
            .collect();
        output.line(&format!("{:04x}  {}  {}  {text}", at * LINE, low.join(" "), high.join(" ")))?;
    }
    Ok(())
}
