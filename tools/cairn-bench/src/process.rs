// SPDX-License-Identifier: Apache-2.0
//! What Linux tells about a process: its CPU time, its memory, who listens on a port; and on which CPUs a
//! thread runs.
//!
//! Owns      the reading of `/proc`.
//! Never     starts or ends a process.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// CPU time of a process so far, its threads and both modes together.
///
/// # Errors
/// Says so if there is no such process, or it cannot be read.
pub fn cpu_time(pid: u32) -> Result<Duration, String> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let ticks = ticks(&stat).ok_or_else(|| format!("{path}: no CPU time in {stat:?}"))?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// utime and stime are the 14th and 15th field; the second, the name in brackets, may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// CPU time of this process so far.
pub fn own_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// CPU time that all processes of this machine have used, and all that there was, in the same unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    busy: u64,
    total: u64,
}

impl Machine {
    /// None if the kernel does not tell.
    pub fn read() -> Option<Machine> {
        Machine::of(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// Fields after `cpu`: user, nice, system, idle, iowait, irq, softirq, steal; guests count as users.
    fn of(stat: &str) -> Option<Machine> {
        const IDLE: [usize; 2] = [3, 4];
        let times = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace().take(8);
        let times: Vec<u64> = times.map(|field| field.parse().ok()).collect::<Option<_>>()?;
        let total = times.iter().sum();
        let idle: u64 = IDLE.iter().map(|&at| times.get(at)).sum::<Option<_>>()?;
        Some(Machine { busy: total - idle, total })
    }

    /// The share of all CPUs that others than those who used `known` have used since `begin`.
    pub fn others_since(self, begin: Machine, known: Duration) -> f64 {
        let ticks = |seconds: f64| seconds * rustix::param::clock_ticks_per_second() as f64;
        let others = self.busy.saturating_sub(begin.busy) as f64 - ticks(known.as_secs_f64());
        (others / self.total.saturating_sub(begin.total).max(1) as f64).clamp(0.0, 1.0)
    }
}

/// Bytes of memory of a process that are in RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Heap and stacks: what no file stands behind.
    pub anonymous: u64,
    /// With the pages of mapped files.
    pub resident: u64,
}

/// # Errors
/// Says so if there is no such process, or it cannot be read.
pub fn memory(pid: u32) -> Result<Memory, String> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let bytes = |name| kibibytes(&status, name).ok_or_else(|| format!("{path}: no {name}"));
    Ok(Memory { anonymous: bytes("RssAnon")?, resident: bytes("VmRSS")? })
}

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// The process of this machine that listens on a TCP port, if it can be seen.
pub fn listener(port: u16) -> Option<u32> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listening(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let holds = |pid: &u32| {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        files
            .filter_map(|file| fs::read_link(file.ok()?.path()).ok())
            .any(|link| inodes.iter().any(|inode| link == Path::new(inode)))
    };
    fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .find(holds)
}

/// Inodes of the sockets of a table of `/proc/net` that listen on a port.
fn listening(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
            (local.ends_with(&port) && *state == LISTEN).then(|| (*inode).to_owned())
        })
        .collect()
}

/// Two CPUs that this process may run on.
///
/// # Errors
/// Says so if there are not two.
pub fn two_cpus() -> Result<(usize, usize), String> {
    let allowed = sched_getaffinity(None).map_err(|e| format!("sched_getaffinity: {e}"))?;
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
    match (cpus.next(), cpus.next()) {
        (Some(server), Some(client)) => Ok((server, client)),
        _ => Err("--pinned needs two CPUs, and this process may use one".to_owned()),
    }
}

/// Keeps this thread, and what it starts from now on, on one CPU.
///
/// # Errors
/// Says so if the kernel refuses.
pub fn pin(cpu: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|e| format!("cannot run on CPU {cpu}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_name_of_a_process_may_hold_brackets_and_spaces() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 130 25 0 0 20 0 9 0 1 2 3";
        assert_eq!(ticks(stat), Some(155));
        assert_eq!(ticks("7 (a) S 1"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn what_others_used_is_what_was_busy_without_what_is_known() {
        let stat = |busy: u64, idle: u64| format!("cpu  {busy} 0 10 {idle} 5 0 0 0 7 0\ncpu0 1 2\n");
        let machine = |busy, idle| Machine::of(&stat(busy, idle)).expect("it is well formed");
        let ticks = rustix::param::clock_ticks_per_second();
        let share = machine(6 * ticks, 14 * ticks).others_since(machine(0, 0), Duration::from_secs(1));
        assert!((share - 0.25).abs() < 1e-9, "5 of 20 s: {share}");
        assert_eq!(machine(1, 1).others_since(machine(0, 0), Duration::from_secs(9)), 0.0);
        assert_eq!(Machine::of("cpu  1 2 3"), None);
        assert_eq!(Machine::of(""), None);
        assert!(Machine::read().is_some());
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t     12 kB\nRssFile:\t 1 kB\n";
        assert_eq!(kibibytes(status, "RssAnon"), Some(12 << 10));
        assert_eq!(kibibytes(status, "VmRSS"), Some(2 << 20));
        assert_eq!(kibibytes(status, "Vm"), None);
    }

    #[test]
    fn this_process_is_found_by_its_port_and_can_be_read() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = socket.local_addr().expect("it is bound").port();
        assert_eq!(listener(port), Some(std::process::id()));
        drop(socket);
        assert_eq!(listener(port), None);
        let memory = memory(std::process::id()).expect("it runs");
        assert!(0 < memory.anonymous && memory.anonymous < memory.resident, "{memory:?}");
        cpu_time(std::process::id()).expect("it runs");
        assert!(own_cpu_time() > Duration::ZERO);
    }
}
