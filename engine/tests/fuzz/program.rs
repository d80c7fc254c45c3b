// SPDX-License-Identifier: Apache-2.0
//! An input read as a program: one draw after the other, until the bytes end.
//!
//! Owns      how bytes become choices, numbers and pieces of bytes, and back.
//! Holds     every input is a program: what is missing at its end is zero.
//! Never     knows what the choices mean.

/// The bytes that are left.
pub struct Program<'a>(&'a [u8]);

impl<'a> Program<'a> {
    pub fn new(input: &'a [u8]) -> Program<'a> {
        Program(input)
    }

    /// The next choice; `None` once there is none.
    pub fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// One of so many.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.next().unwrap_or(0)) % bound
    }

    /// Any number, eight bytes of it.
    pub fn number(&mut self) -> i64 {
        let mut bytes = [0; 8];
        let (head, rest) = self.0.split_at(self.0.len().min(8));
        bytes[..head.len()].copy_from_slice(head);
        self.0 = rest;
        i64::from_le_bytes(bytes)
    }

    /// A piece behind its length in two bytes; cut where the input ends.
    pub fn piece(&mut self) -> &'a [u8] {
        let len = usize::from(u16::from_le_bytes([self.next().unwrap_or(0), self.next().unwrap_or(0)]));
        let (piece, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        piece
    }
}

/// Writes what [`Program::piece`] reads.
pub fn push_piece(out: &mut Vec<u8>, piece: &[u8]) {
    let len = u16::try_from(piece.len()).expect("pieces of samples are short");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(piece);
}
