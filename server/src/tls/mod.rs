// SPDX-License-Identifier: Apache-2.0
//! TLS of the listeners.
//!
//! Owns      [`Tls`], one for clients and one for peers: what handshakes are made with, loaded anew when a file
//!           has changed.
//! Holds     1. a handshake uses what the files held when it began (TL-3), unless that does not fit together:
//!              then what was loaded before stays in force, and a line says so;
//!           2. a connection that stands is not touched by a change.
//! Never     writes a key anywhere but into the file that was asked for.

pub mod accept;
mod clients;
pub mod expiry;
pub mod load;
pub mod made;
mod refused;
pub mod settings;
pub mod x509;

use crate::{files::Stamps, log::Log};
use load::{Loaded, TlsError};
use settings::Settings;
use std::sync::{Arc, Mutex, PoisonError};

/// See the module.
pub struct Tls {
    settings: Settings,
    log: Log,
    state: Mutex<State>,
}

struct State {
    /// Of every file, before it was read.
    stamps: Stamps,
    loaded: Arc<Loaded>,
}

impl Tls {
    /// Loads what the settings name.
    pub fn open(settings: Settings, log: Log) -> Result<Tls, TlsError> {
        let stamps = stamps(&settings);
        let loaded = Arc::new(load::load(&settings)?);
        Ok(Tls { settings, log, state: Mutex::new(State { stamps, loaded }) })
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What the files hold now. It looks at each of them: not for a thread that may not wait.
    pub fn now(&self) -> Arc<Loaded> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.settings);
        if stamps != state.stamps {
            state.stamps = stamps;
            let file = self.settings.cert.display().to_string();
            match load::load(&self.settings) {
                Ok(loaded) => {
                    state.loaded = Arc::new(loaded);
                    self.log.info("loaded changed TLS files", &[("cert", file.into())]);
                }
                Err(why) => self.log.warn(
                    "cannot load changed TLS files; those loaded before stay in force",
                    &[("cert", file.into()), ("error", why.to_string().into())],
                ),
            }
        }
        state.loaded.clone()
    }
}

fn stamps(settings: &Settings) -> Stamps {
    Stamps::of(load::files(settings))
}
