// SPDX-License-Identifier: Apache-2.0
//! Random users, roles, grants and logins, and requests under each, told to two servers.
//!
//! Owns      the run: ask both, judge the two answers, keep both in the same state.
//! Holds     1. the same seed gives the same requests, as long as the reference answers alike;
//!           2. an answer differs only by a listed rule; what the reference then did and the other refused is
//!              done there by root, and must come to the same.
//! Never     compares tokens: each server has its own, in the same slots.

mod ask;
mod differences;
mod generate;

use std::collections::BTreeMap;
use std::fmt;

pub use ask::{Answer, Ask, By};
pub use differences::{Differences, LISTED};
use generate::Generator;

use crate::answers::Failure;
use crate::client::Client;

/// Root's password, which no request changes.
pub const ROOT_PASSWORD: &str = "root password";

/// One of the two servers, and the tokens that it gave.
pub struct Side {
    client: Client,
    tokens: Vec<String>,
}

impl Side {
    pub fn new(client: Client) -> Side {
        Side { client, tokens: vec![String::new(); generate::SLOTS] }
    }

    async fn ask(&mut self, ask: &Ask, by: By) -> Answer {
        let token = match by {
            By::Nobody => None,
            By::Garbage => Some("garbage.1"),
            By::Slot(slot) => Some(&*self.tokens[slot]).filter(|token| !token.is_empty()),
        };
        let (answer, token) = ask.send(&self.client, token).await;
        if let (Ask::Login { slot, .. }, Some(token)) = (ask, token) {
            self.tokens[*slot] = token;
        }
        answer
    }

    /// Asks as root, whoever that takes.
    async fn ask_as_root(&mut self, ask: &Ask) -> Answer {
        let login =
            Ask::Login { user: "root".into(), password: ROOT_PASSWORD.into(), slot: generate::SPARE_SLOT };
        let answer = self.ask(&login, By::Nobody).await;
        assert!(answer.is_ok(), "root cannot log in: {answer:?}");
        self.ask(ask, By::Slot(generate::SPARE_SLOT)).await
    }
}

/// What a run did.
#[derive(Default, Debug)]
pub struct Summary {
    pub requests: usize,
    pub answered: usize,
    pub refusals: BTreeMap<Failure, usize>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} requests, {} answered", self.requests, self.answered)?;
        for (failure, times) in &self.refusals {
            writeln!(f, "  {times:>7} times code {} {}", failure.code, failure.text)?;
        }
        Ok(())
    }
}

/// Asks both `count` times.
///
/// # Errors
/// The first two answers that differ, and what went before.
pub async fn run(
    seed: u64,
    count: usize,
    reference: &mut Side,
    subject: &mut Side,
    differences: &mut Differences,
    summary: &mut Summary,
) -> Result<(), String> {
    const BEFORE: usize = 15;
    let mut generator = Generator::new(seed);
    let mut before: Vec<String> = Vec::new();
    for index in 0..count {
        let (ask, by) = generator.next();
        let theirs = reference.ask(&ask, by).await;
        let mut ours = subject.ask(&ask, by).await;
        let mut listed = None;
        if ours != theirs {
            listed = differences.rule(&ask, &theirs, &ours);
            if listed.is_some() && theirs.is_ok() && ours.is_err() {
                ours = subject.ask_as_root(&ask).await;
            }
        }
        // What the reference refused too, in its own words, or what does nothing, is settled by the list.
        let settled = ours == theirs || listed.is_some_and(|listed| theirs.is_err() || !listed.acts);
        if !settled {
            let before = before.join("\n");
            return Err(format!(
                "CAIRN_SEED={seed} request {index}: the answers differ\n{before}\n{ask:?} by {by:?}\n\
                 listed    {listed:?}\nreference {theirs:?}\nsubject   {ours:?}"
            ));
        }
        summary.requests += 1;
        match &theirs {
            Ok(_) => summary.answered += 1,
            Err(failure) => *summary.refusals.entry(failure.clone()).or_default() += 1,
        }
        generator.observe(&ask, theirs.is_ok());
        before.push(format!("{ask:?} by {by:?} -> {}", if theirs.is_ok() { "ok" } else { "refused" }));
        if before.len() > BEFORE {
            before.remove(0);
        }
    }
    Ok(())
}
