// SPDX-License-Identifier: Apache-2.0
//! The command line: every command, every flag, and what their help says.
//!
//! Owns      names, defaults and help texts. `build.rs` makes the manual pages and the shell completions from them.
//! Never     knows the engine: this file is compiled into the build script too.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit status:
  0   what was looked at is sound
  1   damage was found; each is named with file, page and tree
  2   it could not be looked at: not there, not readable, in use
  64  the command line is wrong";

/// Looks at the files of a Cairn member.
///
/// DIR is a data directory, its `member` directory, or wherever `engine.db` lies. A running member may
/// be looked at: nothing is locked or written, the newest checkpoint is followed, and what the member
/// does meanwhile is never taken for damage. What is in the log alone, since the newest checkpoint,
/// is not seen.
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
pub struct Check {
    #[command(flatten)]
    pub place: Place,

    /// Check also what the trees say of each other, and the two checkpoints before
    #[arg(long)]
    pub deep: bool,
}
