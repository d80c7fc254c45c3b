// SPDX-License-Identifier: Apache-2.0
//! Who is who: ids of members and of the cluster, and ids of requests.
//!
//! Owns      the derivation of ids from peer URLs, and the numbering of requests.
//! Holds     1. the same URLs and token give the ids that etcd gives (ID-1, ID-3);
//!           2. two requests of one member never share an id within 2^48 requests and one boot.
//! Never     reads a clock: the wall time of a boot comes in once, as milliseconds.

use sha1::{Digest, Sha1};
use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

/// A member's number, printed as etcd prints it: lower-case hex without padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MemberId(pub u64);

/// The number that all members of one cluster share, and no other cluster has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClusterId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

fn first_eight(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    u64::from_be_bytes(digest[..8].try_into().expect("a SHA-1 digest has 20 bytes"))
}

impl MemberId {
    /// The id of a member that was there when its cluster began (ID-1).
    pub fn at_bootstrap<S: AsRef<str>>(peer_urls: &[S], cluster_token: &str) -> MemberId {
        let mut urls: Vec<&str> = peer_urls.iter().map(AsRef::as_ref).collect();
        urls.sort_unstable();
        let mut hash = Sha1::new();
        for url in urls {
            hash.update(url.as_bytes());
        }
        hash.update(cluster_token.as_bytes());
        MemberId(first_eight(hash))
    }

    /// The id of a member that is added to a cluster that runs, at this second since 1970 (ID-2).
    pub fn when_added<S: AsRef<str>>(peer_urls: &[S], unix_s: u64) -> MemberId {
        // etcd hashes the time in the place of the token.
        MemberId::at_bootstrap(peer_urls, &unix_s.to_string())
    }
}

impl ClusterId {
    /// The id of the cluster that began with these members (ID-3).
    pub fn of_initial(members: &[MemberId]) -> ClusterId {
        let mut ids: Vec<u64> = members.iter().map(|m| m.0).collect();
        ids.sort_unstable();
        let mut hash = Sha1::new();
        for id in ids {
            hash.update(id.to_be_bytes());
        }
        ClusterId(first_eight(hash))
    }
}

/// Numbers the requests of one member: 16 bits of member id, 40 bits of the boot's milliseconds, 8 bits
/// of counter, the last two counting on as one (ID-7).
#[derive(Debug)]
pub struct RequestIds {
    prefix: u64,
    suffix: AtomicU64,
}

impl RequestIds {
    const SUFFIX_BITS: u32 = 48;

    /// `boot_ms` is the wall time when the member started.
    pub fn new(member: MemberId, boot_ms: u64) -> RequestIds {
        let suffix = AtomicU64::new((boot_ms & ((1 << 40) - 1)) << 8);
        RequestIds { prefix: member.0 << Self::SUFFIX_BITS, suffix }
    }

    /// A new id, never 0.
    pub fn draw(&self) -> u64 {
        let suffix = self.suffix.fetch_add(1, Ordering::Relaxed) + 1;
        let id = self.prefix | (suffix & ((1 << Self::SUFFIX_BITS) - 1));
        if id == 0 { self.draw() } else { id }
    }

    /// A new id for a lease: positive (LEASE-1).
    pub fn draw_lease(&self) -> i64 {
        let id = (self.draw() & (i64::MAX as u64)) as i64;
        if id == 0 { self.draw_lease() } else { id }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // rule: ID-1, ID-3
    #[test]
    fn ids_are_those_that_etcd_derives() {
        let id = MemberId::at_bootstrap(&["http://127.0.0.1:33380"], "etcd-cluster");
        assert_eq!(id.to_string(), "5c76a90ae78bcee7");
        assert_eq!(ClusterId::of_initial(&[id]).to_string(), "536f0188ef2075ac");

        let default = MemberId::at_bootstrap(&["http://localhost:2380"], "etcd-cluster");
        assert_eq!(default.to_string(), "8e9e05c52164694d");

        let pinned = MemberId::at_bootstrap(&["https://localhost:20001"], "new");
        assert_eq!(pinned.to_string(), "a8f3458387986d");
        assert_eq!(ClusterId::of_initial(&[pinned]).to_string(), "34c21a2d427db393");
    }

    // rule: ID-2
    #[test]
    fn a_member_that_is_added_has_the_time_in_its_id() {
        let urls = ["http://a:1"];
        assert_ne!(MemberId::when_added(&urls, 1), MemberId::when_added(&urls, 2));
        let at = MemberId::when_added(&["http://b:1", "http://a:1"], 1_700_000_000);
        assert_eq!(at, MemberId(first_eight(Sha1::new_with_prefix("http://a:1http://b:11700000000"))));
    }

    // rule: BO-8
    #[test]
    fn the_token_makes_other_ids_of_the_same_urls() {
        let ids = ["a", "b"].map(|token| MemberId::at_bootstrap(&["http://a:1"], token));
        assert_ne!(ids[0], ids[1]);
        assert_ne!(ClusterId::of_initial(&ids[..1]), ClusterId::of_initial(&ids[1..]));
    }

    // rule: ID-1
    #[test]
    fn the_order_of_the_urls_does_not_matter() {
        let one = MemberId::at_bootstrap(&["http://a:1", "http://b:1"], "t");
        assert_eq!(one, MemberId::at_bootstrap(&["http://b:1", "http://a:1"], "t"));
    }

    // rule: ID-7
    #[test]
    fn request_ids_carry_the_member_and_the_time_and_never_repeat() {
        let ids = RequestIds::new(MemberId(0xabcd_0000_1234), 5);
        let first = ids.draw();
        assert_eq!(first >> 48, 0x1234);
        assert_eq!((first >> 8) & ((1 << 40) - 1), 5);
        assert_eq!(ids.draw(), first + 1);
    }
}
