// SPDX-License-Identifier: Apache-2.0
//! The network between the members of a test: every connection from one to another goes through here.
//!
//! Owns      a listening port for each member, which it is reached under by the others, and what each direction
//!           between two of them does with bytes.
//! Holds     1. who dialled is told by the process that has the other end of the connection, so a fault may be of one
//!              direction alone;
//!           2. bytes that are held are not lost: they go on when the fault is healed, or end with their connection;
//!           3. a byte is changed at most once by each order to do so.
//! Never     keeps a connection whose ends are gone.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::process::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What is moved at a time.
const PART_BYTES: usize = 16 << 10;

/// How often, and how long after each other, who dialled is looked for.
const TRIES: u32 = 20;
const WAIT: Duration = Duration::from_millis(25);

/// What one direction between two members does with bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Way {
    #[default]
    Open,
    /// Nothing arrives.
    Held,
    /// Everything arrives so much later, and one part after the other.
    Slow(Duration),
}

/// A direction: from one member, by number, to another.
pub type Direction = (usize, usize);

#[derive(Default)]
struct Shared {
    ways: BTreeMap<Direction, Way>,
    /// Directions of which the next part gets one wrong bit.
    to_corrupt: Vec<Direction>,
    corrupted: usize,
    /// Processes by number of the member.
    pids: BTreeMap<usize, Pid>,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Net")
    }
}

/// The network. Ends with its last handle; its tasks with the runtime.
#[derive(Clone)]
pub struct Net {
    shared: Arc<Mutex<Shared>>,
    changed: watch::Sender<u64>,
}

impl Default for Net {
    fn default() -> Net {
        Net { shared: Arc::default(), changed: watch::Sender::new(0) }
    }
}

impl Net {
    /// Has what is dialled at `from` arrive at member `to`, which listens at `port`. Answers where to dial.
    ///
    /// # Errors
    /// If the loopback has no port.
    pub async fn expose(&self, to: usize, port: u16) -> io::Result<u16> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let own = listener.local_addr()?.port();
        let net = self.clone();
        tokio::spawn(async move {
            while let Ok((dialler, from)) = listener.accept().await {
                let net = net.clone();
                tokio::spawn(async move {
                    // A member that is down is dialled often: who dials it need not be known.
                    let Ok(target) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    let Some(from) = net.dialler(from.port()).await else { return };
                    net.join(dialler, target, (from, to)).await;
                });
            }
        });
        Ok(own)
    }

    /// From now on `pid` is member `number`.
    pub fn runs(&self, number: usize, pid: Pid) {
        self.shared().pids.insert(number, pid);
    }

    /// Sets what directions do, from now on and for bytes under way.
    pub fn set(&self, directions: impl IntoIterator<Item = Direction>, way: Way) {
        let mut shared = self.shared();
        for direction in directions {
            shared.ways.insert(direction, way);
        }
        drop(shared);
        self.changed.send_modify(|n| *n += 1);
    }

    /// All directions are open again.
    pub fn heal(&self) {
        let mut shared = self.shared();
        shared.ways.clear();
        shared.to_corrupt.clear();
        drop(shared);
        self.changed.send_modify(|n| *n += 1);
    }

    /// One bit of what next goes each of these ways arrives wrong.
    pub fn corrupt(&self, directions: impl IntoIterator<Item = Direction>) {
        self.shared().to_corrupt.extend(directions);
    }

    /// Bits that arrived wrong so far.
    pub fn corrupted(&self) -> usize {
        self.shared().corrupted
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no panic under it")
    }

    /// The member whose process has the connection that comes from `port`. It may be known only a moment after it was
    /// started; one that is gone again is nobody's.
    async fn dialler(&self, port: u16) -> Option<usize> {
        let inode = tokio::task::spawn_blocking(move || inode_of(port)).await.ok()??;
        for _ in 0..TRIES {
            let (pids, inode) = (self.shared().pids.clone(), inode.clone());
            let look = move || pids.into_iter().find(|(_, pid)| has_socket(*pid, &inode));
            if let Some((member, _)) = tokio::task::spawn_blocking(look).await.ok()? {
                return Some(member);
            }
            tokio::time::sleep(WAIT).await;
        }
        None
    }

    async fn join(&self, dialler: TcpStream, target: TcpStream, (from, to): Direction) {
        let latencies = [dialler.set_nodelay(true), target.set_nodelay(true)];
        if latencies.iter().any(Result::is_err) {
            return;
        }
        let (dialler_in, dialler_out) = dialler.into_split();
        let (target_in, target_out) = target.into_split();
        // Either end that is gone takes the other with it.
        tokio::select! {
            _ = self.carry(dialler_in, target_out, (from, to)) => {}
            _ = self.carry(target_in, dialler_out, (to, from)) => {}
        }
    }

    async fn carry(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: Direction) -> io::Result<()> {
        let mut changed = self.changed.subscribe();
        let mut part = vec![0; PART_BYTES];
        loop {
            let len = from.read(&mut part).await?;
            if len == 0 {
                return Ok(());
            }
            loop {
                changed.mark_unchanged();
                let now = self.shared().ways.get(&way).copied().unwrap_or_default();
                match now {
                    Way::Open => break,
                    Way::Held => changed.changed().await.map_err(io::Error::other)?,
                    Way::Slow(delay) => {
                        tokio::time::sleep(delay).await;
                        break;
                    }
                }
            }
            self.spoil(&mut part[..len], way);
            to.write_all(&part[..len]).await?;
        }
    }

    /// Flips a bit in the middle if that was ordered for this way.
    fn spoil(&self, part: &mut [u8], way: Direction) {
        let mut shared = self.shared();
        let Some(place) = shared.to_corrupt.iter().position(|ordered| *ordered == way) else { return };
        shared.to_corrupt.swap_remove(place);
        shared.corrupted += 1;
        let middle = part.len() / 2;
        part[middle] ^= 0x10;
    }
}

/// The inode of the socket of this machine that sends from a port of the loopback.
fn inode_of(port: u16) -> Option<String> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let local = format!("0100007F:{port:04X}");
    let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(&local))?;
    Some(line.split_whitespace().nth(9)?.to_owned())
}

fn has_socket(pid: Pid, inode: &str) -> bool {
    let socket = format!("socket:[{inode}]");
    let Ok(files) = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())) else { return false };
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|to| to.to_string_lossy() == socket))
}
