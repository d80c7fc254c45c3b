// SPDX-License-Identifier: Apache-2.0
//! Which revisions are being read, so that nothing they need is thrown away meanwhile.
//!
//! Owns      the count of readers at each revision, and the floor: what only reads below it need is gone.
//! Holds     1. a hold is given only at or above the floor, and the floor rises above a hold only by force;
//!           2. who reads under a hold that is still intact at the end has missed nothing.
//! Never     looks at a clock: whoever purges decides how long it waits.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Debug)]
struct State {
    floor: i64,
    readers: BTreeMap<i64, usize>,
}

/// The holds of one store.
#[derive(Debug)]
pub(crate) struct Holds(Mutex<State>);

impl Holds {
    pub(crate) fn new(floor: i64) -> Arc<Holds> {
        Arc::new(Holds(Mutex::new(State { floor, readers: BTreeMap::new() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no one panics while counting readers")
    }

    /// A hold on what a read at `main` needs; `None` if that is gone.
    pub(crate) fn take(self: &Arc<Holds>, main: i64) -> Option<RevisionHold> {
        let mut state = self.state();
        if main < state.floor {
            return None;
        }
        *state.readers.entry(main).or_insert(0) += 1;
        drop(state);
        Some(RevisionHold { holds: Arc::clone(self), main })
    }

    /// Raises the floor towards `to`, as far as the holds allow, and gives it.
    pub(crate) fn raise(&self, to: i64) -> i64 {
        let mut state = self.state();
        let oldest = state.readers.keys().next().copied().unwrap_or(i64::MAX);
        state.floor = state.floor.max(to.min(oldest));
        state.floor
    }

    /// Raises the floor to `to`, breaking the holds below it.
    pub(crate) fn force(&self, to: i64) {
        let mut state = self.state();
        state.floor = state.floor.max(to);
    }
}

/// Keeps what a read at one revision needs for as long as it lives.
pub struct RevisionHold {
    holds: Arc<Holds>,
    main: i64,
}

impl RevisionHold {
    /// The main revision that is held.
    pub fn main(&self) -> i64 {
        self.main
    }

    /// Whether all that a read at the held revision needs is still there. A purge that waited long
    /// enough breaks a hold.
    pub fn is_intact(&self) -> bool {
        self.holds.state().floor <= self.main
    }
}

impl Clone for RevisionHold {
    fn clone(&self) -> Self {
        *self.holds.state().readers.entry(self.main).or_insert(0) += 1;
        RevisionHold { holds: Arc::clone(&self.holds), main: self.main }
    }
}

impl Drop for RevisionHold {
    fn drop(&mut self) {
        let mut state = self.holds.state();
        let readers = state.readers.get_mut(&self.main).expect("a hold is counted until it is dropped");
        *readers -= 1;
        if *readers == 0 {
            state.readers.remove(&self.main);
        }
    }
}

impl fmt::Debug for RevisionHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RevisionHold({})", self.main)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_waits_for_the_oldest_hold_unless_forced() {
        let holds = Holds::new(-1);
        let five = holds.take(5).expect("above the floor");
        let also_five = five.clone();
        assert_eq!(holds.raise(9), 5);
        drop(five);
        assert_eq!(holds.raise(9), 5, "its clone still holds");
        assert!(also_five.is_intact());
        holds.force(7);
        assert!(!also_five.is_intact());
        assert!(holds.take(6).is_none());
        drop(also_five);
        assert_eq!(holds.raise(9), 9);
        assert_eq!(holds.raise(3), 9, "it never sinks");
    }
}
