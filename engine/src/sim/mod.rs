// SPDX-License-Identifier: Apache-2.0
//! A disk that can crash, and a search through what a crash may leave behind.
//!
//! Owns      [`SimVfs`], a file system in memory that keeps what was written apart from what was synced, and
//!           [`Explorer`], which builds the images that a power loss could leave and has each of them checked.
//! Holds     1. a byte or a name that was synced is in every image; one that was not may be missing, torn or
//!              out of order, in any combination;
//!           2. the same seed and workload give the same images in the same order.
//! Never     models what the storage design excludes: a write that changes bytes outside its range, or a
//!           sync that reports success and keeps nothing.
//!
//! A test gives the explorer two closures. The workload drives any code over the `SimVfs`; it calls
//! [`SimVfs::submit`] before it starts step `n`, [`SimVfs::ack`] once step `n` must survive, and
//! [`SimVfs::phase`] to name what is going on. The check opens one image and answers whether it equals the
//! model after some step between the two marks:
//!
//! ```
//! use cairn_engine::io::{OpenHow, Vfs};
//! use cairn_engine::sim::{Explorer, Limits};
//! use std::path::Path;
//!
//! let (dir, path) = (Path::new("/d"), Path::new("/d/f"));
//! let mut explorer = Explorer::new(7, Limits::default());
//! explorer
//!     .run(
//!         |disk| {
//!             disk.create_dir(dir).unwrap();
//!             disk.submit(1);
//!             let file = disk.open(path, OpenHow::CreateNew).unwrap();
//!             file.write_all_at(b"x", 0).unwrap();
//!             file.sync_data().unwrap();
//!             disk.sync_dir(dir).unwrap(); // without this line the check fails
//!             disk.ack(1);
//!         },
//!         |image, acked, _submitted| match image.exists(path) {
//!             Ok(false) if acked >= 1 => Err("the file is gone".into()),
//!             _ => Ok(()),
//!         },
//!     )
//!     .unwrap();
//! assert!(explorer.report().distinct > 1);
//! ```

mod beside;
mod content;
mod crash;
mod disk;
mod explorer;
mod fault;
mod rng;
mod vfs;

pub use self::beside::Beside;
pub use self::explorer::{Explorer, Failure, Limits, Report};
pub use self::fault::Fault;
pub use self::rng::SplitMix;
pub use self::vfs::{Counters, SimVfs};
