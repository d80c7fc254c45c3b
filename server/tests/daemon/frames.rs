// SPDX-License-Identifier: Apache-2.0
//! Frames of HTTP/2 written by hand, for what no client sends.
//!
//! Owns      the layout of a frame's head and of a list of headers.
//! Never     judges what is put together.

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_HEADERS: u8 = 4;
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    let head = [&len[1..], &[kind, flags], &stream.to_be_bytes()[..]].concat();
    [&head[..], payload].concat()
}

/// A literal field that is not put into the table, with a name of its own.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

/// The head of a call. 0x83 and 0x86 stand for `:method: POST` and `:scheme: http`.
pub fn call(path: &str) -> Vec<u8> {
    let path = [&[4, path.len() as u8], path.as_bytes()].concat();
    let fields = [field("content-type", "application/grpc"), field("te", "trailers")].concat();
    [&[0x83, 0x86][..], &path, &field(":authority", "localhost"), &fields].concat()
}
