// SPDX-License-Identifier: Apache-2.0
//! What the other crates do not offer: the handler for `SIGBUS`, the kernel's page size, and the beginning of writeback.
//!
//! Owns      the table of mapped address ranges that the signal handler reads.
//! Holds     1. a `SIGBUS` inside one of our maps ends the process after one line that names file and page;
//!           2. any other `SIGBUS` goes to the handler that was there before;
//!           3. the handler touches atomics and its stack alone: it allocates nothing and takes no lock.
//! Never     resumes after a fault: the bytes that a reader wanted are not there.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::{fmt, io, mem, ptr};

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("Cairn runs on Linux on x86_64 and aarch64: its file and mapping calls exist there alone");

/// Exit code after a `SIGBUS` in a mapped file: the disk failed, or the file was cut from outside.
pub const SIGBUS_EXIT_CODE: i32 = 74;

/// Maps that the handler can name at one time. Each open tree file has one, briefly two.
const MAPS_MAX: usize = 64;

/// Page of the engine's files, the unit in which the handler names the place.
const PAGE_BYTES: usize = 4096;

/// Bytes of a page of the kernel: 4 KiB, or 16 or 64 KiB on some aarch64 machines.
pub fn kernel_page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// Has the kernel begin to write the range of `file` to the disk. It waits for nothing, and so takes no error of an
/// earlier write away from the sync that is to report it.
pub(super) fn begin_writeback(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    let range = |n: u64| libc::off64_t::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let (offset, bytes) = (range(offset)?, range(bytes)?);
    // SAFETY: the call takes plain numbers; the descriptor is open for as long as `file` is borrowed.
    if unsafe { libc::sync_file_range(file.as_raw_fd(), offset, bytes, libc::SYNC_FILE_RANGE_WRITE) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

struct Slot {
    /// First address; 0 = the slot is free, `CLAIMED` = being filled.
    start: AtomicUsize,
    bytes: AtomicUsize,
    name: AtomicPtr<u8>,
    name_bytes: AtomicUsize,
}

const CLAIMED: usize = 1;

static MAPS: [Slot; MAPS_MAX] = [const {
    Slot {
        start: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
        name: AtomicPtr::new(ptr::null_mut()),
        name_bytes: AtomicUsize::new(0),
    }
}; MAPS_MAX];

static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// An address range that the handler knows, until this is dropped.
pub(super) struct MapRegistration {
    slot: &'static Slot,
}

impl fmt::Debug for MapRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MapRegistration({:#x})", self.slot.start.load(Ordering::Relaxed))
    }
}

impl MapRegistration {
    /// Tells the handler about a map. `None` if the table is full: the map works, and a fault in it is
    /// then reported by the previous handler, without the file's name.
    pub(super) fn new(start: usize, bytes: usize, path: &Path) -> Option<MapRegistration> {
        let slot = MAPS.iter().find(|slot| {
            slot.start.compare_exchange(0, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_ok()
        })?;
        // Leaked, because a handler may be reading it on another thread: a few bytes for each map made.
        let name: &'static mut [u8] = path.to_string_lossy().into_owned().into_bytes().leak();
        slot.bytes.store(bytes, Ordering::Relaxed);
        slot.name_bytes.store(name.len(), Ordering::Relaxed);
        slot.name.store(name.as_mut_ptr(), Ordering::Relaxed);
        slot.start.store(start, Ordering::Release);
        Some(MapRegistration { slot })
    }
}

impl Drop for MapRegistration {
    fn drop(&mut self) {
        self.slot.start.store(0, Ordering::Release);
    }
}

/// Installs the handler once for the process; further calls do nothing.
pub fn install_sigbus_handler() -> io::Result<()> {
    if PREVIOUS.get().is_some() {
        return Ok(());
    }
    // SAFETY: `sigaction` is plain data for which all zeros is a valid value.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_sigbus as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: as above; the call fills it before it is read.
    let mut previous: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: with a null new action the call only writes the current one to `previous`, which is valid.
    if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &mut previous) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if PREVIOUS.set(previous).is_err() {
        return Ok(());
    }
    // SAFETY: `action` is valid and its handler has the three-argument form that SA_SIGINFO asks for; it
    // keeps to async-signal-safe calls. `PREVIOUS` is set, so the handler finds whom to chain to.
    if unsafe { libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid `siginfo_t`, and for SIGBUS its address field is set.
    let address = unsafe { (*info).si_addr() } as usize;
    for slot in &MAPS {
        let start = slot.start.load(Ordering::Acquire);
        if start > CLAIMED && (start..start + slot.bytes.load(Ordering::Relaxed)).contains(&address) {
            // SAFETY: `name` and `name_bytes` describe a leaked buffer, stored before `start` was.
            let name = unsafe {
                std::slice::from_raw_parts(
                    slot.name.load(Ordering::Relaxed),
                    slot.name_bytes.load(Ordering::Relaxed),
                )
            };
            report(name, (address - start) / PAGE_BYTES);
            // SAFETY: `_exit` ends the process without running anything else of it.
            unsafe { libc::_exit(SIGBUS_EXIT_CODE) }
        }
    }
    chain(signal, info, context);
}

/// Writes the one line, from a buffer on the stack.
fn report(name: &[u8], page: usize) {
    let mut line = [0_u8; 1024];
    let mut used = 0;
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = page;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let parts: [&[u8]; 5] = [
        b"cairn: cannot read page ",
        &digits[at..],
        b" of ",
        &name[..name.len().min(700)],
        b": the disk failed or the file was cut from outside; stopped, check the disk and restart\n",
    ];
    for part in parts {
        line[used..used + part.len()].copy_from_slice(part);
        used += part.len();
    }
    // SAFETY: `line[..used]` is initialised memory; `write` is async-signal-safe. Its result cannot be
    // acted on: the process ends next.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), used) };
}

/// Hands a fault that is not in our maps to whoever was there before.
fn chain(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let previous = PREVIOUS.get().map_or((libc::SIG_DFL, 0), |p| (p.sa_sigaction, p.sa_flags));
    match previous {
        (libc::SIG_DFL | libc::SIG_IGN, _) => {
            // SAFETY: all zeros is a valid `sigaction` and means the default action. On return the
            // faulting instruction runs again, and the default action ends the process.
            unsafe {
                let default: libc::sigaction = mem::zeroed();
                libc::sigaction(libc::SIGBUS, &default, ptr::null_mut());
            }
        }
        (handler, flags) if flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: the previous owner installed this address with SA_SIGINFO, so it has this form.
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { mem::transmute(handler) };
            handler(signal, info, context);
        }
        (handler, _) => {
            // SAFETY: the previous owner installed this address without SA_SIGINFO, so it has this form.
            let handler: extern "C" fn(libc::c_int) = unsafe { mem::transmute(handler) };
            handler(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{OpenHow, StdVfs, Vfs};
    use std::process::Command;

    const CHILD: &str = "CAIRN_TEST_SIGBUS_FILE";

    /// Runs itself again as a child, which cuts a file under its map and then reads it.
    #[test]
    fn a_fault_in_a_map_ends_the_process_with_one_line_that_names_file_and_page() {
        if let Some(path) = std::env::var_os(CHILD) {
            install_sigbus_handler().expect("handler");
            install_sigbus_handler().expect("a second call does nothing");
            let file = StdVfs.open(Path::new(&path), OpenHow::ReadWrite).expect("open");
            let map = file.map(1 << 30).expect("map").expect("real files have maps");
            let kernel_page = kernel_page_bytes();
            let bytes = map.slice(3 * kernel_page, 1);
            file.set_len(0).expect("cut from outside");
            assert_ne!(bytes[0], 7, "the read must not return");
            unreachable!("a page that is gone was read");
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("cut.db");
        let file = StdVfs.open(&path, OpenHow::CreateNew).expect("create");
        file.set_len(4 * kernel_page_bytes()).expect("grow");
        let name = "io::sys::tests::a_fault_in_a_map_ends_the_process_with_one_line_that_names_file_and_page";
        let child = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(CHILD, &path)
            .output()
            .expect("run");
        let text = String::from_utf8_lossy(&child.stderr);
        assert_eq!(child.status.code(), Some(SIGBUS_EXIT_CODE), "{text}");
        let page = 3 * kernel_page_bytes() / PAGE_BYTES as u64;
        assert!(text.contains(&format!("cannot read page {page} of {}", path.display())), "{text}");
    }
}
