// SPDX-License-Identifier: Apache-2.0
//! What a connection's two ends tell each other: whether requests are under way, whether any was answered since the
//! client's last ping, and what the connection is remembered for when it has ended.
//!
//! Owns      a counter and three flags.
//! Never     judges a ping or a flood: the frame meter does.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

#[derive(Default)]
pub struct Connection {
    active: AtomicUsize,
    answered: AtomicBool,
    /// Something was sent that is no refusal.
    served: AtomicBool,
    /// The meter ended it.
    condemned: AtomicBool,
}

impl Connection {
    /// Counts a request until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Relaxed);
        Active { connection: self.clone() }
    }

    pub fn is_idle(&self) -> bool {
        self.active.load(Relaxed) == 0
    }

    /// Whether something was sent since the last time this was asked.
    pub fn take_answered(&self) -> bool {
        self.answered.swap(false, Relaxed)
    }

    pub fn answered_with_message(&self) {
        if !self.served.load(Relaxed) {
            self.served.store(true, Relaxed);
        }
    }

    pub fn condemn(&self) {
        self.condemned.store(true, Relaxed);
    }

    /// Whether it gave its address a bad name: by what came over it, or by an early end before anything was served.
    pub fn was_abused(&self, early: bool) -> bool {
        self.condemned.load(Relaxed) || early && !self.served.load(Relaxed)
    }
}

/// A request under way.
pub struct Active {
    connection: Arc<Connection>,
}

impl Active {
    /// A part of the answer is on its way.
    pub fn answering(&self) {
        // Most often it is set already, and the line need not be taken from the other core.
        if !self.connection.answered.load(Relaxed) {
            self.connection.answered.store(true, Relaxed);
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.connection.active.fetch_sub(1, Relaxed);
    }
}
