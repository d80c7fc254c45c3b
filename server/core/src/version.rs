// SPDX-License-Identifier: Apache-2.0
//! The version of the API that a cluster has agreed on: what all of its members can do.
//!
//! Owns      how versions are written and compared, which one this build speaks, and what a leader decides (VE-2).
//! Holds     1. the cluster's version is never above the version of a member that applies it (VE-3);
//!           2. it goes up to the least of the members' versions, and down by one minor version alone, to what an
//!              operator asked for (VE-5, VE-6).
//! Never     asks a member: who decides says what they told.

use std::fmt;

/// Major and minor of a version. It is told with patch level 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

impl Version {
    /// What this build speaks.
    pub const OWN: Version = Version::new(3, if cfg!(feature = "next") { 8 } else { 7 });
    /// What a cluster speaks as long as the version of one of its members is not known.
    pub const LEAST: Version = Version::new(3, 0);

    pub const fn new(major: u32, minor: u32) -> Version {
        Version { major, minor }
    }

    /// Of `X.Y`, or of a semantic version, whose other parts do not matter here.
    pub fn parse(text: &str) -> Option<Version> {
        let (numbers, rest) = match text.find(['-', '+']) {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let parts: Vec<&str> = numbers.split('.').collect();
        if !matches!(parts.len(), 2 | 3) || (parts.len() == 2 && !rest.is_empty()) || rest.len() == 1 {
            return None;
        }
        let number = |part: &&str| {
            let canonical =
                part.bytes().all(|b| b.is_ascii_digit()) && (part.len() == 1 || !part.starts_with('0'));
            part.parse::<u32>().ok().filter(|_| canonical)
        };
        let numbers: Vec<u32> = parts.iter().map(number).collect::<Option<_>>()?;
        Some(Version::new(numbers[0], numbers[1]))
    }

    /// The one that a cluster of this version can go down to.
    pub fn below(self) -> Option<Version> {
        self.minor.checked_sub(1).map(|minor| Version::new(self.major, minor))
    }

    /// As `X.Y`.
    pub fn short(self) -> String {
        format!("{}.{}", self.major, self.minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.0", self.major, self.minor)
    }
}

/// What a leader has the cluster's version become, if that is another than it is. `downgrade` is the target of a
/// downgrade under way; `least` the least version of all members, `None` where one did not tell.
pub fn decide(
    cluster: Option<Version>,
    downgrade: Option<Version>,
    least: Option<Version>,
) -> Option<Version> {
    let Some(cluster) = cluster else { return Some(least.unwrap_or(Version::LEAST)) };
    let least = least?;
    match downgrade {
        Some(target) => (cluster.below() == Some(target) && target <= least).then_some(target),
        None => (least > cluster && least.major == cluster.major).then_some(least),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Option<Version> {
        Version::parse(text)
    }

    // rule: VE-5
    #[test]
    fn versions_are_read_with_or_without_a_patch_level_and_told_with_it() {
        for text in ["3.7", "3.7.0", "3.7.1", "3.7.0-alpha.0", "3.7.1+git", "3.7.12-rc.1+x"] {
            assert_eq!(v(text), Some(Version::new(3, 7)), "{text}");
        }
        for text in [
            "", "3", "3.", ".7", "3.7.", "3.x", "v3.7", "3.7.0.0", "3.7-rc", "3.7.0-", "03.7", "3.-7",
            "3. 7", "+3.7",
        ] {
            assert_eq!(v(text), None, "{text}");
        }
        assert_eq!(v("3.10.2").expect("a version").to_string(), "3.10.0");
        assert_eq!(v("3.10.2").expect("a version").short(), "3.10");
        assert!(v("3.10") > v("3.9") && v("4.0") > v("3.10"));
        assert_eq!(v("4.0").expect("a version").below(), None);
    }

    // rule: VE-2, VE-6
    #[test]
    fn a_cluster_goes_up_to_the_least_of_its_members_and_down_where_it_is_told() {
        for (cluster, downgrade, least, decided) in [
            // Nothing is decided yet.
            ("", "", "3.7", "3.7"),
            ("", "", "", "3.0"),
            // Up, when all are there.
            ("3.0", "", "3.7", "3.7"),
            ("3.6", "", "3.7", "3.7"),
            ("3.7", "", "3.7", ""),
            ("3.6", "", "", ""),
            ("3.7", "", "4.0", ""),
            // Never down by itself: a member that is older does not start (VE-3).
            ("3.7", "", "3.6", ""),
            // Down by one, and not up before it is done or given up.
            ("3.7", "3.6", "3.7", "3.6"),
            ("3.7", "3.6", "", ""),
            ("3.6", "3.6", "3.7", ""),
            ("3.6", "3.6", "3.6", ""),
            ("3.8", "3.6", "3.8", ""),
        ] {
            assert_eq!(
                decide(v(cluster), v(downgrade), v(least)),
                v(decided),
                "{cluster} {downgrade} {least}"
            );
        }
    }
}
