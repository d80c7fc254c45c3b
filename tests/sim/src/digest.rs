// SPDX-License-Identifier: Apache-2.0
//! A number for everything that happened in a run.
//!
//! Owns      how numbers, bytes and text are mixed into it.
//! Holds     the same things in the same order give the same number.
//! Never     has to be hard to forge: it tells two runs of one seed apart.

use std::fmt;

const START: u64 = 0xcbf2_9ce4_8422_2325;
const FACTOR: u64 = 0x0100_0000_01b3;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Digest {
        Digest(START)
    }
}

impl Digest {
    pub fn value(self) -> u64 {
        self.0
    }

    pub fn number(&mut self, n: u64) {
        self.0 = (self.0 ^ n).wrapping_mul(FACTOR);
        self.0 ^= self.0 >> 32;
    }

    /// Eight bytes at a time: values are long.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.number(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.number(u64::from_le_bytes(last));
        self.number(bytes.len() as u64);
    }
}

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(FACTOR);
        }
        Ok(())
    }
}

/// The number of one thing.
pub fn of(fill: impl FnOnce(&mut Digest)) -> u64 {
    let mut digest = Digest::default();
    fill(&mut digest);
    digest.value()
}
