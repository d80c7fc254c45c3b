// SPDX-License-Identifier: Apache-2.0
//! Requests from a seed: users and roles that come and go, and requests of each.
//!
//! Owns      what is drawn, and what is remembered of it: whether authentication is on, and the passwords.
//! Never     looks at an answer but for whether it succeeded.

use std::collections::BTreeMap;

use bytes::Bytes;
use cairn_proto::authpb::Permission;
use cairn_proto::etcdserverpb::request_op::Request as Op;
use cairn_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
};
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::ROOT_PASSWORD;
use super::ask::{Ask, By};

/// Slot 0 is root's; the others are of whoever logged in.
pub const SLOTS: usize = 12;
/// For what has to be done beside the sequence.
pub const SPARE_SLOT: usize = SLOTS - 1;

const USERS: &[&str] = &["alice", "bob", "carol", "dave"];
const ROLES: &[&str] = &["r", "s", "t", "root"];
const KEYS: &[&str] = &["a", "b", "c", "d", "e", "f"];
const LEASES: &[i64] = &[1, 2, 3];

pub struct Generator {
    rng: ChaCha8Rng,
    enabled: bool,
    passwords: BTreeMap<String, String>,
    /// What is to come first.
    queue: Vec<(Ask, By)>,
}

fn root_login() -> (Ask, By) {
    (Ask::Login { user: "root".into(), password: ROOT_PASSWORD.into(), slot: 0 }, By::Nobody)
}

/// What meets each of the listed differences and rare refusals, by a user of its own who may write `w` and read `v`.
fn every_difference() -> Vec<(Ask, By)> {
    const WALTER: By = By::Slot(SPARE_SLOT - 1);
    const ROOT: By = By::Slot(0);
    let permit = |perm_type, key: &'static str| {
        let perm = Permission { perm_type, key: key.into(), range_end: Bytes::new() };
        (Ask::Permit { role: "w".into(), perm: Some(perm) }, ROOT)
    };
    let put = |prev_kv, lease| PutRequest { key: "w".into(), prev_kv, lease, ..PutRequest::default() };
    let op = |request| vec![RequestOp { request: Some(request) }];
    let nested = TxnRequest {
        success: op(Op::RequestPut(PutRequest { key: "x".into(), ..PutRequest::default() })),
        ..TxnRequest::default()
    };
    let nesting = TxnRequest { success: op(Op::RequestTxn(nested)), ..TxnRequest::default() };
    let watch = |range_end: &'static str| {
        Ask::Watch(WatchCreateRequest {
            key: "v".into(),
            range_end: range_end.into(),
            ..WatchCreateRequest::default()
        })
    };
    let walter = || "walter".to_owned();
    vec![
        (Ask::RoleAdd("w".into()), ROOT),
        permit(1, "w"),
        permit(0, "v"),
        (Ask::UserAdd { name: walter(), password: walter(), no_password: false }, ROOT),
        (Ask::GrantRole { user: walter(), role: "w".into() }, ROOT),
        (Ask::Login { user: walter(), password: walter(), slot: SPARE_SLOT - 1 }, By::Nobody),
        (Ask::UserAdd { name: "cert".into(), password: String::new(), no_password: true }, ROOT),
        (Ask::Login { user: "cert".into(), password: walter(), slot: SPARE_SLOT - 1 }, By::Nobody),
        (Ask::UserDelete("root".into()), ROOT),
        (Ask::AuthStatus, By::Nobody),
        (Ask::RoleAdd("root".into()), ROOT),
        (Ask::RoleGet("root".into()), ROOT),
        (Ask::Put(put(true, 0)), WALTER),
        (Ask::Txn(nesting), WALTER),
        (Ask::Grant { id: 9 }, By::Nobody),
        (Ask::Put(put(false, 9)), ROOT),
        (Ask::TimeToLive { id: 9, keys: true }, WALTER),
        (Ask::Compact, WALTER),
        (Ask::Members, By::Nobody),
        (Ask::Hash, WALTER),
        (watch(""), By::Garbage),
        (watch("\0"), WALTER),
    ]
}

