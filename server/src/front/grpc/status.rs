// SPDX-License-Identifier: Apache-2.0
//! How a call ends: a code and a text.
//!
//! Owns      the codes by name.
//! Never     words a text: those that clients compare are in `cairn_proto::errors`.

use crate::front::body::Body;
use cairn_proto::errors::WireError;
use http::Response;
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

impl From<Status> for tonic::Status {
    fn from(status: Status) -> tonic::Status {
        tonic::Status::new(tonic::Code::from(status.code as i32), status.message)
    }
}

impl Status {
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

    /// An answer of headers alone.
    pub fn response(self) -> Response<Body> {
        tonic::Status::from(self).into_http::<tonic::body::Body>().map(Body::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_proto::errors;

    #[test]
    fn texts_and_codes_reach_the_headers() {
        let headers = |status: Status| status.response().headers().clone();
        let refused = headers(errors::COMPACTED.into());
        assert_eq!(
            (&refused["content-type"], &refused["grpc-status"]),
            (&"application/grpc".parse().expect("a value"), &11.into())
        );
        let awkward = headers(Status::new(UNKNOWN, "50% done\nü"));
        let decoded = tonic::Status::from_header_map(&awkward).expect("a status");
        assert_eq!(decoded.message(), "50% done\nü");
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
