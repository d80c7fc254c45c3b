# SPDX-License-Identifier: Apache-2.0
"""The client story through `aetcd`: puts, ranges, transactions, watches, leases, locks."""

import asyncio
import sys

import aetcd


def ok(name):
    print(f"ok {name}", flush=True)


async def puts(client):
    await client.delete_prefix(b"py/")
    first = await client.put(b"py/a", b"1")
    second = await client.put(b"py/a", b"2", prev_kv=True)
    assert second.prev_kv.value == b"1", second
    assert second.header.revision == first.header.revision + 1
    got = await client.get(b"py/a")
    assert (got.value, got.version) == (b"2", 2), got
    assert got.create_revision == first.header.revision
    assert await client.get(b"py/missing") is None
    for i in range(20):
        await client.put(b"py/list/%02d" % i, b"%d" % i)
    listed = [kv.key async for kv in _each(await client.get_prefix(b"py/list/"))]
    assert listed == [b"py/list/%02d" % i for i in range(20)], listed
    down = await client.get_prefix(b"py/list/", sort_order="descend", sort_target="key")
    assert [kv.key async for kv in _each(down)][0] == b"py/list/19"
    assert await client.replace(b"py/a", b"2", b"3") is True
    assert await client.replace(b"py/a", b"2", b"4") is False
    assert await client.delete(b"py/a") is not None
    assert await client.get(b"py/a") is None
    ok("puts")


async def _each(results):
    for kv in results:
        yield kv


async def transactions(client):
    t = client.transactions
    await client.put(b"py/txn", b"x")
    done, answers = await client.transaction(
        compare=[t.value(b"py/txn") == b"x", t.version(b"py/txn") > 0, t.create(b"py/none") == 0],
        success=[t.put(b"py/txn", b"y"), t.get(b"py/txn")],
        failure=[t.delete(b"py/txn")],
    )
    assert done and answers[1][0][0] == b"y", answers
    done, answers = await client.transaction(
        compare=[t.value(b"py/txn") == b"x"], success=[], failure=[t.get(b"py/txn")]
    )
    assert not done and answers[0][0][0] == b"y", answers
    ok("transactions")


async def watches(client):
    base = await client.put(b"py/watch/0", b"before")
    seen = []
    watch = await client.watch(
        b"py/watch/", range_end=b"py/watch0", start_revision=base.header.revision, prev_kv=True
    )
    await client.put(b"py/watch/1", b"one")
    await client.put(b"py/watch/1", b"two")
    await client.delete(b"py/watch/1")
    async for event in watch:
        seen.append((str(event.kind), event.kv.key, event.kv.value))
        if len(seen) == 4:
            await watch.cancel()
    assert seen == [
        ("PUT", b"py/watch/0", b"before"),
        ("PUT", b"py/watch/1", b"one"),
        ("PUT", b"py/watch/1", b"two"),
        ("DELETE", b"py/watch/1", b""),
    ], seen
    ok("watches")


async def leases(client):
    lease = await client.lease(60)
    await client.put(b"py/leased", b"v", lease=lease)
    assert (await client.get(b"py/leased")).lease == lease.id
    assert lease.id and await lease.granted_ttl() == 60 and await lease.remaining_ttl() > 50
    assert await lease.keys() == [b"py/leased"]
    await lease.refresh()
    await lease.revoke()
    assert await client.get(b"py/leased") is None
    short = await client.lease(1)
    await client.put(b"py/short", b"v", lease=short)
    gone = await client.watch_once(b"py/short", timeout=15, kind=aetcd.EventKind.DELETE)
    assert gone.kind == aetcd.EventKind.DELETE
    ok("leases")


async def locks(client):
    first = client.lock(b"py/lock", ttl=20)
    assert await first.acquire() and await first.is_acquired()
    second = client.lock(b"py/lock", ttl=20)
    assert await second.acquire(timeout=0) is False
    waiting = asyncio.create_task(second.acquire(timeout=10))
    assert await first.release()
    assert await waiting and await second.is_acquired() and not await first.is_acquired()
    assert await second.release()
    ok("locks")


async def main():
    host, port = sys.argv[1].rsplit(":", 1)
    async with aetcd.Client(host=host, port=int(port), timeout=10) as client:
        for part in (puts, transactions, watches, leases, locks):
            await part(client)


asyncio.run(main())
