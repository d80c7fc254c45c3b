// SPDX-License-Identifier: Apache-2.0
//! What the version after this one has, in builds with the feature `next`: upgrades and downgrades are tested with it.
//!
//! Owns      a request that came with that version, and its bytes in the log.
//! Holds     1. it is behind the gate that every later request is behind: members of this version pass it over;
//!           2. it is applied only while the cluster is of that version.
//! Never     is part of a release.

use crate::version::Version;
use prost::Message;

/// The version that it came with.
pub const SINCE: Version = Version::OWN;

/// As it is in the log, behind the gate.
#[derive(Clone, PartialEq, Message)]
pub struct Gated {
    #[prost(uint32, tag = "1")]
    pub major: u32,
    #[prost(uint32, tag = "2")]
    pub minor: u32,
    #[prost(uint64, tag = "3")]
    pub number: u64,
}

impl Gated {
    pub fn new(number: u64) -> Gated {
        Gated { major: SINCE.major, minor: SINCE.minor, number }
    }
}

#[derive(Clone, PartialEq, Message)]
struct Whole {
    #[prost(message, optional, tag = "15000")]
    gated: Option<Gated>,
}

/// The number of a request that this version knows.
pub fn number_in(bytes: &[u8]) -> Option<u64> {
    let gated = Whole::decode(bytes).ok()?.gated?;
    (Version::new(gated.major, gated.minor) == SINCE).then_some(gated.number)
}
