// SPDX-License-Identifier: Apache-2.0
//! A network of namespaces: each member of a test has one of its own, with one link to a router between them, where packets
//! get lost that no proxy of the loopback could lose.
//!
//! Owns      the namespaces, whose names carry the process id, and all that is in them; the tests reach members from outside
//!           through a link of their own.
//! Holds     1. what is lost is lost on its way: neither end is told, and no connection is ended;
//!           2. all of it is gone when this is dropped, and what a process left that was killed goes with the next one.
//! Never     changes an address, a route or a setting of the machine, but for the route to its own network.
//!
//! The network is a part of 198.18.0.0/15, which is for tests (RFC 2544). Link 0 is that of the tests, link `n + 1` that of
//! member `n`; of the four addresses of a link the second is the router's and the third is its other end.

use std::path::Path;
use std::process::Command;

/// What each name begins with.
const MARK: &str = "cairn-";

/// Links and namespaces, until this is dropped.
#[derive(Debug)]
pub struct Namespaces {
    pid: u32,
    members: usize,
    /// Directions in which the router loses everything.
    lost: Vec<(usize, usize)>,
    down: Vec<usize>,
}

impl Namespaces {
    /// A network of `members`, in which nothing is lost.
    ///
    /// # Errors
    /// With what this machine does not do, or does not allow.
    pub fn make(members: usize) -> Result<Namespaces, String> {
        sweep()?;
        // From here on, dropping it removes what is there.
        let net = Namespaces { pid: std::process::id(), members, lost: Vec::new(), down: Vec::new() };
        let router = net.router();
        ip(&["netns", "add", &router])?;
        // Who has no link any more is not said to be unreachable.
        in_namespace(&router, &["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])?;
        ip(&["-n", &router, "route", "add", "blackhole", &net.prefix()])?;
        ip(&["link", "add", &net.own_link(), "type", "veth", "peer", "name", "l0", "netns", &router])?;
        net.raise_router(0)?;
        ip(&["address", "add", &format!("{}/30", net.address(0, 2)), "dev", &net.own_link()])?;
        ip(&["link", "set", &net.own_link(), "up"])?;
        ip(&["route", "add", &net.prefix(), "via", &net.address(0, 1), "dev", &net.own_link()])?;
        for member in 0..members {
            let (namespace, link) = (net.namespace(member), format!("l{}", member + 1));
            ip(&["netns", "add", &namespace])?;
            ip(&[
                "-n", &router, "link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns",
                &namespace,
            ])?;
            net.raise_router(member + 1)?;
            ip(&["-n", &namespace, "address", "add", &format!("{}/30", net.host(member)), "dev", "eth0"])?;
            ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
            ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
            ip(&["-n", &namespace, "route", "add", "default", "via", &net.address(member + 1, 1)])?;
        }
        Ok(net)
    }

    /// The address of a member.
    pub fn host(&self, member: usize) -> String {
        self.address(member + 1, 2)
    }

    /// What runs a program in a member's namespace, in front of it.
    pub fn within(&self, member: usize) -> Vec<String> {
        ["ip", "netns", "exec", &self.namespace(member)].map(str::to_owned).to_vec()
    }

    /// Loses everything on its way from one member to another.
    ///
    /// # Panics
    /// If the router refuses.
    pub fn lose(&mut self, from: usize, to: usize) {
        self.rule("add", from, to).expect("the router is ours");
        self.lost.push((from, to));
    }

    /// Takes a member's link down: connections stand, and nothing goes over them.
    ///
    /// # Panics
    /// If the router refuses.
    pub fn take_down(&mut self, member: usize) {
        self.set_link(member, "down").expect("the router is ours");
        self.down.push(member);
    }

    /// Nothing is lost any more.
    ///
    /// # Panics
    /// If the router refuses.
    pub fn heal(&mut self) {
        for (from, to) in std::mem::take(&mut self.lost) {
            self.rule("delete", from, to).expect("the rule is there");
        }
        for member in std::mem::take(&mut self.down) {
            self.set_link(member, "up").expect("the link is there");
        }
    }

    fn rule(&self, what: &str, from: usize, to: usize) -> Result<(), String> {
        let (from, to) = (self.host(from), self.host(to));
        ip(&["-n", &self.router(), "rule", what, "from", &from, "to", &to, "type", "blackhole"]).map(drop)
    }

    fn set_link(&self, member: usize, how: &str) -> Result<(), String> {
        ip(&["-n", &self.router(), "link", "set", &format!("l{}", member + 1), how]).map(drop)
    }

    /// Gives the router its end of a link.
    fn raise_router(&self, link: usize) -> Result<(), String> {
        let (router, name) = (self.router(), format!("l{link}"));
        ip(&["-n", &router, "address", "add", &format!("{}/30", self.address(link, 1)), "dev", &name])?;
        ip(&["-n", &router, "link", "set", &name, "up"]).map(drop)
    }

    fn router(&self) -> String {
        format!("{MARK}{}-router", self.pid)
    }

    fn namespace(&self, member: usize) -> String {
        format!("{MARK}{}-m{member}", self.pid)
    }

    /// A name of at most 15 bytes.
    fn own_link(&self) -> String {
        format!("{MARK}{}", self.pid)
    }

    fn network(&self) -> String {
        format!("198.{}.{}", 18 + (self.pid >> 8 & 1), self.pid & 0xff)
    }

    fn prefix(&self) -> String {
        format!("{}.0/24", self.network())
    }

    fn address(&self, link: usize, end: usize) -> String {
        format!("{}.{}", self.network(), 4 * link + end)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // With a namespace go its links, and their other ends.
        let members = (0..self.members).map(|member| self.namespace(member));
        for name in members.chain([self.router()]) {
            // One that was not made yet is not there.
            ip(&["netns", "delete", &name]).ok();
        }
        ip(&["link", "delete", &self.own_link()]).ok();
    }
}

/// Names that processes of tests left or have; those of this one if it is given.
///
/// # Errors
/// If they are not told.
pub fn names(pid: Option<u32>) -> Result<Vec<String>, String> {
    let told = format!("{}{}", ip(&["netns", "list"])?, ip(&["-o", "link", "show", "type", "veth"])?);
    let words = told.split(|c: char| c.is_whitespace() || c == ':' || c == '@');
    let of = |name: &&str| pid_of(name).is_some_and(|of| pid.is_none_or(|pid| pid == of));
    Ok(words.filter(of).map(str::to_owned).collect())
}

fn pid_of(name: &str) -> Option<u32> {
    name.strip_prefix(MARK)?.split('-').next()?.parse().ok()
}

/// Removes what processes left that are gone.
fn sweep() -> Result<(), String> {
    for name in names(None)? {
        let gone = pid_of(&name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        if gone {
            // Of a link and its namespace one may go with the other.
            ip(&["netns", "delete", &name]).ok();
            ip(&["link", "delete", &name]).ok();
        }
    }
    Ok(())
}

fn in_namespace(namespace: &str, command: &[&str]) -> Result<String, String> {
    ip(&[&["netns", "exec", namespace], command].concat())
}

fn ip(args: &[&str]) -> Result<String, String> {
    let output = Command::new("ip").args(args).output().map_err(|e| format!("ip: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {}: {}", args.join(" "), why.lines().last().unwrap_or("failed")))
}
