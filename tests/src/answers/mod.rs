// SPDX-License-Identifier: Apache-2.0
//! The same requests to two servers, one by one, and whole answers compared.
//!
//! Owns      the run: send, expect, compare, count.
//! Holds     1. the same seed gives the same requests, as long as the reference answers alike;
//!           2. an answer differs from the reference's only as [`Known`] predicts, field by field.
//! Never     looks at one server's answer to decide what the other may say, except through the reference.

mod answer;
mod differences;
mod edges;
mod generate;

use std::collections::BTreeMap;
use std::fmt;

pub use answer::{Answer, Failure, Reply, Request, mask};
pub use differences::Known;
pub use generate::Generator;

use crate::client::Client;

/// What a run did.
#[derive(Default, Debug)]
pub struct Summary {
    pub requests: usize,
    /// Kind of request → (answered, refused).
    pub kinds: BTreeMap<&'static str, (usize, usize)>,
    /// Code and text of a refusal → how often.
    pub refusals: BTreeMap<Failure, usize>,
}

/// The first answer that is not as expected.
pub struct Mismatch {
    pub seed: u64,
    pub index: usize,
    pub request: Request,
    pub expected: Answer,
    pub actual: Answer,
    /// What went before, newest last.
    pub before: Vec<Request>,
}

/// Sends `count` requests of `seed` to both.
///
/// # Errors
/// The first mismatch.
///
/// # Panics
/// If the reference stops answering.
pub async fn run(
    seed: u64,
    count: usize,
    reference: &Client,
    subject: &Client,
    known: &mut Known,
    summary: &mut Summary,
) -> Result<(), Box<Mismatch>> {
    let mut generator = Generator::new(seed);
    let mut before = Vec::new();
    for index in 0..count {
        let request = generator.next();
        let (ours, theirs) = tokio::join!(request.send(subject), request.send(reference));
        assert!(
            !answer::is_transport_loss(&theirs),
            "the reference stopped at request {index} {request}: {theirs:?}"
        );
        let expected = known.expect(&request, &theirs);
        if ours != expected {
            return Err(Box::new(Mismatch { seed, index, request, expected, actual: ours, before }));
        }
        summary.count(&request, &theirs);
        generator.observe(&request, &theirs);
        before.push(request);
        if before.len() > Mismatch::BEFORE {
            before.remove(0);
        }
    }
    Ok(())
}

impl Summary {
    fn count(&mut self, request: &Request, answer: &Answer) {
        self.requests += 1;
        let kind = self.kinds.entry(request.kind()).or_default();
        match answer {
            Ok(_) => kind.0 += 1,
            Err(failure) => {
                kind.1 += 1;
                *self.refusals.entry(failure.clone()).or_default() += 1;
            }
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} requests", self.requests)?;
        for (kind, (answered, refused)) in &self.kinds {
            writeln!(f, "  {kind:<11} {answered:>7} answered {refused:>6} refused")?;
        }
        for (failure, times) in &self.refusals {
            writeln!(f, "  {times:>7} times code {} {}", failure.code, failure.text)?;
        }
        Ok(())
    }
}

impl Mismatch {
    const BEFORE: usize = 12;
    /// Enough of a message to see what it is; big values are not printed whole.
    const SHOWN: usize = 4_000;
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = |text: String| text.chars().take(Mismatch::SHOWN).collect::<String>();
        writeln!(f, "CAIRN_SEED={} request {}: the answers differ", self.seed, self.index)?;
        for request in &self.before {
            writeln!(f, "before   {}", cut(request.to_string()))?;
        }
        writeln!(f, "request  {}", cut(self.request.to_string()))?;
        writeln!(f, "expected {}", cut(format!("{:?}", self.expected)))?;
        write!(f, "actual   {}", cut(format!("{:?}", self.actual)))
    }
}
