// SPDX-License-Identifier: Apache-2.0
//! The network between the members of one run.
//!
//! Owns      the messages under way, and which links are cut.
//! Holds     1. a message is lost, doubled or overtaken only as the seed has it;
//!           2. a proposal comes once at most: members send theirs over streams, which double nothing.
//! Never     looks into a message further than that.

use crate::swarm::NetworkOptions;
use cairn_core::replica::peer::{MessageKind, PeerMessage};
use cairn_engine::sim::SplitMix;
use std::collections::{BTreeSet, VecDeque};

/// Messages under way at most; the oldest go first.
const FLIGHTS_MAX: usize = 4_000;

/// A message on its way, from one place among the members to another.
pub struct Flight {
    pub from: usize,
    pub to: usize,
    pub message: PeerMessage,
}

/// See the module.
pub struct Network {
    options: NetworkOptions,
    flights: VecDeque<Flight>,
    cut: BTreeSet<(usize, usize)>,
}

impl Network {
    pub fn new(options: NetworkOptions) -> Network {
        Network { options, flights: VecDeque::new(), cut: BTreeSet::new() }
    }

    /// True if the message is on its way, false if it is lost and the sender is told.
    pub fn send(&mut self, rng: &mut SplitMix, flight: Flight) -> bool {
        if self.is_cut(flight.from, flight.to) {
            return !self.options.tells;
        }
        if self.options.lost > 0 && rng.one_in(self.options.lost) {
            return true;
        }
        let once = flight.message.kind() == Some(MessageKind::Propose);
        if !once && self.options.doubled > 0 && rng.one_in(self.options.doubled) {
            let Flight { from, to, ref message } = flight;
            self.flights.push_back(Flight { from, to, message: message.clone() });
        }
        self.flights.push_back(flight);
        if self.flights.len() > FLIGHTS_MAX {
            self.flights.pop_front();
        }
        true
    }

    /// The next message to arrive: any, or the oldest of any link.
    pub fn next(&mut self, rng: &mut SplitMix) -> Option<Flight> {
        while !self.flights.is_empty() {
            let mut at = rng.index(self.flights.len());
            if !self.options.reordered {
                let link = (self.flights[at].from, self.flights[at].to);
                let same = |flight: &Flight| (flight.from, flight.to) == link;
                at = self.flights.iter().position(same).expect("one is of this link");
            }
            let flight = self.flights.remove(at).expect("it is there");
            if !self.is_cut(flight.from, flight.to) {
                return Some(flight);
            }
        }
        None
    }

    /// A member went down: what was on its way to it is lost.
    pub fn forget(&mut self, to: usize) {
        self.flights.retain(|flight| flight.to != to);
    }

    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Cuts some links of a network of so many members, in one direction or both, and says which.
    pub fn partition(&mut self, rng: &mut SplitMix, members: usize) -> String {
        self.cut.clear();
        let all = |one: usize| (0..members).filter(move |other| *other != one);
        let one = rng.index(members);
        let what = match rng.below(7) {
            0 | 1 => "healed".to_owned(),
            2 => {
                self.cut.extend(all(one).flat_map(|other| [(one, other), (other, one)]));
                format!("{one} is alone")
            }
            3 => {
                self.cut.extend(all(one).map(|other| (one, other)));
                format!("nobody hears {one}")
            }
            4 => {
                self.cut.extend(all(one).map(|other| (other, one)));
                format!("{one} hears nobody")
            }
            5 => {
                // Each is on one of two sides, as the bits of a number say.
                let sides = rng.next_u64();
                let differ = |a: usize, b: usize| (sides >> a ^ sides >> b) & 1 == 1;
                let pairs = (0..members).flat_map(|a| (0..members).map(move |b| (a, b)));
                self.cut.extend(pairs.filter(|(a, b)| differ(*a, *b)));
                "two sides".to_owned()
            }
            _ => {
                let other = (one + 1) % members;
                self.cut.extend([(one, other), (other, one)]);
                format!("{one} and {other} do not hear each other")
            }
        };
        let cut = &self.cut;
        self.flights.retain(|flight| !cut.contains(&(flight.from, flight.to)));
        what
    }

    /// No more faults.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.options = NetworkOptions { lost: 0, doubled: 0, reordered: false, tells: true };
    }
}
