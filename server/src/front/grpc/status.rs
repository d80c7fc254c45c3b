// SPDX-License-Identifier: Apache-2.0
//! How a call ends: a code and a text, and their form in headers.
//!
//! Owns      the codes by name, and the encoding of `grpc-message`.
//! Never     words a text: those that clients compare are in `cairn_proto::errors`.

use crate::front::body::Body;
use cairn_proto::errors::WireError;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use std::borrow::Cow;

pub const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
pub const CANCELED: u32 = 1;
pub const UNKNOWN: u32 = 2;
pub const DEADLINE_EXCEEDED: u32 = 4;
pub const RESOURCE_EXHAUSTED: u32 = 8;
pub const UNIMPLEMENTED: u32 = 12;
pub const INTERNAL: u32 = 13;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub const GRPC_CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// How a call ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    pub code: u32,
    pub message: Cow<'static, str>,
}

impl From<WireError> for Status {
    fn from(error: WireError) -> Status {
        Status { code: error.code, message: Cow::Borrowed(error.text) }
    }
}

impl Status {
    pub const OK: Status = Status { code: 0, message: Cow::Borrowed("") };

    pub fn new(code: u32, message: impl Into<Cow<'static, str>>) -> Status {
        Status { code, message: message.into() }
    }

    /// As lock and election answer: the text stays, the code is lost (LOCK-11).
    pub fn without_code(self) -> Status {
        match self.code {
            CANCELED | DEADLINE_EXCEEDED => self,
            _ => Status { code: UNKNOWN, message: self.message },
        }
    }

    /// The last block of a call.
    pub fn trailers(&self) -> HeaderMap {
        let mut trailers = HeaderMap::with_capacity(2);
        self.write(&mut trailers);
        trailers
    }

    /// An answer of headers alone.
    pub fn response(&self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        response.headers_mut().insert(header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
        self.write(response.headers_mut());
        response
    }

    fn write(&self, headers: &mut HeaderMap) {
        headers.insert(GRPC_STATUS, HeaderValue::from(self.code));
        if !self.message.is_empty() {
            let text = percent_encoded(&self.message);
            headers.insert(GRPC_MESSAGE, HeaderValue::from_str(&text).expect("printable after encoding"));
        }
    }
}

/// gRPC's own percent encoding: all but printable ASCII, and the percent sign.
fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_proto::errors;

    #[test]
    fn messages_are_encoded_for_a_header() {
        let message = |text: &'static str| {
            let trailers = Status::new(UNKNOWN, text).trailers();
            trailers[GRPC_MESSAGE].to_str().expect("printable").to_owned()
        };
        assert_eq!(message("\"leader\" field must be provided"), "\"leader\" field must be provided");
        assert_eq!(message("50% done\nü"), "50%25 done%0A%C3%BC");
        assert!(!Status::OK.trailers().contains_key(GRPC_MESSAGE));
        assert_eq!(Status::from(errors::COMPACTED).trailers()[GRPC_STATUS], "11");
    }

    // rule: LOCK-11
    #[test]
    fn only_the_callers_own_end_keeps_its_code() {
        assert_eq!(
            Status::from(errors::LEASE_NOT_FOUND).without_code(),
            Status::from(errors::LOCK_LEASE_NOT_FOUND)
        );
        let late = Status::from(errors::CONTEXT_DEADLINE_EXCEEDED);
        assert_eq!(late.clone().without_code(), late);
    }
}
