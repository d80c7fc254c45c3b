// SPDX-License-Identifier: Apache-2.0
//! What the kernel tells of this process.
//!
//! Owns      the reading of `/proc`.
//! Holds     what cannot be read is left out, never told as 0.
//! Never     fails.

use super::text::Text;
use rustix::process::{Resource, getrlimit};
use std::fs;

/// The soft limit of open files; `None` is no limit.
pub fn descriptor_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Open files now.
pub fn descriptors_used() -> Option<u64> {
    // Reading the directory opens one more.
    Some((fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1))
}

/// The fields of `/proc/self/stat` behind the name, which may hold anything; field 3 is the first.
fn stat() -> Option<Vec<u64>> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    // The first one is a letter, and a few may be negative: none of these is asked for.
    Some(rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect())
}

fn stat_field(stat: &Option<Vec<u64>>, number: usize) -> Option<u64> {
    stat.as_ref()?.get(number - 3).copied()
}

/// Unix time at which the machine started.
fn boot_time_s() -> Option<u64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Bytes received and sent on all interfaces of the network namespace but the loopback.
fn network_bytes() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/self/net/dev").ok()?;
    let mut sums = (0, 0);
    for line in text.lines().skip(2) {
        let (name, fields) = line.split_once(':')?;
        let fields: Vec<u64> = fields.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        if name.trim() != "lo" && fields.len() >= 9 {
            sums = (sums.0 + fields[0], sums.1 + fields[8]);
        }
    }
    Some(sums)
}

pub fn render(text: &mut Text) {
    let limit = descriptor_limit();
    let used = descriptors_used();
    let stat = stat();
    let ticks = rustix::param::clock_ticks_per_second();
    if let Some(limit) = limit {
        text.gauge("os_fd_limit", "The limit of open files.", limit);
        text.gauge("process_max_fds", "The limit of open files.", limit);
    }
    if let Some(used) = used {
        text.gauge("os_fd_used", "Open files.", used);
        text.gauge("process_open_fds", "Open files.", used);
    }
    if let (Some(user), Some(system)) = (stat_field(&stat, 14), stat_field(&stat, 15)) {
        let seconds = (user + system) as f64 / ticks as f64;
        text.counter("process_cpu_seconds_total", "CPU time in seconds.", seconds);
    }
    if let (Some(boot), Some(start)) = (boot_time_s(), stat_field(&stat, 22)) {
        let seconds = boot as f64 + start as f64 / ticks as f64;
        text.gauge("process_start_time_seconds", "Unix time of the process's start.", seconds);
    }
    if let Some(bytes) = stat_field(&stat, 23) {
        text.gauge("process_virtual_memory_bytes", "Virtual memory.", bytes);
    }
    if let Some(pages) = stat_field(&stat, 24) {
        let bytes = pages * rustix::param::page_size() as u64;
        text.gauge("process_resident_memory_bytes", "Resident memory.", bytes);
    }
    let memory_max = getrlimit(Resource::As).current.map_or("-1".into(), |bytes| bytes.to_string());
    text.gauge(
        "process_virtual_memory_max_bytes",
        "The limit of virtual memory, -1 if there is none.",
        memory_max,
    );
    if let Some((received, sent)) = network_bytes() {
        text.counter(
            "process_network_receive_bytes_total",
            "Bytes received in the network namespace.",
            received,
        );
        text.counter("process_network_transmit_bytes_total", "Bytes sent in the network namespace.", sent);
    }
}
