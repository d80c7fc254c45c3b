// SPDX-License-Identifier: Apache-2.0
//! The comparison can fail: answers of etcd, changed in one place, are told from the true ones.

use bytes::Bytes;
use cairn_proto::etcdserverpb::ResponseHeader;
use cairn_proto::etcdserverpb::response_op::Response;
use cairn_proto::mvccpb::KeyValue;
use cairn_tests::answers::{Answer, Generator, Reply, mask};
use cairn_tests::server::{Program, Server};
use cairn_tests::{scale, tools};

/// Changes an answer, if it is one that has the thing to change.
type Plant = fn(&mut Answer) -> Option<()>;

/// The reply, if it is of this kind.
macro_rules! reply {
    ($answer:expr, $kind:ident) => {
        match $answer {
            Ok(Reply::$kind(r)) => Some(r),
            _ => None,
        }
    };
}

/// Mistakes that the comparison must see.
const SEEN: &[(&str, Plant)] = &[
    ("the revision of a header", |a| header(a).map(|h| h.revision += 1)),
    ("a header without its cluster", |a| header(a).map(|h| h.cluster_id = 0)),
    ("a header that is missing", |a| reply!(a, Range).and_then(|r| r.header.take()).map(drop)),
    ("a count", |a| reply!(a, Range).map(|r| r.count -= 1)),
    ("more", |a| reply!(a, Range).map(|r| r.more = !r.more)),
    ("a pair that is missing", |a| reply!(a, Range).and_then(|r| r.kvs.pop()).map(drop)),
    ("the order of two pairs", |a| reply!(a, Range).filter(|r| r.kvs.len() > 1).map(|r| r.kvs.swap(0, 1))),
    ("a value", |a| pair(a).map(|kv| kv.value = Bytes::from_static(b"?"))),
    ("a version", |a| pair(a).map(|kv| kv.version += 1)),
    ("a create revision", |a| pair(a).map(|kv| kv.create_revision -= 1)),
    ("a mod revision", |a| pair(a).map(|kv| kv.mod_revision += 1)),
    ("the lease of a pair", |a| pair(a).map(|kv| kv.lease += 1)),
    ("a previous pair", |a| reply!(a, Put).and_then(|r| r.prev_kv.take()).map(drop)),
    ("deleted", |a| reply!(a, Delete).map(|r| r.deleted += 1)),
    ("a branch", |a| reply!(a, Txn).map(|t| t.succeeded = !t.succeeded)),
    ("an op that is missing", |a| reply!(a, Txn).and_then(|t| t.responses.pop()).map(drop)),
    ("a full header inside a transaction", |a| {
        let inner = reply!(a, Txn)?.responses.iter_mut().find_map(|op| match &mut op.response {
            Some(Response::ResponsePut(put)) => put.header.as_mut(),
            _ => None,
        })?;
        inner.member_id = 1;
        Some(())
    }),
    ("a nested header with a revision", |a| {
        let inner = reply!(a, Txn)?.responses.iter_mut().find_map(|op| match &mut op.response {
            Some(Response::ResponseTxn(nested)) => nested.header.as_mut(),
            _ => None,
        })?;
        inner.revision = 2;
        Some(())
    }),
    ("a code", |a| a.as_mut().err().map(|f| f.code += 1)),
    ("a text", |a| a.as_mut().err().map(|f| f.text.push('.'))),
    ("a refusal instead of an answer", |a| {
        let refused = Err(cairn_proto::errors::COMPACTED.into());
        std::mem::replace(a, refused).ok().map(drop)
    }),
    ("a granted TTL", |a| reply!(a, Grant).map(|r| r.ttl -= 1)),
    ("a renewed TTL", |a| reply!(a, KeepAlive).map(|r| r.ttl -= 1)),
    ("a lease that is taken for a missing one", |a| {
        reply!(a, TimeToLive).filter(|r| r.ttl > 0).map(|r| r.ttl = -1)
    }),
    ("an attached key that is missing", |a| reply!(a, TimeToLive).and_then(|r| r.keys.pop()).map(drop)),
    ("the order of leases", |a| {
        reply!(a, Leases).filter(|r| r.leases.len() > 1).map(|r| r.leases.swap(0, 1))
    }),
    ("a hash", |a| reply!(a, HashKv).map(|r| r.hash ^= 1)),
    ("the compact revision of a hash", |a| reply!(a, HashKv).map(|r| r.compact_revision -= 1)),
];

/// What two servers in one state may say differently.
const MASKED: &[(&str, Plant)] = &[
    ("another cluster, member and term", |a| {
        header(a).map(|h| {
            h.cluster_id ^= 2;
            h.member_id ^= 2;
            h.raft_term += 1;
        })
    }),
    ("the seconds left", |a| reply!(a, TimeToLive).filter(|r| r.ttl > 1).map(|r| r.ttl -= 1)),
    ("the order of attached keys", |a| {
        reply!(a, TimeToLive).filter(|r| r.keys.len() > 1).map(|r| r.keys.reverse())
    }),
];

const REQUESTS: usize = 10_000;

#[tokio::test]
async fn an_answer_changed_in_one_place_is_told_from_the_true_one() {
    let Some(etcd) = tools::etcd() else { return };
    let server = Server::start(Program::etcd(&etcd)).await;
    let client = server.client().await;
    let mut generator = Generator::new(scale::seed());
    let mut answers = Vec::new();
    for _ in 0..REQUESTS {
        let request = generator.next();
        let answer = request.ask(&client).await;
        generator.observe(&request, &answer);
        answers.push(answer);
    }
    for (table, seen) in [(SEEN, true), (MASKED, false)] {
        for (name, plant) in table {
            let (truth, changed) = answers
                .iter()
                .find_map(|truth| {
                    let mut changed = truth.clone();
                    plant(&mut changed)?;
                    Some((truth.clone(), changed))
                })
                .unwrap_or_else(|| panic!("no answer of {REQUESTS} has {name}"));
            assert_ne!(truth, changed, "{name}: nothing was changed");
            assert_eq!(truth.map(mask) != changed.map(mask), seen, "{name}");
        }
    }
}

fn header(answer: &mut Answer) -> Option<&mut ResponseHeader> {
    reply!(answer, Put).and_then(|r| r.header.as_mut())
}

fn pair(answer: &mut Answer) -> Option<&mut KeyValue> {
    reply!(answer, Range).and_then(|r| r.kvs.first_mut())
}
