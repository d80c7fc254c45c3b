// SPDX-License-Identifier: Apache-2.0
//! The gRPC health service: one name, the empty one.
//!
//! Owns      its answers.
//! Never     checks anything itself: the front door says whether it serves.

use super::{
    message::{Encoding, Messages, framed},
    status::Status,
};
use crate::front::{Front, body::MessageStream};
use cairn_proto::{
    errors,
    health::{
        HealthCheckRequest, HealthCheckResponse, HealthListResponse, health_check_response::ServingStatus,
    },
};
use futures_util::{StreamExt as _, stream};

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
    mut messages: Messages,
    encoding: Encoding,
) -> Result<MessageStream, Status> {
    let request: HealthCheckRequest = messages.only().await?;
    if !request.service.is_empty() {
        let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown as i32 };
        let once = stream::iter([Ok(framed(&unknown, encoding))]);
        return Ok(Box::pin(once.chain(stream::pending())));
    }
    let mut healthy = front.healthy();
    healthy.mark_changed();
    Ok(Box::pin(stream::unfold(healthy, move |mut healthy| async move {
        healthy.changed().await.ok()?;
        let now = response(*healthy.borrow_and_update());
        Some((Ok(framed(&now, encoding)), healthy))
    })))
}
