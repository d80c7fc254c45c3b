// SPDX-License-Identifier: Apache-2.0
//! The command line: every command, every flag, and what their help says.
//!
//! Owns      names, defaults and help texts. `build.rs` makes the manual pages and the shell completions from them.
//! Never     knows the engine: this file is compiled into the build script too.

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit status:
  0   what was looked at is sound
  1   damage was found; each is named with file, page and tree
  2   it could not be looked at: not there, not readable, in use
  64  the command line is wrong";

/// Looks at the files of a Cairn member, and copies them.
///
/// DIR is a data directory, its `member` directory, or wherever `engine.db` lies. A running member may
/// be looked at: nothing is locked or written, the newest checkpoint is followed, and what the member
/// does meanwhile is never taken for damage. What is in the log alone, since the newest checkpoint,
/// is not seen, but by `wal` and `backup`.
#[derive(Parser, Debug)]
#[command(name = "engine", version, after_help = EXIT_CODES, verbatim_doc_comment)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// Print JSON; tools/engine/JSON.md says what each field is
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Say what a store is: format, checkpoints, trees, space, log
    ///
    /// Reads the head of the file, the space map and the log. It walks no tree: `check` does.
    #[command(verbatim_doc_comment)]
    Info(Place),

    /// Check everything: every checksum, the trees, the space map, the log
    ///
    /// Walks all trees of the newest checkpoint, sums every page, checks order, births, weights and
    /// counts, and holds the space map against what the trees reach and the log against the
    /// checkpoint. All damage is named, not only the first; what lies beside it is checked too.
    #[command(verbatim_doc_comment)]
    Check(Check),

    /// List keys or changes, or draw the keys as a tree
    ///
    /// Lists the keys that live at the newest checkpoint, or at an older revision with --at. A listing
    /// of a running member's store is of one revision from its first line to its last.
    /// With --changes it lists every stored change instead, in the order of revisions: what
    /// compaction has taken is not there. With --tree keys are counted under their prefixes.
    #[command(verbatim_doc_comment)]
    Dump(Dump),

    /// Show one key: its newest value, an older one, or all that are stored
    #[command(verbatim_doc_comment)]
    Get(Get),

    /// Say what takes how much room: by tree, and by the prefixes of keys
    ///
    /// Walks all trees, and reads every key and every stored change.
    #[command(verbatim_doc_comment)]
    Stats(Stats),

    /// List every extent that the trees reach, in the order of the file
    Pages(Pages),

    /// Show one page: what it is for, what is in it, whether it is in use
    ///
    /// Of a node or blob the whole extent is shown, whichever of its pages N is. A page that is free
    /// may still hold what it was last used for.
    #[command(verbatim_doc_comment)]
    Page(Page),

    /// Draw the file: which pages are live, by tree, which wait to be free, which are free
    ///
    /// Pages that wait are those that only the two checkpoints before still need.
    #[command(verbatim_doc_comment)]
    Map(Map),

    /// Show the log: its records, or whether it is whole
    #[command(subcommand)]
    Wal(Wal),

    /// Copy a member to a file: its newest checkpoint, and what its log has after that
    ///
    /// The member may run, and is not kept from anything. The backup has all that was answered before
    /// the command was begun. Every page is checked on the way. A member that writes more than can be
    /// copied meanwhile overtakes the copy, which begins anew, and is given up after five times.
    #[command(verbatim_doc_comment)]
    Backup(Backup),

    /// Make a data directory from a backup
    ///
    /// The member that is started on it has the id of the one that was copied, its cluster id, and
    /// everything that was in the backup. Every page is checked before the directory has a member.
    /// One of several members of a cluster is refused: it may have voted and acknowledged more since.
    ///
    /// What was changed after the backup is lost, and its revisions would be given to other changes.
    /// For clients that remember revisions, such as those of Kubernetes, pass over more than were given
    /// since: --bump-revision 1000000000 --mark-compacted.
    #[command(verbatim_doc_comment)]
    Restore(Restore),

    /// Read everything that the newest checkpoint needs from the medium
    ///
    /// What `check` reads may come from the system's memory; here the disk itself is asked, as the
    /// member does in the background with --scrub-rate. What is wrong is read again three times
    /// before it is damage. A pass keeps up with a member that writes, however long it takes.
    #[command(verbatim_doc_comment)]
    Scrub(Scrub),

    /// Load a store anew into another directory, as small as it can be
    ///
    /// The member must not run, and DIR stays as it is. A member that runs makes its file smaller by
    /// itself, without a pause, but keeps a quarter free; and here neighbours come to lie together.
    #[command(verbatim_doc_comment)]
    Defrag(Defrag),

    /// Write a store as lines of JSON, from which `import` makes another
    ///
    /// All keys at the newest checkpoint, or at an older revision with --at, each with its revisions,
    /// version and lease; with --history all stored changes since the last compaction. A member that
    /// runs may be exported: all lines are of one revision. Members and users are not part of it.
    #[command(verbatim_doc_comment)]
    Export(Export),

    /// Make a data directory of an export
    ///
    /// The member that starts on it is a cluster of its own, as one that starts on an empty directory,
    /// with the revisions, versions and leases of the export. It is made offline, since a server that
    /// was told all of it would draw others.
    #[command(verbatim_doc_comment)]
    Import(Import),

    /// Measure the engine on a disk: durable inserts, point reads, a scan
    ///
    /// Beside the inserts stands the floor: the same bytes in the same batches, appended, summed and
    /// synced. A disk shared with other work gives other figures each time.
    #[command(verbatim_doc_comment)]
    Bench(Bench),

    /// Repair a copy of a damaged store, and say what is lost
    ///
    /// The member must not run. DIR stays as it is: a copy is made in TO, repaired and checked, and a
    /// member can be started on it. A backup or another member is the better way back, if there is one.
    #[command(subcommand, verbatim_doc_comment)]
    Surgery(Surgery),
}

