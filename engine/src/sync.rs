// SPDX-License-Identifier: Apache-2.0
//! What the parts without a lock are made of: the standard library's, or loom's in the tests that try every order.
//!
//! Owns      the choice between the two, and a cell that is set once for loom, which has none.
//! Holds     outside those tests, these are the standard ones under their own names.
//! Never     adds an order that the standard ones do not promise: what loom finds here would be wrong there.

#[cfg(not(all(test, loom)))]
pub(crate) use std::sync::{
    OnceLock,
    atomic::{AtomicU64, AtomicUsize},
};

#[cfg(all(test, loom))]
pub(crate) use self::once::OnceLock;
#[cfg(all(test, loom))]
pub(crate) use loom::sync::atomic::{AtomicU64, AtomicUsize};

#[cfg(all(test, loom))]
mod once {
    use std::fmt;

    use loom::sync::atomic::{AtomicBool, Ordering};
    use loom::sync::{Mutex, MutexGuard};

    /// As `std::sync::OnceLock`: whoever sees that it is set sees what it was set to, and no more is promised. What
    /// it was set to is never freed: a model is small.
    pub(crate) struct OnceLock<T: 'static> {
        is_set: AtomicBool,
        value: Mutex<Option<&'static T>>,
    }

    impl<T> OnceLock<T> {
        pub(crate) fn new() -> OnceLock<T> {
            OnceLock { is_set: AtomicBool::new(false), value: Mutex::new(None) }
        }

        fn value(&self) -> MutexGuard<'_, Option<&'static T>> {
            self.value.lock().expect("no one panics while setting a cell")
        }

        pub(crate) fn get(&self) -> Option<&T> {
            if self.is_set.load(Ordering::Acquire) { *self.value() } else { None }
        }

        pub(crate) fn set(&self, value: T) -> Result<(), T> {
            let mut slot = self.value();
            if slot.is_some() {
                return Err(value);
            }
            *slot = Some(Box::leak(Box::new(value)));
            self.is_set.store(true, Ordering::Release);
            Ok(())
        }

        pub(crate) fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
            if let Some(value) = self.get() {
                return value;
            }
            let mut slot = self.value();
            let value = *slot.get_or_insert_with(|| Box::leak(Box::new(init())));
            self.is_set.store(true, Ordering::Release);
            value
        }
    }

    impl<T> fmt::Debug for OnceLock<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("OnceLock")
        }
    }
}
