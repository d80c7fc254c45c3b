// SPDX-License-Identifier: Apache-2.0
//! SIGTERM and SIGINT, and SIGXFSZ.
//!
//! Owns      what the first and the second of them do.
//! Holds     1. before [`Signals::install`] they end the process at once, as by default (SD-2);
//!           2. the second one ends it at once too, whatever the first one is waiting for;
//!           3. a write beyond `ulimit -f` is an error of that write, which names its file, and ends nothing by itself.
//! Never     touches the member.

use signal_hook::{
    consts::{SIGINT, SIGTERM, SIGXFSZ},
    flag, iterator,
    low_level::emulate_default_handler,
};
use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
    thread,
};
use tokio::sync::oneshot;

/// A signal that asked for a clean end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signal(i32);

impl Signal {
    /// As Go prints it.
    pub fn name(self) -> &'static str {
        if self.0 == SIGTERM { "terminated" } else { "interrupt" }
    }

    /// Ends the process by this signal, so that its parent sees why. Init, for which the kernel ignores the
    /// default action, ends with status 0 instead (SD-3).
    pub fn end_process(self) -> ! {
        if std::process::id() != 1 {
            // Returns only for a signal without a default action.
            drop(emulate_default_handler(self.0));
        }
        std::process::exit(0)
    }
}

/// From now on the first signal is told, and the second one ends the process.
pub fn install() -> io::Result<oneshot::Receiver<Signal>> {
    // Nobody looks at it: the write itself says what happened.
    flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    let mut signals = iterator::Signals::new([SIGTERM, SIGINT])?;
    let (first, told) = oneshot::channel();
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut arriving = signals.forever();
        if let Some(signal) = arriving.next() {
            // Nobody listens any more when the process is ending already.
            let _unheard = first.send(Signal(signal));
        }
        if let Some(signal) = arriving.next() {
            Signal(signal).end_process();
        }
    })?;
    Ok(told)
}
