// SPDX-License-Identifier: Apache-2.0
//! Answers of Maintenance that the daemon itself makes.
//!
//! Owns      the fields of `Status` (MT-2), and the health service's word during a defragmentation (MT-4).
//! Never     touches a file.

use super::status::{Status, UNKNOWN};
use crate::{
    ETCD_VERSION,
    config::Config,
    front::{Front, Unhealthy},
    member::{Member, MemberStatus},
};
use cairn_proto::{errors, etcdserverpb as pb};

/// What `--quota-backend-bytes=0` means (QU-1).
pub const QUOTA_BYTES_DEFAULT: i64 = 2 << 30;

pub fn status(config: &Config, status: &MemberStatus, header: pb::ResponseHeader) -> pb::StatusResponse {
    let mut problems = Vec::new();
    if status.leader == 0 {
        problems.push(errors::STATUS_NO_LEADER.text.to_owned());
    }
    problems.extend(
        status
            .alarms
            .iter()
            .map(|alarm| format!("memberID:{} alarm:{} ", alarm.member_id, alarm.alarm().as_str_name())),
    );
    pb::StatusResponse {
        header: Some(pb::ResponseHeader { raft_term: status.applied_term, ..header }),
        version: ETCD_VERSION.into(),
        db_size: status.db_size,
        leader: status.leader,
        raft_index: status.committed_index,
        raft_term: status.applied_term,
        raft_applied_index: status.applied_index,
        errors: problems,
        db_size_in_use: status.db_size_in_use,
        is_learner: status.is_learner,
        storage_version: status.storage_version.map(|version| version.to_string()).unwrap_or_default(),
        db_size_quota: effective_quota(config),
        downgrade_info: Some(pb::DowngradeInfo {
            enabled: status.downgrade.is_some(),
            target_version: status.downgrade.map(|version| version.to_string()).unwrap_or_default(),
        }),
    }
}

/// The quota as etcd tells it: its default for 0, what is configured otherwise.
pub fn effective_quota(config: &Config) -> i64 {
    if config.quota_bytes == 0 { QUOTA_BYTES_DEFAULT } else { config.quota_bytes }
}

pub async fn defragment(front: &Front, member: &Member) -> Result<pb::DefragmentResponse, Status> {
    let told = front.config.gates.stop_grpc_on_defrag;
    if told {
        front.set_unhealthy(Unhealthy::Defragmenting, true);
    }
    front.log.info("starting defragment", &[]);
    front.metrics.defrag_inflight.set(1);
    let since = std::time::Instant::now();
    let result = member.defragment().await;
    front.metrics.defrag_inflight.set(0);
    front.metrics.defrag_seconds.observe(since.elapsed().as_secs_f64());
    if told {
        front.set_unhealthy(Unhealthy::Defragmenting, false);
    }
    match &result {
        Ok(()) => front.log.info("finished defragment", &[]),
        Err(why) => front.log.warn("failed to defragment", &[("error", why.as_str().into())]),
    }
    // MT-3: the text passes through without a code.
    result.map(|()| pb::DefragmentResponse { header: None }).map_err(|why| Status::new(UNKNOWN, why))
}