#[derive(Subcommand, Debug)]
pub enum Surgery {
    /// Go back to the checkpoint before the newest
    ///
    /// For damage in what the newest checkpoint wrote. The log is applied again from there, so nothing
    /// is lost if it reaches back that far and goes up to where the newest checkpoint was; both are
    /// checked. Two checkpoints back is as far as it goes.
    #[command(verbatim_doc_comment)]
    PreviousSlot(Operation),

    /// Make the space map anew, from a walk over all trees
    ///
    /// For a map that disagrees with the trees. (One that cannot be read is made anew by the next start
    /// anyway.) All trees must be whole. Nothing is lost.
    #[command(verbatim_doc_comment)]
    RebuildSpaceMap(Operation),

    /// Cut the log where it cannot be read
    ///
    /// For a log that a member refuses. Entries are kept up to the first that is missing behind the
    /// newest checkpoint; all behind that is lost, acknowledged or not. A log that is gone altogether
    /// is begun anew behind the checkpoint.
    #[command(verbatim_doc_comment)]
    CutWal(Operation),
}

#[derive(Args, Debug)]
pub struct Scrub {
    #[command(flatten)]
    pub store: StoreDir,

    /// Bytes to read a second at most, as 10000000 or with a suffix: 10M is ten MiB
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub rate: Option<u64>,
}

#[derive(Args, Debug)]
pub struct Defrag {
    #[command(flatten)]
    pub place: Place,

    /// The data directory to make; it may be there, without a member
    pub to: PathBuf,
}

#[derive(Args, Debug)]
pub struct Export {
    #[command(flatten)]
    pub store: StoreDir,

    /// The file to make; standard output without one, or for `-`
    pub file: Option<PathBuf>,

    /// The revision to export the keys at
    #[arg(long, value_name = "REVISION", conflicts_with = "history")]
    pub at: Option<i64>,

    /// Export all stored changes
    #[arg(long)]
    pub history: bool,
}

#[derive(Args, Debug)]
pub struct Import {
    /// The export; `-` for standard input
    pub file: PathBuf,

    /// The data directory to make; it may be there, without a member
    pub dir: PathBuf,

    /// As the member is started with: its id comes of these and of the token
    #[arg(
        long = "initial-advertise-peer-urls",
        value_name = "URLS",
        default_value = "http://localhost:2380"
    )]
    pub peer_urls: String,

    /// As the member is started with
    #[arg(long = "initial-cluster-token", value_name = "TOKEN", default_value = "etcd-cluster")]
    pub cluster_token: String,
}

#[derive(Args, Debug)]
pub struct Bench {
    /// A directory on the disk to be measured; a scratch directory is made in it, and removed
    pub dir: PathBuf,

    /// Keys to insert
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: u64,

    /// Bytes of a value
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u64).range(..=1 << 20))]
    pub value_bytes: u64,

    /// Keys that become durable together
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub batch: u64,
}

/// A number of bytes, above zero.
fn bytes(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(digits) => (digits, text.as_bytes()[digits.len()]),
        None => (text, b' '),
    };
    let shift = [(b'K', 10), (b'M', 20), (b'G', 30)].iter().find(|(name, _)| *name == unit);
    let number: u64 = digits.parse().map_err(|_| "a number is wanted, as 4096, 64K, 10M or 1G".to_owned())?;
    let bytes = number.checked_mul(1 << shift.map_or(0, |(_, shift)| *shift));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "a number above zero is wanted, below 2^64".to_owned())
}

/// Where surgery is done.
#[derive(Args, Debug)]
pub struct Operation {
    #[command(flatten)]
    pub place: Place,

    /// The data directory to make; it may be there, without a member
    pub to: PathBuf,

    /// Confirm that what is said to be lost may be
    #[arg(long, required = true)]
    pub i_accept_data_loss: bool,
}

#[derive(Subcommand, Debug)]
pub enum Wal {
    /// List the records of the log
    ///
    /// Every record of every batch, oldest first; those that a later record voids are listed too.
    /// Of a damaged log what comes before the damage is listed.
    #[command(verbatim_doc_comment)]
    Dump(WalDump),

    /// Check the log against itself, and against the store beside it
    ///
    /// DIR may also be the directory of a log alone.
    #[command(verbatim_doc_comment)]
    Verify(Place),
}

