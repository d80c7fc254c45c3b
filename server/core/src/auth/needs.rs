// SPDX-License-Identifier: Apache-2.0
//! Which rights each request needs (AU-21), and whether its sender has them.
//!
//! Owns      the walk over a request: every operation at every depth, both branches, compares, and the keys
//!           on the leases that it names.
//! Holds     1. one right that is missing refuses the whole request, before any of it is done;
//!           2. a request that needs nothing is not asked who sends it (AUTH-6).
//! Never     changes a request: ranges are judged as they came.

use super::rights::Rights;
use crate::Refusal;
use bytes::Bytes;
use cairn_proto::{errors, etcdserverpb as pb};
use pb::request_op::Request;

/// What the sender of a request may do, or why nothing (AU-20).
#[derive(Clone, Copy, Debug)]
pub enum Grants<'a> {
    /// Authentication is off.
    Everything,
    Only(&'a Rights),
    Nothing(Refusal),
}

impl Grants<'_> {
    pub fn read(&self, key: &[u8], range_end: &[u8]) -> Result<(), Refusal> {
        self.judge(|rights| rights.may_read(key, range_end))
    }

    pub fn write(&self, key: &[u8], range_end: &[u8]) -> Result<(), Refusal> {
        self.judge(|rights| rights.may_write(key, range_end))
    }

    fn judge(&self, may: impl FnOnce(&Rights) -> bool) -> Result<(), Refusal> {
        match self {
            Grants::Everything => Ok(()),
            Grants::Only(rights) if may(rights) => Ok(()),
            Grants::Only(_) => Err(errors::PERMISSION_DENIED),
            Grants::Nothing(why) => Err(*why),
        }
    }
}

/// Looks up the keys that hang on a lease.
pub type Attached<'a, E> = &'a mut dyn FnMut(i64) -> Result<Vec<Bytes>, E>;

pub fn range(grants: &Grants<'_>, r: &pb::RangeRequest) -> Result<(), Refusal> {
    grants.read(&r.key, &r.range_end)
}

/// AUTH-3. A put on a lease may end the keys that are on it already.
pub fn put<E: From<Refusal>>(
    grants: &Grants<'_>,
    r: &pb::PutRequest,
    attached: Attached<'_, E>,
) -> Result<(), E> {
    grants.write(&r.key, b"")?;
    if r.prev_kv {
        grants.read(&r.key, b"")?;
    }
    if r.lease == 0 || matches!(grants, Grants::Everything) {
        return Ok(());
    }
    write_all(grants, &attached(r.lease)?)?;
    Ok(())
}

/// AUTH-4.
pub fn delete_range(grants: &Grants<'_>, r: &pb::DeleteRangeRequest) -> Result<(), Refusal> {
    grants.write(&r.key, &r.range_end)?;
    if r.prev_kv { grants.read(&r.key, &r.range_end) } else { Ok(()) }
}

/// AUTH-5.
pub fn txn<E: From<Refusal>>(
    grants: &Grants<'_>,
    r: &pb::TxnRequest,
    attached: Attached<'_, E>,
) -> Result<(), E> {
    for compare in &r.compare {
        grants.read(&compare.key, &compare.range_end)?;
    }
    for op in r.success.iter().chain(&r.failure) {
        match &op.request {
            Some(Request::RequestRange(r)) => range(grants, r)?,
            Some(Request::RequestPut(r)) => put(grants, r, attached)?,
            Some(Request::RequestDeleteRange(r)) => delete_range(grants, r)?,
            Some(Request::RequestTxn(r)) => txn(grants, r, attached)?,
            None => {}
        }
    }
    Ok(())
}

/// AUTH-5, of a transaction that writes nothing.
pub fn read_only_txn(grants: &Grants<'_>, r: &pb::TxnRequest) -> Result<(), Refusal> {
    txn(grants, r, &mut |_| Ok::<_, Refusal>(Vec::new()))
}

/// AUTH-7: to renew or to revoke a lease is to keep or to delete its keys.
pub fn write_all(grants: &Grants<'_>, keys: &[Bytes]) -> Result<(), Refusal> {
    keys.iter().try_for_each(|key| grants.write(key, b""))
}

