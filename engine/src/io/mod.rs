// SPDX-License-Identifier: Apache-2.0
//! Files: every system call of the engine, behind two traits.
//!
//! Owns      the traits [`Vfs`] and [`VFile`], the real files behind them, the memory map, and pacing.
//! Holds     1. a call that returns `Ok` did all it was asked: short transfers and interruptions end here;
//!           2. `unsafe` is in `map` and `sys`, and nowhere else in the engine.
//! Never     knows what a page, a batch or a checkpoint is; retries a failed write or sync.

#[allow(unsafe_code)] // one of the two files that may: see the top of this one
mod map;
mod pace;
mod std;
#[allow(unsafe_code)] // the other one
mod sys;
mod vfs;

pub use self::map::{MapBytes, MapView};
pub use self::pace::{Budget, Pacer, Progress};
pub use self::std::StdVfs;
pub use self::sys::{SIGBUS_EXIT_CODE, install_sigbus_handler, kernel_page_bytes};
pub use self::vfs::{FileLock, OpenHow, VFile, Vfs};
