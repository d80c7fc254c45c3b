// SPDX-License-Identifier: Apache-2.0
//! The members of one cluster to be measured.
//!
//! Owns      which member leads, and what is done to one of them: killed, paused, started again.
//! Holds     1. all members have the same timeouts, told to them and not left to a default;
//!           2. whatever happens, all are ended when the value is dropped.
//! Never     puts a load on them.

use std::path::Path;
use std::time::{Duration, Instant};

use cairn_proto::etcdserverpb::{StatusRequest, StatusResponse};
use prost::Message;

use crate::client::{Connection, Endpoint};
use crate::reply;
use crate::request::frame_of;
use crate::server::{Cpus, Place, Server, Spec};

pub const ELECTION: Duration = Duration::from_secs(1);
pub const HEARTBEAT: Duration = Duration::from_millis(100);
const STATUS_PATH: &str = "/etcdserverpb.Maintenance/Status";
/// From a change to all members agreeing on a leader.
const AGREE_MAX: Duration = Duration::from_secs(60);
const ANSWER_MAX: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(20);

pub struct Members {
    spec: Spec,
    cpus: Cpus,
    places: Vec<Place>,
    /// None while it is down.
    servers: Vec<Option<Server>>,
}

impl Members {
    /// Starts as many in empty directories, and waits until all answer.
    ///
    /// # Errors
    /// One cannot be started, ends, or stays silent.
    pub async fn start(
        spec: &Spec,
        parent: &Path,
        count: usize,
        flags: &[String],
        cpus: Cpus,
    ) -> Result<Members, String> {
        let mut places = Place::of_members(parent, count)?;
        let timeouts = [
            format!("--election-timeout={}", ELECTION.as_millis()),
            format!("--heartbeat-interval={}", HEARTBEAT.as_millis()),
        ];
        for place in &mut places {
            place.give(timeouts.iter().chain(flags).cloned());
        }
        let servers = places.iter().map(|place| Server::start(spec, place, cpus).map(Some));
        let servers = servers.collect::<Result<Vec<_>, _>>()?;
        let mut members = Members { spec: spec.clone(), cpus, places, servers };
        members.ready().await?;
        Ok(members)
    }

    /// Waits until each that runs has answered a linearizable read: it has all that was acknowledged before.
    ///
    /// # Errors
    /// One has ended, or does not answer in time.
    pub async fn ready(&mut self) -> Result<(), String> {
        for server in self.servers.iter_mut().flatten() {
            server.ready().await?;
        }
        Ok(())
    }

    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.places.iter().map(Place::endpoint).collect()
    }

    /// Those of a member that runs.
    pub fn pid(&self, member: usize) -> Option<u32> {
        self.servers[member].as_ref().map(Server::pid)
    }

    /// Of all that run.
    pub fn pids(&self) -> Vec<u32> {
        self.servers.iter().flatten().map(Server::pid).collect()
    }

    /// Which member leads, once all that run name the same one.
    ///
    /// # Errors
    /// They do not agree in time.
    pub async fn leader(&self) -> Result<usize, String> {
        let begin = Instant::now();
        while begin.elapsed() < AGREE_MAX {
            if let Some(leader) = self.agreed().await {
                return Ok(leader);
            }
            tokio::time::sleep(POLL).await;
        }
        Err(format!("{}: no leader that all agree on after {} s", self.spec.name, AGREE_MAX.as_secs()))
    }

    async fn agreed(&self) -> Option<usize> {
        let mut leader = None;
        let mut named = None;
        for (at, place) in self.places.iter().enumerate() {
            if self.servers[at].is_none() {
                continue;
            }
            let status = tokio::time::timeout(ANSWER_MAX, status(&place.endpoint())).await.ok()??;
            if status.leader == 0 || *named.get_or_insert(status.leader) != status.leader {
                return None;
            }
            if status.header?.member_id == status.leader {
                leader = Some(at);
            }
        }
        leader
    }

    /// Ends a member as a crash would.
    ///
    /// # Errors
    /// It ended by itself before.
    pub fn kill(&mut self, member: usize) -> Result<(), String> {
        self.servers[member].take().ok_or_else(|| self.down(member))?.kill()
    }

    /// Starts a member that was killed, and does not wait for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_again(&mut self, member: usize) -> Result<&mut Server, String> {
        let server = Server::start(&self.spec, &self.places[member], self.cpus)?;
        Ok(self.servers[member].insert(server))
    }

    /// # Errors
    /// It is down.
    pub fn pause(&self, member: usize) -> Result<(), String> {
        self.running(member)?.pause()
    }

    /// # Errors
    /// It is down.
    pub fn resume(&self, member: usize) -> Result<(), String> {
        self.running(member)?.resume()
    }

    fn running(&self, member: usize) -> Result<&Server, String> {
        self.servers[member].as_ref().ok_or_else(|| self.down(member))
    }

    fn down(&self, member: usize) -> String {
        format!("{}: member {member} is down", self.spec.name)
    }

    /// Ends all.
    ///
    /// # Errors
    /// One ended by itself before.
    pub fn end(self) -> Result<(), String> {
        self.servers.into_iter().flatten().try_for_each(Server::kill)
    }
}

async fn status(endpoint: &Endpoint) -> Option<StatusResponse> {
    let connection = Connection::open(endpoint).await.ok()?;
    let answer = connection.caller(STATUS_PATH).call(frame_of(&StatusRequest {})).await.ok()?;
    StatusResponse::decode(reply::message(&answer).ok()?).ok()
}
