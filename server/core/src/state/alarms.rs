// SPDX-License-Identifier: Apache-2.0
//! Which alarms are on, and what they forbid.
//!
//! Owns      the set of (member, type) pairs.
//! Holds     an alarm ends by an explicit order alone (ALARM-7); CORRUPT wins over NOSPACE (ALARM-6).
//! Never     raises one by itself: the member that finds a reason proposes it.

use crate::Refusal;
use bytes::Bytes;
use cairn_proto::{errors, etcdserverpb as pb};
use pb::AlarmType;
use std::collections::BTreeSet;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms {
    /// By type first, so that a look for one type is a range.
    active: BTreeSet<(i32, u64)>,
}

/// How an alarm is stored: type and member, both big-endian.
const KEY_BYTES: usize = 12;

impl Alarms {
    pub fn set(&mut self, member: u64, alarm: i32) {
        self.active.insert((alarm, member));
    }

    /// False if it was not on.
    pub fn clear(&mut self, member: u64, alarm: i32) -> bool {
        self.active.remove(&(alarm, member))
    }

    /// Whether one member's alarm is on.
    pub fn is_on(&self, member: u64, alarm: AlarmType) -> bool {
        self.active.contains(&(alarm as i32, member))
    }

    /// Whether any member's is.
    pub fn has(&self, alarm: AlarmType) -> bool {
        let alarm = alarm as i32;
        self.active.range((alarm, 0)..=(alarm, u64::MAX)).next().is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// Those of one type, or all for NONE (AL-2).
    pub fn list(&self, alarm: i32) -> Vec<pb::AlarmMember> {
        let all = alarm == AlarmType::None as i32;
        let matching = self.active.iter().filter(|(a, _)| all || *a == alarm);
        matching.map(|&(alarm, member_id)| pb::AlarmMember { member_id, alarm }).collect()
    }

    /// Whether a request may run: `grows` if it takes space, `writes` if it changes anything (ALARM-4 to
    /// ALARM-6).
    pub fn admit(&self, grows: bool) -> Result<(), Refusal> {
        if self.has(AlarmType::Corrupt) {
            Err(errors::CORRUPT)
        } else if grows && self.has(AlarmType::Nospace) {
            Err(errors::NO_SPACE)
        } else {
            Ok(())
        }
    }

    pub fn key(member: u64, alarm: i32) -> [u8; KEY_BYTES] {
        let mut key = [0; KEY_BYTES];
        key[..4].copy_from_slice(&alarm.to_be_bytes());
        key[4..].copy_from_slice(&member.to_be_bytes());
        key
    }

    /// Takes a stored alarm back; false if these are not the bytes of one.
    pub fn restore(&mut self, key: &Bytes) -> bool {
        let Ok(key) = <[u8; KEY_BYTES]>::try_from(&key[..]) else { return false };
        let (alarm, member) = key.split_at(4);
        let alarm = i32::from_be_bytes(alarm.try_into().expect("four bytes"));
        self.set(u64::from_be_bytes(member.try_into().expect("eight bytes")), alarm);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // rule: ALARM-4, ALARM-5, ALARM-6, ALARM-7
    #[test]
    fn nospace_forbids_growth_and_corrupt_forbids_writes() {
        let mut alarms = Alarms::default();
        assert_eq!(alarms.admit(true), Ok(()));
        alarms.set(7, AlarmType::Nospace as i32);
        alarms.set(8, AlarmType::Nospace as i32);
        assert_eq!(alarms.admit(true), Err(errors::NO_SPACE));
        assert_eq!(alarms.admit(false), Ok(()));
        alarms.set(7, AlarmType::Corrupt as i32);
        assert_eq!((alarms.admit(true), alarms.admit(false)), (Err(errors::CORRUPT), Err(errors::CORRUPT)));
        assert!(alarms.clear(7, AlarmType::Corrupt as i32));
        assert!(!alarms.clear(7, AlarmType::Corrupt as i32));
        assert!(alarms.clear(7, AlarmType::Nospace as i32));
        assert_eq!(alarms.admit(true), Err(errors::NO_SPACE), "the other member's is still on");
    }

    // rule: AL-2
    #[test]
    fn alarms_are_listed_by_type_and_come_back_from_their_keys() {
        let mut alarms = Alarms::default();
        alarms.set(u64::MAX, AlarmType::Nospace as i32);
        alarms.set(3, AlarmType::Corrupt as i32);
        let mut restored = Alarms::default();
        for alarm in alarms.list(0) {
            let key = Alarms::key(alarm.member_id, alarm.alarm);
            assert!(restored.restore(&Bytes::copy_from_slice(&key)));
        }
        assert_eq!(restored, alarms);
        assert_eq!(alarms.list(1), [pb::AlarmMember { member_id: u64::MAX, alarm: 1 }]);
        assert!(!restored.restore(&Bytes::from_static(b"short")));
    }
}
