// SPDX-License-Identifier: Apache-2.0
//! With whom a member begins a cluster that it is not told of: by DNS, or by a cluster that keeps a register.
//!
//! Owns      which of the two is asked, and the check of what comes of it.
//! Holds     1. a member that has its data asks nobody (BO-1);
//!           2. whoever is found is judged as if the operator had named it: this member is among them, and all can be
//!              dialled.
//! Never     begins a cluster: `bootstrap` does.

pub mod service;
pub mod srv;

use crate::{
    config::{Config, ConfigError, check_members},
    log::Log,
};

/// Where others are found (BO-11).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Discovery {
    Srv(srv::Domain),
    Service(Box<service::Service>),
}

/// Why nobody is found, or not who is needed.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    #[error("{0}")]
    Srv(#[from] srv::SrvError),
    #[error("{0}")]
    Service(#[from] service::ServiceError),
    #[error("{0}")]
    Members(#[from] ConfigError),
}

/// The same configuration, with the members that are found.
///
/// # Errors
/// One line: why a cluster cannot be begun with them.
pub async fn complete(config: Config, log: &Log) -> Result<Config, DiscoveryError> {
    let Some(discovery) = &config.discovery else { return Ok(config) };
    if config.has_member() {
        let message = "discovery token is ignored since cluster already initialized; valid logs are found";
        log.warn(message, &[("data-dir", config.data_dir.display().to_string().into())]);
        return Ok(config);
    }
    let (members, cluster_token) = match discovery {
        Discovery::Srv(domain) => (srv::find(&config, domain, log).await?, config.cluster_token.clone()),
        // DI-3: the token keeps clusters apart.
        Discovery::Service(service) => (service::join(&config, service, log).await?, service.token.clone()),
    };
    let config = Config { cluster_token, ..config };
    let initial_cluster = check_members(&config, &members)?;
    Ok(Config { initial_cluster, ..config })
}
