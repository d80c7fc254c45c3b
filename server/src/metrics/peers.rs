// SPDX-License-Identifier: Apache-2.0
//! What is told of the other members.
//!
//! Owns      the families with a label for each peer, those of promotions, and of what was refused of anybody.
//! Holds     a member alone tells none of the first.
//! Never     counts.

use super::text::Text;
use crate::member::{MemberStatus, PeerFigures};

/// Name, type, label and help of a family, and its value for one peer.
type Family = (&'static str, &'static str, &'static str, &'static str, Value);
type Value = fn(&PeerFigures) -> u64;

const FAMILIES: &[Family] = &[
    ("etcd_network_peer_sent_bytes_total", "counter", "To", "Bytes to a peer.", |peer| peer.sent_bytes),
    ("etcd_network_peer_sent_failures_total", "counter", "To", "Messages that could not be sent.", |peer| {
        peer.sent_failures
    }),
    ("etcd_network_peer_received_bytes_total", "counter", "From", "Bytes of a peer.", |peer| {
        peer.received_bytes
    }),
    (
        "etcd_network_peer_received_failures_total",
        "counter",
        "From",
        "Connections of a peer that broke, or brought what cannot be read.",
        |peer| peer.received_failures,
    ),
    ("etcd_network_snapshot_send_inflights_total", "gauge", "To", "Snapshots on their way.", |peer| {
        peer.snapshots_sending
    }),
    ("etcd_network_snapshot_send_success", "counter", "To", "Snapshots sent.", |peer| peer.snapshots_sent),
    ("etcd_network_snapshot_send_failures", "counter", "To", "Snapshots not sent.", |peer| {
        peer.snapshot_send_failures
    }),
    ("etcd_network_snapshot_receive_inflights_total", "gauge", "From", "Snapshots that come in.", |peer| {
        peer.snapshots_receiving
    }),
    ("etcd_network_snapshot_receive_success", "counter", "From", "Snapshots received.", |peer| {
        peer.snapshots_received
    }),
    ("etcd_network_snapshot_receive_failures", "counter", "From", "Snapshots not received.", |peer| {
        peer.snapshot_receive_failures
    }),
];

/// Families that name both ends.
const BETWEEN: &[(&str, &str, &str, Value)] = &[
    ("etcd_network_known_peers", "gauge", "1 for each other member.", |peer| u64::from(peer.known)),
    ("etcd_network_active_peers", "gauge", "1 while there is a connection.", |peer| u64::from(peer.active)),
    ("etcd_network_disconnected_peers_total", "counter", "Connections lost.", |peer| peer.disconnects),
];

pub(super) fn render(text: &mut Text, status: &MemberStatus) {
    text.counter(
        "etcd_server_learner_promote_successes",
        "Learners promoted by this leader.",
        status.learners_promoted,
    );
    if !status.promotions_refused.is_empty() {
        let name = "etcd_server_learner_promote_failures";
        text.family(name, "counter", "Promotions that this leader refused.");
        for (reason, count) in &status.promotions_refused {
            text.sample(name, &[("Reason", reason)], count);
        }
    }
    text.counter(
        "cairn_peer_callers_refused_total",
        "Callers at the port for peers that were refused.",
        status.peer_callers_refused,
    );
    text.counter(
        "cairn_peer_messages_refused_total",
        "What members sent and no member sends.",
        status.peer_messages_refused,
    );
    if status.peers.is_empty() {
        return;
    }
    let local = status.member_id.to_string();
    for (name, kind, help, value) in BETWEEN {
        text.family(name, kind, help);
        for peer in &status.peers {
            let remote = format!("{:x}", peer.id);
            text.sample(name, &[("Local", &local), ("Remote", &remote)], value(peer));
        }
    }
    for (name, kind, label, help, value) in FAMILIES {
        text.family(name, kind, help);
        for peer in &status.peers {
            text.sample(name, &[(label, &format!("{:x}", peer.id))], value(peer));
        }
    }
}