/// Where the files are.
#[derive(Args, Debug)]
pub struct Place {
    /// The data directory, or where engine.db is
    pub dir: PathBuf,

    /// Where the log is, if it is not in the `wal` directory beside engine.db
    #[arg(long, value_name = "DIR")]
    pub wal_dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Backup {
    #[command(flatten)]
    pub place: Place,

    /// The file to make
    pub file: PathBuf,
}

#[derive(Args, Debug)]
pub struct Restore {
    /// The backup
    pub file: PathBuf,

    /// The data directory to make; it may be there, without a member
    pub dir: PathBuf,

    /// Pass over so many revisions, so that none is given to another change than before
    #[arg(long, value_name = "N", requires = "mark_compacted")]
    pub bump_revision: Option<NonZeroU64>,

    /// Have the last of them compacted, so that watchers from before are told
    #[arg(long, requires = "bump_revision")]
    pub mark_compacted: bool,
}

#[derive(Args, Debug)]
pub struct Check {
    #[command(flatten)]
    pub place: Place,

    /// Check also what the trees say of each other, and the two checkpoints before
    #[arg(long)]
    pub deep: bool,
}

/// Where the store is.
#[derive(Args, Debug)]
pub struct StoreDir {
    /// The data directory, or where engine.db is
    pub dir: PathBuf,
}

#[derive(Args, Debug)]
pub struct Dump {
    #[command(flatten)]
    pub store: StoreDir,

    /// List changes instead of keys
    #[arg(long, conflicts_with_all = ["tree", "at"])]
    pub changes: bool,

    /// Count keys and bytes under each prefix instead of listing them
    #[arg(long)]
    pub tree: bool,

    /// The revision to list keys at
    #[arg(long, value_name = "REVISION")]
    pub at: Option<i64>,

    /// The first revision to list changes of
    #[arg(long, value_name = "REVISION", requires = "changes")]
    pub since: Option<i64>,

    /// Only keys that begin with this
    #[arg(long, default_value = "", hide_default_value = true)]
    pub prefix: String,

    /// Stop after so many lines
    #[arg(long, value_name = "N", conflicts_with = "tree")]
    pub limit: Option<u64>,

    /// Print values too
    #[arg(long, conflicts_with = "tree")]
    pub values: bool,

    #[command(flatten)]
    pub levels: Levels,

    #[command(flatten)]
    pub typed: Typed,
}

/// How keys are grouped.
#[derive(Args, Debug)]
pub struct Levels {
    /// What ends a level of a key
    #[arg(long, value_name = "CHAR", default_value = "/")]
    pub delimiter: char,

    /// Levels of prefixes
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub depth: usize,
}

/// How a key on the command line is read.
#[derive(Args, Debug)]
pub struct Typed {
    /// Read \xNN in keys as a byte and \\ as a backslash, as they are printed
    #[arg(long)]
    pub escaped: bool,
}

#[derive(Args, Debug)]
pub struct Get {
    #[command(flatten)]
    pub store: StoreDir,

    /// The key
    pub key: String,

    /// The revision to read at
    #[arg(long, value_name = "REVISION")]
    pub at: Option<i64>,

    /// List all stored changes of the key, the newest first
    #[arg(long, conflicts_with_all = ["at", "raw"])]
    pub history: bool,

    /// Print the value's bytes and nothing else
    #[arg(long, conflicts_with = "json")]
    pub raw: bool,

    #[command(flatten)]
    pub typed: Typed,
}

#[derive(Args, Debug)]
pub struct Stats {
    #[command(flatten)]
    pub store: StoreDir,

    /// Only keys that begin with this
    #[arg(long, default_value = "", hide_default_value = true)]
    pub prefix: String,

    /// Prefixes to list, the largest first
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub top: usize,

    #[command(flatten)]
    pub levels: Levels,

    #[command(flatten)]
    pub typed: Typed,
}

#[derive(Args, Debug)]
pub struct Pages {
    #[command(flatten)]
    pub store: StoreDir,

    /// Only of this tree
    #[arg(long, value_name = "NAME")]
    pub tree: Option<String>,
}

#[derive(Args, Debug)]
pub struct Page {
    #[command(flatten)]
    pub store: StoreDir,

    /// The number of the page
    #[arg(value_name = "N")]
    pub number: u64,

    /// Print the bytes of the page instead
    #[arg(long, conflicts_with = "json")]
    pub hex: bool,
}

#[derive(Args, Debug)]
pub struct Map {
    #[command(flatten)]
    pub store: StoreDir,

    /// Write a picture to this file instead, `-` for standard output
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub svg: Option<PathBuf>,

    /// Cells of a line
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(8..=512))]
    pub width: u16,
}

#[derive(Args, Debug)]
pub struct WalDump {
    #[command(flatten)]
    pub place: Place,

    /// Leave out entries with a smaller index, and all other records
    #[arg(long, value_name = "INDEX")]
    pub from: Option<u64>,

    /// Leave out entries with this index or a larger one, and all other records
    #[arg(long, value_name = "INDEX")]
    pub to: Option<u64>,

    /// Print the data of entries whole
    #[arg(long)]
    pub data: bool,
}
