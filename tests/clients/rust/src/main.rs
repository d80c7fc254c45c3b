// SPDX-License-Identifier: Apache-2.0
//! The client story through `etcd-client`: puts, ranges, transactions, watches, leases, locks, elections.

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error, EventType, GetOptions, LockOptions, PutOptions,
    SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, WatchOptions,
};

async fn puts(c: &mut Client) -> Result<(), Error> {
    c.delete("rs/", Some(DeleteOptions::new().with_prefix())).await?;
    let first = c.put("rs/a", "1", None).await?.header().unwrap().revision();
    let second = c.put("rs/a", "2", Some(PutOptions::new().with_prev_key())).await?;
    assert_eq!(second.prev_key().unwrap().value(), b"1");
    assert_eq!(second.header().unwrap().revision(), first + 1);
    for i in 0..20 {
        c.put(format!("rs/list/{i:02}"), format!("{i}"), None).await?;
    }
    let options =
        GetOptions::new().with_prefix().with_limit(5).with_sort(SortTarget::Key, SortOrder::Descend);
    let page = c.get("rs/list/", Some(options)).await?;
    assert_eq!((page.kvs().len(), page.count(), page.more()), (5, 20, true));
    assert_eq!(page.kvs()[0].key(), b"rs/list/19");
    let old = c.get("rs/a", Some(GetOptions::new().with_revision(first))).await?;
    assert_eq!(old.kvs()[0].value(), b"1");
    println!("ok puts");
    Ok(())
}

async fn transactions(c: &mut Client) -> Result<(), Error> {
    c.put("rs/txn", "x", None).await?;
    let txn = Txn::new()
        .when([
            Compare::value("rs/txn", CompareOp::Equal, "x"),
            Compare::create_revision("rs/none", CompareOp::Equal, 0),
        ])
        .and_then([TxnOp::put("rs/txn", "y", None), TxnOp::get("rs/txn", None)])
        .or_else([TxnOp::delete("rs/txn", None)]);
    let done = c.txn(txn).await?;
    assert!(done.succeeded());
    match &done.op_responses()[1] {
        TxnOpResponse::Get(got) => assert_eq!(got.kvs()[0].value(), b"y"),
        other => panic!("a get answered {other:?}"),
    }
    println!("ok transactions");
    Ok(())
}

async fn watches(c: &mut Client) -> Result<(), Error> {
    let base = c.put("rs/watch/0", "before", None).await?.header().unwrap().revision();
    let options = WatchOptions::new().with_prefix().with_prev_key().with_start_revision(base);
    let mut stream = c.watch("rs/watch/", Some(options)).await?;
    c.put("rs/watch/1", "one", None).await?;
    c.put("rs/watch/1", "two", None).await?;
    c.delete("rs/watch/1", None).await?;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let answer = stream.message().await?.expect("the stream stays open");
        for event in answer.events() {
            let kv = event.kv().unwrap();
            let before = event.prev_kv().map(|kv| kv.value_str().unwrap().to_owned());
            seen.push((event.event_type(), kv.value_str()?.to_owned(), before));
        }
    }
    let put =
        |value: &str, before: Option<&str>| (EventType::Put, value.to_owned(), before.map(str::to_owned));
    let expected = [
        put("before", None),
        put("one", None),
        put("two", Some("one")),
        (EventType::Delete, String::new(), Some("two".into())),
    ];
    assert_eq!(seen, expected);
    drop(stream);
    println!("ok watches");
    Ok(())
}

async fn leases(c: &mut Client) -> Result<(), Error> {
    let lease = c.lease_grant(60, None).await?.id();
    c.put("rs/leased", "v", Some(PutOptions::new().with_lease(lease))).await?;
    let (mut keeper, mut answers) = c.lease_keep_alive(lease).await?;
    keeper.keep_alive().await?;
    assert_eq!(answers.message().await?.unwrap().ttl(), 60);
    assert_eq!(c.lease_time_to_live(lease, None).await?.granted_ttl(), 60);
    c.lease_revoke(lease).await?;
    assert_eq!(c.get("rs/leased", None).await?.count(), 0);
    println!("ok leases");
    Ok(())
}

async fn locks(c: &mut Client) -> Result<(), Error> {
    let lease = c.lease_grant(60, None).await?.id();
    let key = c.lock("rs/lock", Some(LockOptions::new().with_lease(lease))).await?.key().to_vec();
    assert_eq!(key, format!("rs/lock/{lease:x}").into_bytes());
    let other = c.lease_grant(60, None).await?.id();
    let mut waiter = c.clone();
    let waiting =
        tokio::spawn(async move { waiter.lock("rs/lock", Some(LockOptions::new().with_lease(other))).await });
    c.unlock(key).await?;
    let second = waiting.await.expect("the waiter runs")?;
    c.unlock(second.key()).await?;
    let won = c.campaign("rs/election", "me", lease).await?;
    assert_eq!(c.leader("rs/election").await?.kv().unwrap().value(), b"me");
    let resign = etcd_client::ResignOptions::new().with_leader(won.leader().unwrap().clone());
    c.resign(Some(resign)).await?;
    assert!(c.leader("rs/election").await.is_err());
    println!("ok locks");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let endpoint = std::env::args().nth(1).expect("usage: cairn-client-story HOST:PORT");
    let mut client = Client::connect([endpoint], None).await?;
    puts(&mut client).await?;
    transactions(&mut client).await?;
    watches(&mut client).await?;
    leases(&mut client).await?;
    locks(&mut client).await
}
