// SPDX-License-Identifier: Apache-2.0
//! Failpoints in builds with the feature `failpoints`, as etcd's test builds have them (E2-8).
//!
//! Owns      what the environment asks for at the start: `GOFAIL_FAILPOINTS` sets terms, `GOFAIL_HTTP` says where they are
//!           served.
//! Holds     without the feature, `pass!` is nothing and neither variable is read.
//! Never     knows where the points are: `cairn_engine::failpoints` has their names, and what is done at each.

#[cfg(feature = "failpoints")]
mod http;
#[cfg(feature = "failpoints")]
mod terms;

/// The moment of that name, in a task: it may wait there, and what else runs on the thread does not.
macro_rules! pass {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        {
            crate::failpoints::pass_in_task($name).await;
        }
    };
}
pub(crate) use pass;

#[cfg(feature = "failpoints")]
pub use there::*;

#[cfg(feature = "failpoints")]
mod there {
    use super::{http, terms};
    use cairn_core::replica::peer::{MessageKind, PeerMessage};
    use cairn_engine::failpoints::{self, Missing};

    /// Why terms are not set.
    #[derive(Debug, thiserror::Error)]
    pub enum Refused {
        #[error(transparent)]
        Missing(#[from] Missing),
        #[error("failpoint: could not parse terms: {0}")]
        Terms(String),
    }

    /// Sets what the environment says, and begins to serve.
    ///
    /// # Errors
    /// A line that says what of it cannot be.
    pub fn begin() -> Result<(), String> {
        if let Ok(all) = std::env::var("GOFAIL_FAILPOINTS") {
            set_all(&all)?;
        }
        match std::env::var("GOFAIL_HTTP") {
            Ok(address) => http::serve(&address).map_err(|e| format!("GOFAIL_HTTP={address}: {e}")),
            Err(_) => Ok(()),
        }
    }

    /// Sets `name=terms;name=terms`, in order, up to the first that cannot be.
    pub(super) fn set_all(all: &str) -> Result<(), String> {
        for one in all.split(';').filter(|one| !one.is_empty()) {
            let parts = one.split_once('=').filter(|(_, terms)| !terms.contains('='));
            let (name, terms) =
                parts.ok_or_else(|| format!("fail to parse failpoint: bad failpoint {one:?}"))?;
            set(name, terms).map_err(|refused| format!("fail to set failpoint: {refused}"))?;
        }
        Ok(())
    }

    pub(super) fn set(name: &str, text: &str) -> Result<(), Refused> {
        let chain = terms::read(text).map_err(Refused::Terms)?;
        Ok(failpoints::set(name, text, chain)?)
    }

    pub async fn pass_in_task(name: &'static str) {
        let passed = tokio::task::spawn_blocking(move || failpoints::reach(name)).await;
        passed.expect("a failpoint ends the process and does not unwind");
    }

    /// What a peer sent, less its heartbeats if these are to be lost.
    pub fn without_heartbeats(mut messages: Vec<PeerMessage>) -> Vec<PeerMessage> {
        let is_heartbeat = |message: &PeerMessage| message.kind() == Some(MessageKind::Heartbeat);
        messages.retain(|m| !is_heartbeat(m) || failpoints::returned("raftDropHeartbeat").is_none());
        messages
    }
}