/// AUTH-8.
pub fn read_all(grants: &Grants<'_>, keys: &[Bytes]) -> Result<(), Refusal> {
    keys.iter().try_for_each(|key| grants.read(key, b""))
}

/// A watch, judged as it came, but for an empty key, which is `"\0"` (WATCH-3, WATCH-13).
pub fn watch(grants: &Grants<'_>, r: &pb::WatchCreateRequest) -> Result<(), Refusal> {
    let key = if r.key.is_empty() { b"\0" } else { &r.key[..] };
    grants.read(key, &r.range_end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_proto::authpb::{Permission, permission::Type};

    /// READ on `r*`, WRITE on `w*`, both on `b*`.
    fn rights() -> Rights {
        let permission = |perm_type: Type, key: &'static str, end: &'static str| Permission {
            perm_type: perm_type as i32,
            key: Bytes::from_static(key.as_bytes()),
            range_end: Bytes::from_static(end.as_bytes()),
        };
        let permissions = [
            permission(Type::Read, "r", "s"),
            permission(Type::Write, "w", "x"),
            permission(Type::Readwrite, "b", "c"),
        ];
        Rights::of(false, permissions.iter())
    }

    /// Lease 1 has a key that may be written, lease 2 one that may not, lease 3 none.
    fn attached(lease: i64) -> Result<Vec<Bytes>, Refusal> {
        Ok(match lease {
            1 => vec!["w".into()],
            2 => vec!["w".into(), "r".into()],
            _ => Vec::new(),
        })
    }

    fn may<E>(result: Result<(), E>) -> bool {
        result.is_ok()
    }

    fn a_put(key: &str, prev_kv: bool, lease: i64) -> pb::PutRequest {
        pb::PutRequest { key: key.to_owned().into(), prev_kv, lease, ..Default::default() }
    }

    fn a_delete(key: &str, end: &str, prev_kv: bool) -> pb::DeleteRangeRequest {
        pb::DeleteRangeRequest { key: key.to_owned().into(), range_end: end.to_owned().into(), prev_kv }
    }

    fn a_range(key: &str, end: &str) -> pb::RangeRequest {
        pb::RangeRequest {
            key: key.to_owned().into(),
            range_end: end.to_owned().into(),
            ..Default::default()
        }
    }

    fn op(request: Request) -> pb::RequestOp {
        pb::RequestOp { request: Some(request) }
    }

    // rule: AUTH-3
    #[test]
    fn s15_a_put_that_shows_the_value_before_reads_and_one_on_a_lease_writes_its_keys() {
        let rights = rights();
        let grants = Grants::Only(&rights);
        for (key, prev_kv, lease, allowed) in [
            ("w", false, 0, true),
            ("w", true, 0, false),
            ("b", true, 0, true),
            ("r", false, 0, false),
            ("w", false, 1, true),
            ("w", false, 2, false),
            ("w", false, 3, true),
        ] {
            let put_alone = may(put(&grants, &a_put(key, prev_kv, lease), &mut attached));
            assert_eq!(put_alone, allowed, "{key} {prev_kv} {lease}");
            let inside = pb::TxnRequest {
                failure: vec![op(Request::RequestPut(a_put(key, prev_kv, lease)))],
                ..Default::default()
            };
            assert_eq!(may(txn(&grants, &inside, &mut attached)), allowed, "in a transaction: {key}");
        }
    }

    // rule: AUTH-4
    #[test]
    fn a_delete_writes_its_whole_range_and_reads_it_for_the_values_before() {
        let rights = rights();
        let grants = Grants::Only(&rights);
        for (key, end, prev_kv, allowed) in [
            ("w", "", false, true),
            ("w", "x", false, true),
            ("w", "x\0", false, false),
            ("w", "\0", false, false),
            ("w", "", true, false),
            ("b", "c", true, true),
            ("r", "", false, false),
        ] {
            assert_eq!(may(delete_range(&grants, &a_delete(key, end, prev_kv))), allowed, "{key} {end:?}");
        }
    }

    // rule: AUTH-5
    #[test]
    fn s14_transactions_are_walked_to_every_depth_in_both_branches_and_compares() {
        let rights = rights();
        let grants = Grants::Only(&rights);
        let compare = |key: &str, end: &str| pb::Compare {
            key: key.to_owned().into(),
            range_end: end.to_owned().into(),
            ..Default::default()
        };
        let forbidden = [
            pb::TxnRequest { compare: vec![compare("w", "")], ..Default::default() },
            pb::TxnRequest { compare: vec![compare("r", "\0")], ..Default::default() },
            pb::TxnRequest {
                success: vec![op(Request::RequestRange(a_range("w", "")))],
                ..Default::default()
            },
            pb::TxnRequest {
                failure: vec![op(Request::RequestRange(a_range("r", "s\0")))],
                ..Default::default()
            },
            pb::TxnRequest {
                success: vec![op(Request::RequestPut(a_put("r", false, 0)))],
                ..Default::default()
            },
            pb::TxnRequest {
                failure: vec![op(Request::RequestDeleteRange(a_delete("r", "", false)))],
                ..Default::default()
            },
        ];
        let allowed = pb::TxnRequest {
            compare: vec![compare("r", "s")],
            success: vec![op(Request::RequestPut(a_put("w", false, 1)))],
            failure: vec![op(Request::RequestRange(a_range("b", "c")))],
        };
        for depth in 0..4 {
            let wrap = |mut inner: pb::TxnRequest, in_success: bool| {
                for _ in 0..depth {
                    let ops = vec![op(Request::RequestTxn(inner))];
                    inner = if in_success {
                        pb::TxnRequest { success: ops, ..Default::default() }
                    } else {
                        pb::TxnRequest { failure: ops, ..Default::default() }
                    };
                }
                inner
            };
            for in_success in [true, false] {
                assert!(may(txn(&grants, &wrap(allowed.clone(), in_success), &mut attached)));
                for (case, inner) in forbidden.iter().enumerate() {
                    let refused = txn(&grants, &wrap(inner.clone(), in_success), &mut attached);
                    assert_eq!(refused, Err(errors::PERMISSION_DENIED), "case {case} at depth {depth}");
                }
            }
        }
    }

    // rule: AUTH-6
    #[test]
    fn a_transaction_without_operations_is_nobodys_secret() {
        let nobody = Grants::Nothing(errors::USER_EMPTY);
        assert_eq!(txn(&nobody, &pb::TxnRequest::default(), &mut attached), Ok(()));
        let nested = pb::TxnRequest {
            success: vec![op(Request::RequestTxn(pb::TxnRequest::default()))],
            ..Default::default()
        };
        assert_eq!(txn(&nobody, &nested, &mut attached), Ok(()));
        assert_eq!(range(&nobody, &a_range("r", "")), Err(errors::USER_EMPTY));
    }

    // rule: AUTH-7
    // rule: AUTH-8
    #[test]
    fn s12_keys_on_a_lease_are_asked_for_one_by_one() {
        let rights = rights();
        let grants = Grants::Only(&rights);
        let keys = |names: &[&str]| names.iter().map(|n| Bytes::from((*n).to_owned())).collect::<Vec<_>>();
        assert!(may(write_all(&grants, &keys(&["w", "b"]))) && !may(write_all(&grants, &keys(&["w", "r"]))));
        assert!(may(read_all(&grants, &keys(&["r", "b"]))) && !may(read_all(&grants, &keys(&["w", "r"]))));
        assert!(may(write_all(&Grants::Nothing(errors::USER_EMPTY), &[])), "no key, no question");
    }

    // rule: WATCH-13
    // rule: AUTH-9
    #[test]
    fn s16_a_watch_with_an_open_end_needs_an_open_grant() {
        let rights = rights();
        let grants = Grants::Only(&rights);
        for (key, end, allowed) in
            [("r", "", true), ("r", "s", true), ("r", "\0", false), ("", "", false), ("", "\0", false)]
        {
            let create = pb::WatchCreateRequest {
                key: key.to_owned().into(),
                range_end: end.to_owned().into(),
                ..Default::default()
            };
            assert_eq!(may(watch(&grants, &create)), allowed, "{key:?} {end:?}");
        }
    }
}
