// SPDX-License-Identifier: Apache-2.0
//! The rules of `semantics-kv.md` as scripts: what a server must answer to each command.

use cairn_tests::script::check;

#[tokio::test]
async fn headers_and_revisions() {
    check("headers.txt").await;
}

#[tokio::test]
async fn ranges() {
    check("ranges.txt").await;
}

#[tokio::test]
async fn puts_and_deletes() {
    check("writes.txt").await;
}

#[tokio::test]
async fn transactions() {
    check("transactions.txt").await;
}

#[tokio::test]
async fn compaction() {
    check("compaction.txt").await;
}

#[tokio::test]
async fn hashes() {
    check("hashes.txt").await;
}

#[tokio::test]
async fn leases() {
    check("leases.txt").await;
}

#[tokio::test]
async fn watches() {
    check("watches.txt").await;
}

#[tokio::test]
async fn locks() {
    check("locks.txt").await;
}

#[tokio::test]
async fn elections() {
    check("elections.txt").await;
}

#[tokio::test]
async fn limits() {
    check("limits.txt").await;
}

#[tokio::test]
async fn quota_and_alarms() {
    check("quota.txt").await;
}

#[tokio::test]
async fn progress_by_the_clock() {
    check("progress.txt").await;
}

#[tokio::test]
async fn a_full_store() {
    check("space.txt").await;
}
