// SPDX-License-Identifier: Apache-2.0
//! Numbers as protobuf writes them: seven bits a byte, least significant first.
//!
//! Owns      the encoding and the checked decoding of varints and of signed numbers as zigzag.
//! Never     reads past the end of its input or accepts more than 64 bits.

/// Appends `n`.
pub(crate) fn put(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Bytes that [`put`] writes for `n`.
pub(crate) fn len(n: u64) -> usize {
    (64 - (n | 1).leading_zeros() as usize).div_ceil(7)
}

/// Takes one number off the front of `input`; `None` if it is cut short or too large.
pub(crate) fn take(input: &mut &[u8]) -> Option<u64> {
    let mut n = 0_u64;
    for (i, &byte) in input.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if i == 9 && bits > 1 {
            return None;
        }
        n |= bits << (7 * i);
        if byte & 0x80 == 0 {
            *input = &input[i + 1..];
            return Some(n);
        }
    }
    None
}

/// A signed number with small absolute values small.
pub(crate) fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

/// The inverse of [`zigzag`].
pub(crate) fn unzigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_say_their_length() {
        for shift in 0..64 {
            for n in [1_u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put(&mut out, n);
                assert_eq!(out.len(), len(n), "{n}");
                let mut input = &out[..];
                assert_eq!((take(&mut input), input.len()), (Some(n), 0));
                assert_eq!(zigzag(unzigzag(n)), n);
                assert_eq!(take(&mut &out[..out.len() - 1]), None, "{n} cut short");
            }
        }
        assert_eq!((zigzag(0), zigzag(-1), zigzag(1), zigzag(i64::MIN)), (0, 1, 2, u64::MAX));
    }

    #[test]
    fn more_than_64_bits_are_refused() {
        assert_eq!(take(&mut &[0xff; 10][..]), None);
        assert_eq!(take(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2][..]), None);
    }
}