impl Generator {
    pub fn new(seed: u64) -> Generator {
        let add = |name: &str, password: &str| Ask::UserAdd {
            name: name.into(),
            password: password.into(),
            no_password: false,
        };
        let mut queue = vec![
            (add("root", ROOT_PASSWORD), By::Nobody),
            (Ask::GrantRole { user: "root".into(), role: "root".into() }, By::Nobody),
            (add("alice", "alice 1"), By::Nobody),
            (add("bob", "bob 1"), By::Nobody),
            (Ask::RoleAdd("r".into()), By::Nobody),
            (Ask::RoleAdd("s".into()), By::Nobody),
            (Ask::GrantRole { user: "alice".into(), role: "r".into() }, By::Nobody),
            (root_login().0, By::Nobody),
            (Ask::Enable, By::Nobody),
        ];
        queue.extend(every_difference());
        queue.reverse();
        Generator { rng: ChaCha8Rng::seed_from_u64(seed), enabled: false, passwords: BTreeMap::new(), queue }
    }

    pub fn next(&mut self) -> (Ask, By) {
        if let Some(first) = self.queue.pop() {
            return first;
        }
        if !self.enabled && self.chance(10) {
            self.queue.push((Ask::Enable, By::Nobody));
            return (Ask::GrantRole { user: "root".into(), role: "root".into() }, By::Nobody);
        }
        let (ask, by) = self.any();
        // 3.5.1 refuses tokens that ended also while authentication is off (AU-23).
        (ask, if self.enabled { by } else { By::Nobody })
    }

    fn any(&mut self) -> (Ask, By) {
        match self.rng.random_range(0..100) {
            0..30 => {
                let by = if self.chance(75) { By::Slot(0) } else { self.by() };
                (self.management(), by)
            }
            30..45 => (self.login(), By::Nobody),
            _ => (self.data(), self.by()),
        }
    }

