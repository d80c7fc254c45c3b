// SPDX-License-Identifier: Apache-2.0
//! Typed clients of one server, on one connection.
//!
//! Owns      the limits of the connection: none that a server's answer could hit.
//! Never     retries: what a server answers is what the test sees.

use std::time::Duration;

use cairn_proto::etcdserverpb::auth_client::AuthClient;
use cairn_proto::etcdserverpb::cluster_client::ClusterClient;
use cairn_proto::etcdserverpb::kv_client::KvClient;
use cairn_proto::etcdserverpb::lease_client::LeaseClient;
use cairn_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use cairn_proto::etcdserverpb::watch_client::WatchClient;
use cairn_proto::health::health_client::HealthClient;
use cairn_proto::v3electionpb::election_client::ElectionClient;
use cairn_proto::v3lockpb::lock_client::LockClient;
use tonic::transport::{Channel, Endpoint};

/// Every service of one server.
#[derive(Clone, Debug)]
pub struct Client {
    pub channel: Channel,
    pub kv: KvClient<Channel>,
    pub watch: WatchClient<Channel>,
    pub lease: LeaseClient<Channel>,
    pub cluster: ClusterClient<Channel>,
    pub maintenance: MaintenanceClient<Channel>,
    pub auth: AuthClient<Channel>,
    pub lock: LockClient<Channel>,
    pub election: ElectionClient<Channel>,
    pub health: HealthClient<Channel>,
}

/// How long a lazy client may take to connect before its request fails.
const CONNECT: Duration = Duration::from_millis(500);

fn endpoint(url: &str) -> Result<Endpoint, tonic::transport::Error> {
    let window = 4 << 20;
    let endpoint = Endpoint::from_shared(url.to_owned())?;
    Ok(endpoint.tcp_nodelay(true).initial_stream_window_size(window).initial_connection_window_size(window))
}

macro_rules! on {
    ($channel:expr, $client:ident) => {
        $client::new($channel.clone())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX)
    };
}

impl Client {
    /// Connects to `http://…`.
    ///
    /// # Errors
    /// If nothing answers there.
    pub async fn connect(url: &str) -> Result<Client, tonic::transport::Error> {
        Ok(Client::of(endpoint(url)?.connect().await?))
    }

    /// One that connects when it is used, and again whenever it has to.
    ///
    /// # Panics
    /// If it is not a URL.
    pub fn lazy(url: &str) -> Client {
        Client::of(endpoint(url).expect("a URL").connect_timeout(CONNECT).connect_lazy())
    }

    fn of(channel: Channel) -> Client {
        Client {
            kv: on!(channel, KvClient),
            watch: on!(channel, WatchClient),
            lease: on!(channel, LeaseClient),
            cluster: on!(channel, ClusterClient),
            maintenance: on!(channel, MaintenanceClient),
            auth: on!(channel, AuthClient),
            lock: on!(channel, LockClient),
            election: on!(channel, ElectionClient),
            health: on!(channel, HealthClient),
            channel,
        }
    }
}
