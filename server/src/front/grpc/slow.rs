// SPDX-License-Identifier: Apache-2.0
//! The record of a slow call (LG-7).
//!
//! Owns      what is written of a request: keys and sizes.
//! Holds     no value, password or token is ever written.
//! Never     costs a call more than a few copies of pointers.

use super::Call;
use crate::{
    config::value::format_duration,
    log::{Level, Value},
};
use bytes::Bytes;
use cairn_proto::{etcdserverpb as pb, health, v3electionpb, v3lockpb};
use tokio::time::Instant;

/// What a request is about.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    pub key: Bytes,
    pub range_end: Bytes,
    pub value_bytes: Option<usize>,
    /// Compares, and ops of the longer list.
    pub ops: Option<(usize, usize)>,
}

/// Requests that say what they are about.
pub trait Describe: prost::Message {
    fn subject(&self) -> Subject {
        Subject::default()
    }
}

impl Describe for pb::RangeRequest {
    fn subject(&self) -> Subject {
        Subject { key: self.key.clone(), range_end: self.range_end.clone(), ..Subject::default() }
    }
}

impl Describe for pb::PutRequest {
    fn subject(&self) -> Subject {
        Subject { key: self.key.clone(), value_bytes: Some(self.value.len()), ..Subject::default() }
    }
}

impl Describe for pb::DeleteRangeRequest {
    fn subject(&self) -> Subject {
        Subject { key: self.key.clone(), range_end: self.range_end.clone(), ..Subject::default() }
    }
}

impl Describe for pb::TxnRequest {
    fn subject(&self) -> Subject {
        let ops = (self.compare.len(), self.success.len().max(self.failure.len()));
        Subject { ops: Some(ops), ..Subject::default() }
    }
}

macro_rules! undescribed {
    ($($request:ty),* $(,)?) => { $(impl Describe for $request {})* };
}

undescribed!(
    pb::CompactionRequest,
    pb::LeaseGrantRequest,
    pb::LeaseRevokeRequest,
    pb::LeaseTimeToLiveRequest,
    pb::LeaseLeasesRequest,
    pb::MemberListRequest,
    pb::MemberAddRequest,
    pb::MemberRemoveRequest,
    pb::MemberUpdateRequest,
    pb::MemberPromoteRequest,
    pb::AlarmRequest,
    pb::StatusRequest,
    pb::DefragmentRequest,
    pb::MoveLeaderRequest,
    pb::DowngradeRequest,
    pb::HashRequest,
    pb::HashKvRequest,
    pb::AuthStatusRequest,
    pb::AuthenticateRequest,
    pb::AuthEnableRequest,
    pb::AuthDisableRequest,
    pb::AuthUserAddRequest,
    pb::AuthUserGetRequest,
    pb::AuthUserListRequest,
    pb::AuthUserDeleteRequest,
    pb::AuthUserChangePasswordRequest,
    pb::AuthUserGrantRoleRequest,
    pb::AuthUserRevokeRoleRequest,
    pb::AuthRoleAddRequest,
    pb::AuthRoleGetRequest,
    pb::AuthRoleListRequest,
    pb::AuthRoleDeleteRequest,
    pb::AuthRoleGrantPermissionRequest,
    pb::AuthRoleRevokePermissionRequest,
    v3lockpb::LockRequest,
    v3lockpb::UnlockRequest,
    v3electionpb::CampaignRequest,
    v3electionpb::ProclaimRequest,
    v3electionpb::LeaderRequest,
    v3electionpb::ResignRequest,
    health::HealthCheckRequest,
    health::HealthListRequest,
);

/// Writes the call down if it was slow, or if the log is at debug level.
pub fn record(call: &Call, since: Instant, subject: &Subject, response_bytes: impl FnOnce() -> usize) {
    let took = since.elapsed();
    let slow_after = call.front.config.warn_unary;
    let slow = !slow_after.is_zero() && took > slow_after;
    let level = if slow { Level::Warn } else { Level::Debug };
    let log = &call.front.log;
    if !log.enabled(level) {
        return;
    }
    let began = std::time::SystemTime::now() - took;
    let mut content = String::new();
    if !subject.key.is_empty() {
        content = format!("key:{:?} ", String::from_utf8_lossy(&subject.key));
    }
    if !subject.range_end.is_empty() {
        content += &format!("range_end:{:?} ", String::from_utf8_lossy(&subject.range_end));
    }
    if let Some(bytes) = subject.value_bytes {
        content += &format!("value_size:{bytes} ");
    }
    if let Some((compares, ops)) = subject.ops {
        content += &format!("compares:{compares} ops:{ops} ");
    }
    let fields = [
        ("start time", Value::from(crate::log::timestamp(began))),
        ("time spent", format_duration(took).into()),
        ("remote", (*call.remote.address).into()),
        ("response type", call.route.method.path.into()),
        ("response size", response_bytes().into()),
        ("request content", content.trim_end().into()),
    ];
    let log_line = if slow { crate::log::Log::warn } else { crate::log::Log::debug };
    log_line(log, "request stats", &fields);
}