    pub fn observe(&mut self, ask: &Ask, answered: bool) {
        match ask {
            Ask::Enable if answered => {
                self.enabled = true;
                self.queue.push(root_login());
            }
            Ask::Disable if answered => self.enabled = false,
            Ask::UserAdd { name, password, .. } | Ask::Password { name, password } if answered => {
                self.passwords.insert(name.clone(), password.clone());
            }
            _ => {}
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn of(&mut self, names: &[&str]) -> String {
        (*names.choose(&mut self.rng).expect("there are some")).into()
    }

    fn by(&mut self) -> By {
        match self.rng.random_range(0..100) {
            0..6 => By::Nobody,
            6..10 => By::Garbage,
            10..30 => By::Slot(0),
            _ => By::Slot(self.rng.random_range(1..SPARE_SLOT)),
        }
    }

    fn user(&mut self) -> String {
        match self.rng.random_range(0..20) {
            0 => String::new(),
            1 => "nobody".into(),
            2 => "root".into(),
            _ => self.of(USERS),
        }
    }

    fn role(&mut self) -> String {
        match self.rng.random_range(0..20) {
            0 => String::new(),
            1 => "none".into(),
            _ => self.of(ROLES),
        }
    }

    fn login(&mut self) -> Ask {
        let user = self.user();
        let mut password = self.passwords.get(&user).cloned().unwrap_or_else(|| "unknown".into());
        if self.chance(10) {
            password.push('x');
        }
        let slot = self.rng.random_range(1..SPARE_SLOT);
        Ask::Login { user, password, slot }
    }

    fn management(&mut self) -> Ask {
        let password = format!("password {}", self.rng.random_range(0..3));
        match self.rng.random_range(0..100) {
            0 => Ask::Disable,
            1..3 => Ask::Enable,
            3..6 => Ask::AuthStatus,
            6..18 => Ask::UserAdd { name: self.user(), password, no_password: self.chance(10) },
            18..22 => Ask::UserDelete(self.other_than_root()),
            22..26 => {
                let name = self.user();
                // The run logs root in with the first one.
                Ask::Password { name: if name == "root" { "nobody".into() } else { name }, password }
            }
            26..38 => Ask::GrantRole { user: self.user(), role: self.role() },
            38..43 => Ask::RevokeRole { user: self.other_than_root(), role: self.role() },
            43..48 => Ask::UserGet(self.user()),
            48..50 => Ask::UserList,
            50..60 => Ask::RoleAdd(self.role()),
            60..63 => Ask::RoleDelete(self.role()),
            63..68 => Ask::RoleGet(self.role()),
            68..70 => Ask::RoleList,
            70..92 => {
                let role = self.role();
                let perm = Some(self.permission(&role));
                Ask::Permit { role, perm }
            }
            92 => Ask::Permit { role: self.role(), perm: None },
            _ => {
                let role = self.role();
                let perm = self.permission(&role);
                Ask::Forbid { role, perm }
            }
        }
    }

    /// While authentication is off nothing protects root.
    fn other_than_root(&mut self) -> String {
        let user = self.user();
        if user == "root" && !self.enabled { "nobody".into() } else { user }
    }

    /// Of a role's permissions no two begin at one key: the second may stand twice in 3.5.1 (AU-15).
    fn permission(&mut self, role: &str) -> Permission {
        let at = self.rng.random_range(0..KEYS.len());
        let key = KEYS[at];
        let range_end = match (at + role.len() + role.bytes().map(usize::from).sum::<usize>()) % 4 {
            0 => String::new(),
            1 => "\0".into(),
            2 => format!("{key}\0"),
            _ => KEYS.get(at + 2).map_or("g", |end| *end).into(),
        };
        let perm_type = self.rng.random_range(0..3);
        Permission { perm_type, key: key.to_owned().into(), range_end: range_end.into() }
    }

    /// Never an inverted one: 3.5.1 grants those (AU-15), and judges requests for them by the shape of its tree.
    fn interval(&mut self) -> (String, String) {
        loop {
            let key = self.of(KEYS);
            let end = match self.rng.random_range(0..10) {
                0..4 => String::new(),
                4 => "\0".into(),
                5 => format!("{key}\0"),
                _ => self.of(KEYS),
            };
            if end.is_empty() || end == "\0" || key < end {
                return (key, end);
            }
        }
    }

    fn data(&mut self) -> Ask {
        match self.rng.random_range(0..100) {
            0..24 => Ask::Range(self.range()),
            24..46 => Ask::Put(self.put()),
            46..54 => Ask::Delete(self.delete()),
            54..70 => Ask::Txn(self.txn(0)),
            70..73 => Ask::Grant { id: self.lease() },
            73..75 => Ask::Revoke { id: self.lease() },
            75..79 => Ask::KeepAlive { id: self.lease() },
            79..83 => Ask::TimeToLive { id: self.lease(), keys: self.chance(70) },
            83..85 => Ask::Leases,
            85..87 => Ask::Members,
            87 => Ask::Alarms,
            88 => Ask::Disarm,
            89 => Ask::MemberStatus,
            90 => Ask::Hash,
            91 => Ask::Compact,
            _ => {
                let (key, range_end) = self.interval();
                let key = if self.chance(10) { String::new() } else { key };
                let create = WatchCreateRequest {
                    key: key.into(),
                    range_end: range_end.into(),
                    ..WatchCreateRequest::default()
                };
                Ask::Watch(create)
            }
        }
    }

    fn lease(&mut self) -> i64 {
        *LEASES.choose(&mut self.rng).expect("there are some")
    }

    fn range(&mut self) -> RangeRequest {
        let (key, range_end) = self.interval();
        RangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            serializable: self.chance(30),
            ..RangeRequest::default()
        }
    }

    fn put(&mut self) -> PutRequest {
        PutRequest {
            key: self.of(KEYS).into(),
            value: self.of(&["x", "y"]).into(),
            lease: if self.chance(20) { self.lease() } else { 0 },
            prev_kv: self.chance(25),
            ..PutRequest::default()
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let (key, range_end) = self.interval();
        DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: self.chance(25) }
    }

    fn txn(&mut self, depth: usize) -> TxnRequest {
        let compares = self.rng.random_range(0..2);
        let compare = (0..compares)
            .map(|_| {
                let (key, range_end) = self.interval();
                Compare { key: key.into(), range_end: range_end.into(), ..Compare::default() }
            })
            .collect();
        let mut keys = KEYS.to_vec();
        TxnRequest {
            compare,
            success: self.ops(depth, &mut keys),
            failure: if depth == 0 { self.ops(depth, &mut keys) } else { Vec::new() },
        }
    }

    /// Up to two operations, none of which puts a key twice.
    fn ops(&mut self, depth: usize, keys: &mut Vec<&str>) -> Vec<RequestOp> {
        let count = self.rng.random_range(0..3);
        (0..count)
            .map(|_| {
                let request = match self.rng.random_range(0..10) {
                    0..4 => Op::RequestRange(self.range()),
                    4..7 if !keys.is_empty() => {
                        let key = keys.remove(self.rng.random_range(0..keys.len()));
                        Op::RequestPut(PutRequest { key: key.to_owned().into(), ..self.put() })
                    }
                    7 if depth < 2 => Op::RequestTxn(self.txn(depth + 1)),
                    _ => Op::RequestRange(self.range()),
                };
                RequestOp { request: Some(request) }
            })
            .collect()
    }
}
