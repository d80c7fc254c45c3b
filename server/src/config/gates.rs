// SPDX-License-Identifier: Apache-2.0
//! Feature gates: `--feature-gates=A=true,B=false` (FL-5).
//!
//! Owns      their syntax, the two gates that set all of a stage, and which of them reach the daemon.
//! Never     decides what a gate does.

use super::{
    ConfigError,
    flags::{Class, GATES},
    given::Remark,
    value,
};
use crate::member::AtStart;
use std::collections::BTreeMap;

/// The gates that have an effect here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gates {
    /// The health service says NOT_SERVING during a defragmentation.
    pub stop_grpc_on_defrag: bool,
    /// Remaining times of leases go through the log. On by default, unlike in etcd.
    pub lease_checkpoint: bool,
    /// Hashes that compactions left are compared among members. On by default, unlike in etcd.
    pub compare_compactions: bool,
    /// On by default, unlike in etcd, with more care for whom it keeps from starting.
    pub compare_at_start: AtStart,
}

impl Gates {
    /// Reads the flag, and warns of the gates that have no effect.
    pub fn new(text: &str) -> Result<(Gates, Vec<Remark>), ConfigError> {
        let given = parse(text)?;
        let stage_of = |stage: &str| if stage == "alpha" { "AllAlpha" } else { "AllBeta" };
        let value = |name: &str| {
            let gate = GATES.iter().find(|gate| gate.name == name).expect("a gate of the table");
            given.get(name).or_else(|| given.get(stage_of(gate.stage))).copied()
        };
        let asked_for_persist = value("LeaseCheckpointPersist").unwrap_or(false);
        if asked_for_persist && value("LeaseCheckpoint") == Some(false) {
            return Err(ConfigError(
                "--feature-gates: LeaseCheckpointPersist=true needs LeaseCheckpoint=true".into(),
            ));
        }
        let gates = Gates {
            stop_grpc_on_defrag: value("StopGRPCServiceOnDefrag").unwrap_or(false),
            lease_checkpoint: value("LeaseCheckpoint").unwrap_or(true),
            compare_compactions: value("CompactHashCheck").unwrap_or(true),
            compare_at_start: match value("InitialCorruptCheck") {
                None => AtStart::Majority,
                Some(true) => AtStart::Anyone,
                Some(false) => AtStart::Never,
            },
        };
        let remarks =
            GATES.iter().filter(|gate| given.contains_key(gate.name)).filter_map(|gate| match gate.class {
                Class::NoEffect(why) => Some(Remark {
                    warning: true,
                    message: "feature gate has no effect",
                    field: "feature-gate",
                    value: format!("{}: {why}", gate.name),
                }),
                _ => None,
            });
        Ok((gates, remarks.collect()))
    }
}

fn parse(text: &str) -> Result<BTreeMap<&'static str, bool>, ConfigError> {
    let mut given = BTreeMap::new();
    for entry in value::parse_list(text).iter().filter(|entry| !entry.is_empty()) {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        let name = name.trim();
        let Some(gate) = GATES.iter().find(|gate| gate.name == name) else {
            return Err(ConfigError(format!("--feature-gates: unrecognized feature gate: {name}")));
        };
        let value = value::parse_bool(value.trim()).ok_or_else(|| {
            ConfigError(format!("--feature-gates: invalid value of {name}: {entry}, it takes true or false"))
        })?;
        given.insert(gate.name, value);
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    // rule: FL-5
    #[test]
    fn gates_are_named_one_by_one_or_by_stage() {
        let gates = |text: &str| Gates::new(text).map(|(gates, remarks)| (gates, remarks.len()));
        let default = Gates {
            stop_grpc_on_defrag: false,
            lease_checkpoint: true,
            compare_compactions: true,
            compare_at_start: AtStart::Majority,
        };
        assert_eq!(gates(""), Ok((default, 0)));
        assert_eq!(
            gates("LeaseCheckpoint=false, CompactHashCheck=false,PriorityRequest=true"),
            Ok((Gates { lease_checkpoint: false, compare_compactions: false, ..default }, 1))
        );
        assert_eq!(
            gates("AllAlpha=true,LeaseCheckpoint=false,LeaseCheckpointPersist=false"),
            Ok((
                Gates {
                    stop_grpc_on_defrag: true,
                    lease_checkpoint: false,
                    compare_at_start: AtStart::Anyone,
                    ..default
                },
                1
            ))
        );
        for (text, why) in [
            ("Frob=true", "--feature-gates: unrecognized feature gate: Frob"),
            ("AllAlpha", "--feature-gates: invalid value of AllAlpha: AllAlpha, it takes true or false"),
            (
                "LeaseCheckpoint=false,LeaseCheckpointPersist=true",
                "--feature-gates: LeaseCheckpointPersist=true needs LeaseCheckpoint=true",
            ),
        ] {
            assert_eq!(gates(text), Err(ConfigError(why.into())));
        }
    }
}
