// SPDX-License-Identifier: Apache-2.0
//! How much may be on its way through the log at once.
//!
//! Owns      the bytes of requests that were proposed and not yet answered.
//! Holds     1. a gap of more than [`GAP_MAX`] entries between committed and applied refuses at once
//!              (LIMIT-4): the state does not keep up, and waiting would hide it;
//!           2. bytes beyond [`BYTES_MAX`] wait in the order in which they came, so every queue behind the
//!              proposal is bounded by them.
//! Never     counts the member's own few proposals.

use cairn_core::Refusal;
use cairn_proto::errors;
use tokio::sync::Semaphore;

/// Entries between committed and applied (LIMIT-4).
const GAP_MAX: u64 = 5000;
/// Bytes of requests between proposal and answer.
const BYTES_MAX: usize = 64 << 20;
/// What a request counts for at least; the semaphore counts in these.
const UNIT: usize = 1 << 10;

pub(super) struct Admission {
    units: Semaphore,
}

impl Default for Admission {
    fn default() -> Admission {
        Admission { units: Semaphore::new(BYTES_MAX / UNIT) }
    }
}

impl Admission {
    /// Takes a place for a request of `bytes`, in front of a state that is `gap` entries behind; gives back
    /// what [`Admission::leave`] is to be told.
    pub async fn enter(&self, bytes: usize, gap: u64) -> Result<u32, Refusal> {
        if gap > GAP_MAX {
            return Err(errors::REQUEST_TOO_MANY_REQUESTS);
        }
        let units = (bytes / UNIT + 1).min(BYTES_MAX / UNIT) as u32;
        match self.units.acquire_many(units).await {
            Ok(permit) => {
                permit.forget();
                Ok(units)
            }
            Err(_) => Err(errors::STOPPED),
        }
    }

    pub fn leave(&self, units: u32) {
        self.units.add_permits(units as usize);
    }

    /// Whoever waits is refused, and so is everyone after.
    pub fn close(&self) {
        self.units.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // rule: LIMIT-4, RT-6, SR-7
    #[tokio::test]
    async fn a_state_that_is_more_than_five_thousand_entries_behind_refuses() {
        let admission = Admission::default();
        assert_eq!(admission.enter(1, GAP_MAX).await, Ok(1));
        let refused = admission.enter(1, GAP_MAX + 1).await.expect_err("the gap is too wide");
        assert_eq!((refused.code, refused.text), (2, "etcdserver: too many requests"));
    }

    #[tokio::test]
    async fn bytes_beyond_the_bound_wait_until_others_have_left() {
        let admission = Admission::default();
        let first = admission.enter(BYTES_MAX, 0).await.expect("all there is");
        let second = admission.enter(1, 0);
        tokio::pin!(second);
        assert!(now(&mut second).await.is_none(), "nothing is left");
        admission.leave(first);
        assert_eq!(second.await, Ok(1));
    }

    /// What a future has to say now.
    async fn now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
