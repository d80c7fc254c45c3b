// SPDX-License-Identifier: Apache-2.0
// The client story through `etcd3`: puts, ranges, transactions, watches, leases, locks, elections.
'use strict';
const assert = require('node:assert/strict');
const { once } = require('node:events');
const { Etcd3 } = require('etcd3');

const ok = (name) => console.log(`ok ${name}`);

async function puts(client) {
  await client.delete().prefix('js/');
  await client.put('js/a').value('1');
  const again = await client.put('js/a').value('2').getPrevious();
  assert.equal(again.value.toString(), '1');
  assert.equal(await client.get('js/a').string(), '2');
  assert.equal(await client.get('js/missing').string(), null);
  for (let i = 0; i < 20; i++) await client.put(`js/list/${String(i).padStart(2, '0')}`).value(String(i));
  const all = await client.getAll().prefix('js/list/').strings();
  assert.equal(Object.keys(all).length, 20);
  const keys = await client.getAll().prefix('js/list/').sort('Key', 'Descend').limit(2).keys();
  assert.deepEqual(keys, ['js/list/19', 'js/list/18']);
  assert.equal(await client.getAll().prefix('js/list/').count(), 20);
  assert.equal((await client.delete().key('js/a')).deleted, '1');
  ok('puts');
}

async function transactions(client) {
  await client.put('js/txn').value('x');
  const yes = await client.if('js/txn', 'Value', '==', 'x').and('js/none', 'Create', '==', 0)
    .then(client.put('js/txn').value('y'), client.get('js/txn')).else(client.delete().key('js/txn')).commit();
  assert.equal(yes.succeeded, true);
  assert.equal(yes.responses[1].response_range.kvs[0].value.toString(), 'y');
  const no = await client.if('js/txn', 'Value', '==', 'x').then(client.delete().key('js/txn'))
    .else(client.get('js/txn')).commit();
  assert.equal(no.succeeded, false);
  assert.equal(no.responses[0].response_range.kvs[0].value.toString(), 'y');
  let tries = 0;
  await client.stm().transact(async (tx) => {
    tries += 1;
    const value = await tx.get('js/txn').string();
    await tx.put('js/txn').value(`${value}!`);
  });
  assert.equal(await client.get('js/txn').string(), 'y!');
  assert.equal(tries, 1);
  ok('transactions');
}

async function watches(client) {
  const seen = [];
  const watcher = await client.watch().prefix('js/watch/').withPreviousKV().create();
  const done = new Promise((resolve, reject) => {
    watcher.on('error', reject);
    watcher.on('data', (answer) => {
      for (const e of answer.events) seen.push([e.type, e.kv.key.toString(), e.kv.value.toString(), e.prev_kv ? e.prev_kv.value.toString() : null]);
      if (seen.length >= 3) resolve();
    });
  });
  await client.put('js/watch/1').value('one');
  await client.put('js/watch/1').value('two');
  await client.delete().key('js/watch/1');
  await done;
  await watcher.cancel();
  assert.deepEqual(seen, [['Put', 'js/watch/1', 'one', null], ['Put', 'js/watch/1', 'two', 'one'], ['Delete', 'js/watch/1', '', 'two']]);
  ok('watches');
}

async function leases(client) {
  const lease = client.lease(60);
  await lease.put('js/leased').value('v');
  const id = await lease.grant();
  const info = await client.leaseClient.leaseTimeToLive({ ID: id, keys: true });
  assert.equal(info.grantedTTL, '60');
  assert.deepEqual(info.keys.map((k) => k.toString()), ['js/leased']);
  await lease.keepaliveOnce();
  const gone = await client.watch().key('js/leased').create();
  const deleted = once(gone, 'delete');
  await lease.revoke();
  await deleted;
  await gone.cancel();
  assert.equal(await client.get('js/leased').string(), null);
  ok('leases');
}

async function locks(client) {
  const first = client.lock('js/lock').ttl(20);
  await first.acquire();
  await assert.rejects(client.lock('js/lock').ttl(20).acquire(), /Failed to acquire a lock/);
  await first.release();
  await client.lock('js/lock').do(async () => {});
  const election = client.election('js/election', 20);
  const campaign = election.campaign('me');
  await once(campaign, 'elected');
  assert.equal(await election.leader(), 'me');
  await campaign.proclaim('still me');
  assert.equal(await election.leader(), 'still me');
  await campaign.resign();
  ok('locks');
}

(async () => {
  const client = new Etcd3({ hosts: process.argv[2] });
  for (const part of [puts, transactions, watches, leases, locks]) await part(client);
  client.close();
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
