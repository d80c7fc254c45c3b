// SPDX-License-Identifier: Apache-2.0
//! Messages made from the descriptor set alone, so that a new RPC or a new field is among them by itself.
//!
//! Owns      the list of RPCs of the set, and the encoding of a message whose fields are drawn.
//! Holds     1. what [`Descriptors::message`] writes is well formed: each field of its type, strings of UTF-8;
//!           2. the same draws give the same bytes.
//! Never     names a message.

use std::collections::BTreeMap;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// One RPC of the set.
#[derive(Clone, Debug)]
pub struct Rpc {
    /// `/package.Service/Method`.
    pub path: String,
    /// The full name of the message that it takes.
    pub request: String,
    /// Whether the client sends more than one message.
    pub takes_many: bool,
    /// Whether the server does.
    pub gives_many: bool,
}

/// Draws a number below the one that is given.
pub type Draw<'a> = &'a mut dyn FnMut(usize) -> usize;

/// What the set describes.
pub struct Descriptors {
    messages: BTreeMap<String, DescriptorProto>,
    rpcs: Vec<Rpc>,
}

/// Messages inside one another; what lies deeper is left out.
const DEPTH_MAX: usize = 5;

const TEXTS: [&str; 8] = ["", "k", "a/b", "alice", "http://[", "\u{0}", "ß→😀", "3.7.0"];
const PIECES: [&[u8]; 8] = [b"", b"k", b"k\0", b"\0", b"\xff\xff", b"a/b", b"z", b"0123456789abcdef"];
const NUMBERS: [u64; 12] = [
    0,
    1,
    2,
    5,
    100,
    1 << 31,
    (1 << 32) + 1,
    i64::MAX as u64,
    i64::MIN as u64,
    u64::MAX,
    9_000_000_000,
    9_000_000_001,
];

impl Descriptors {
    /// Reads `cairn_proto::DESCRIPTOR_SET`.
    ///
    /// # Panics
    /// If it is none.
    pub fn read() -> Descriptors {
        let set = FileDescriptorSet::decode(cairn_proto::DESCRIPTOR_SET).expect("the build wrote this set");
        let (mut messages, mut rpcs) = (BTreeMap::new(), Vec::new());
        for file in &set.file {
            for message in &file.message_type {
                take(file.package(), message, &mut messages);
            }
            for service in &file.service {
                rpcs.extend(service.method.iter().map(|method| Rpc {
                    path: format!("/{}.{}/{}", file.package(), service.name(), method.name()),
                    request: method.input_type().trim_start_matches('.').to_owned(),
                    takes_many: method.client_streaming(),
                    gives_many: method.server_streaming(),
                }));
            }
        }
        Descriptors { messages, rpcs }
    }

    pub fn rpcs(&self) -> &[Rpc] {
        &self.rpcs
    }

    /// A message of that name. Of its fields about half are set, each to a value that is drawn.
    ///
    /// # Panics
    /// If the set has no such message.
    pub fn message(&self, name: &str, draw: Draw<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(name, 0, draw, &mut out);
        out
    }

    /// The numbers of the fields of a message, with the types that they have on the wire.
    pub fn fields(&self, name: &str) -> Vec<(u32, Wire)> {
        let fields = &self.described(name).field;
        fields.iter().map(|field| (field.number().cast_unsigned(), wire(field))).collect()
    }

    /// The numbers of the fields that are text.
    pub fn texts(&self, name: &str) -> Vec<u32> {
        let fields = self.described(name).field.iter();
        fields.filter(|f| f.r#type() == Type::String).map(|f| f.number().cast_unsigned()).collect()
    }

    fn described(&self, name: &str) -> &DescriptorProto {
        self.messages.get(name).unwrap_or_else(|| panic!("the set has no message {name}"))
    }

    fn write(&self, name: &str, depth: usize, draw: Draw<'_>, out: &mut Vec<u8>) {
        for field in &self.described(name).field {
            let repeated = field.label() == Label::Repeated;
            let times = if repeated { draw(4) } else { draw(2) };
            for _ in 0..times {
                self.write_field(field, depth, draw, out);
            }
        }
    }

    fn write_field(&self, field: &FieldDescriptorProto, depth: usize, draw: Draw<'_>, out: &mut Vec<u8>) {
        let number = field.number().cast_unsigned();
        match field.r#type() {
            Type::Message => {
                let name = field.type_name().trim_start_matches('.');
                if depth < DEPTH_MAX {
                    let mut inner = Vec::new();
                    self.write(name, depth + 1, draw, &mut inner);
                    push_bytes(out, number, &inner);
                }
            }
            Type::String => push_bytes(out, number, TEXTS[draw(TEXTS.len())].as_bytes()),
            Type::Bytes => push_bytes(out, number, PIECES[draw(PIECES.len())]),
            // One that no enum has, now and then.
            Type::Enum => push_number(out, number, [0, 1, 2, 3, 99, u64::MAX][draw(6)]),
            Type::Bool => push_number(out, number, draw(2) as u64),
            _ => push_number(out, number, NUMBERS[draw(NUMBERS.len())]),
        }
    }
}

fn take(prefix: &str, message: &DescriptorProto, into: &mut BTreeMap<String, DescriptorProto>) {
    let name = format!("{prefix}.{}", message.name());
    for nested in &message.nested_type {
        take(&name, nested, into);
    }
    into.insert(name, message.clone());
}

/// How a field lies on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wire {
    Varint,
    Bytes,
}

fn wire(field: &FieldDescriptorProto) -> Wire {
    match field.r#type() {
        Type::Message | Type::String | Type::Bytes => Wire::Bytes,
        _ => Wire::Varint,
    }
}

pub fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn push_number(out: &mut Vec<u8>, field: u32, value: u64) {
    push_varint(out, u64::from(field) << 3);
    push_varint(out, value);
}

pub fn push_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    push_varint(out, u64::from(field) << 3 | 2);
    push_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
