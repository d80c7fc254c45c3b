// SPDX-License-Identifier: Apache-2.0
//! TLS of the listeners, and of connections to other members.
//!
//! Owns      [`Tls`], one for clients and one for peers, and [`Dial`]: what handshakes are made with, loaded anew when
//!           a file has changed.
//! Holds     1. a handshake uses what the files held when it began (TL-3), unless that does not fit together:
//!              then what was loaded before stays in force, and a line says so;
//!           2. a connection that stands is not touched by a change.
//! Never     writes a key anywhere but into the file that was asked for.

pub mod accept;
mod clients;
pub mod dial;
pub mod expiry;
pub mod gather;
mod judge;
pub mod load;
pub mod made;
pub mod refused;
mod servers;
pub mod settings;
pub mod x509;

use crate::{files::Stamps, log::Log};
use load::TlsError;
use settings::{Dialled, Settings};
use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};
use x509::Facts;

/// What the listeners of one kind shake hands with.
pub type Tls = Kept<Settings>;
/// What connections to other members are made with.
pub type Dial = Kept<Dialled>;

/// Where what handshakes are made with comes from.
pub trait Source {
    type Loaded: Clone;

    /// The files whose change is a reason to load anew; that of the certificate that is shown, if there is one, comes
    /// first.
    fn files(&self) -> Vec<&Path>;

    /// What it says.
    fn own(loaded: &Self::Loaded) -> Option<&Facts>;

    /// Reads them.
    ///
    /// # Errors
    /// If they cannot be read, or do not belong together.
    fn load(&self) -> Result<Self::Loaded, TlsError>;
}

/// See the module.
pub struct Kept<S: Source> {
    settings: S,
    log: Log,
    state: Mutex<State<S::Loaded>>,
}

struct State<L> {
    /// Of every file, before it was read.
    stamps: Stamps,
    loaded: L,
}

impl<S: Source> Kept<S> {
    /// Loads what the settings name.
    ///
    /// # Errors
    /// As [`Source::load`].
    pub fn open(settings: S, log: Log) -> Result<Kept<S>, TlsError> {
        let stamps = stamps(&settings);
        let loaded = settings.load()?;
        Ok(Kept { settings, log, state: Mutex::new(State { stamps, loaded }) })
    }

    pub fn settings(&self) -> &S {
        &self.settings
    }

    /// What the files hold now. It looks at each of them: not for a thread that may not wait.
    pub fn now(&self) -> S::Loaded {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.settings);
        if stamps != state.stamps {
            state.stamps = stamps;
            let files = self.settings.files();
            let files = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>();
            match self.settings.load() {
                Ok(loaded) => {
                    state.loaded = loaded;
                    self.log.info("loaded changed TLS files", &[("files", files.into())]);
                }
                Err(why) => self.log.warn(
                    "cannot load changed TLS files; those loaded before stay in force",
                    &[("files", files.into()), ("error", why.to_string().into())],
                ),
            }
        }
        state.loaded.clone()
    }
}

fn stamps(settings: &impl Source) -> Stamps {
    Stamps::of(settings.files().into_iter())
}
