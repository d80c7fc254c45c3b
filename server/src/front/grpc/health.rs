// SPDX-License-Identifier: Apache-2.0
//! The gRPC health service: one name, the empty one.
//!
//! Owns      its answers.
//! Never     checks anything itself: the front door says whether it serves.

use super::{message::Messages, status::Status};
use crate::front::Front;
use cairn_proto::{
    errors,
    health::{
        HealthCheckRequest, HealthCheckResponse, HealthListResponse, health_check_response::ServingStatus,
    },
};
use futures_util::{Stream, StreamExt as _, stream};

fn response(healthy: bool) -> HealthCheckResponse {
    let status = if healthy { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status as i32 }
}

pub fn check(front: &Front, request: HealthCheckRequest) -> Result<HealthCheckResponse, Status> {
    if request.service.is_empty() {
        Ok(response(*front.healthy().borrow()))
    } else {
        Err(errors::HEALTH_UNKNOWN_SERVICE.into())
    }
}

pub fn list(front: &Front) -> HealthListResponse {
    HealthListResponse { statuses: [(String::new(), response(*front.healthy().borrow()))].into() }
}

/// The state now, then each change; of an unknown name that it is unknown, and nothing more.
pub async fn watch(
    front: &Front,
    mut messages: Messages<HealthCheckRequest>,
) -> Result<impl Stream<Item = Result<HealthCheckResponse, Status>> + use<>, Status> {
    if !messages.only().await?.service.is_empty() {
        let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown as i32 };
        return Ok(stream::iter([Ok(unknown)]).chain(stream::pending()).left_stream());
    }
    let mut healthy = front.healthy();
    healthy.mark_changed();
    let changes = stream::unfold(healthy, |mut healthy| async move {
        healthy.changed().await.ok()?;
        let now = response(*healthy.borrow_and_update());
        Some((Ok(now), healthy))
    });
    Ok(changes.right_stream())
}
