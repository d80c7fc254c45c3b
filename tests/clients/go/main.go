// SPDX-License-Identifier: Apache-2.0

// The client story through clientv3 and its concurrency package: puts, ranges, transactions, watches,
// leases, locks, elections.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func must[T any](value T, err error) T {
	if err != nil {
		fail("%v", err)
	}
	return value
}

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

func want[T comparable](name string, got, expected T) {
	if got != expected {
		fail("%s: got %v, expected %v", name, got, expected)
	}
}

func puts(ctx context.Context, c *clientv3.Client) {
	must(c.Delete(ctx, "go/", clientv3.WithPrefix()))
	first := must(c.Put(ctx, "go/a", "1"))
	second := must(c.Put(ctx, "go/a", "2", clientv3.WithPrevKV()))
	want("previous value", string(second.PrevKv.Value), "1")
	want("revision", second.Header.Revision, first.Header.Revision+1)
	for i := 0; i < 20; i++ {
		must(c.Put(ctx, fmt.Sprintf("go/list/%02d", i), fmt.Sprint(i)))
	}
	page := must(c.Get(ctx, "go/list/", clientv3.WithPrefix(), clientv3.WithLimit(5),
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend)))
	want("page", len(page.Kvs), 5)
	want("count", page.Count, int64(20))
	want("more", page.More, true)
	want("first of page", string(page.Kvs[0].Key), "go/list/19")
	old := must(c.Get(ctx, "go/a", clientv3.WithRev(first.Header.Revision)))
	want("value at a revision", string(old.Kvs[0].Value), "1")
	_, err := c.Get(ctx, "go/a", clientv3.WithRev(1<<40))
	want("future revision", errors.Is(err, rpctypes.ErrFutureRev), true)
	_, err = c.Put(ctx, "", "x")
	want("empty key", errors.Is(err, rpctypes.ErrEmptyKey), true)
	removed := must(c.Delete(ctx, "go/list/", clientv3.WithPrefix(), clientv3.WithPrevKV()))
	want("deleted", removed.Deleted, int64(20))
	want("deleted pairs", len(removed.PrevKvs), 20)
	must(c.Compact(ctx, removed.Header.Revision))
	_, err = c.Get(ctx, "go/a", clientv3.WithRev(first.Header.Revision))
	want("compacted", errors.Is(err, rpctypes.ErrCompacted), true)
	fmt.Println("ok puts")
}

func transactions(ctx context.Context, c *clientv3.Client) {
	must(c.Put(ctx, "go/txn", "x"))
	yes := must(c.Txn(ctx).If(clientv3.Compare(clientv3.Value("go/txn"), "=", "x"),
		clientv3.Compare(clientv3.CreateRevision("go/none"), "=", 0)).
		Then(clientv3.OpPut("go/txn", "y"), clientv3.OpGet("go/txn"),
			clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("go/nested", "n")}, nil)).
		Else(clientv3.OpDelete("go/txn")).Commit())
	want("succeeded", yes.Succeeded, true)
	want("read in a transaction", string(yes.Responses[1].GetResponseRange().Kvs[0].Value), "y")
	want("nested", yes.Responses[2].GetResponseTxn().Succeeded, true)
	_, err := c.Txn(ctx).Then(clientv3.OpPut("go/txn", "1"), clientv3.OpPut("go/txn", "2")).Commit()
	want("duplicate key", errors.Is(err, rpctypes.ErrDuplicateKey), true)
	_, err = concurrency.NewSTM(c, func(stm concurrency.STM) error {
		stm.Put("go/txn", stm.Get("go/txn")+"!")
		return nil
	})
	if err != nil {
		fail("%v", err)
	}
	want("after the STM", string(must(c.Get(ctx, "go/txn")).Kvs[0].Value), "y!")
	fmt.Println("ok transactions")
}

func watches(ctx context.Context, c *clientv3.Client) {
	base := must(c.Put(ctx, "go/watch/0", "before"))
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	events := c.Watch(inner, "go/watch/", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithRev(base.Header.Revision))
	must(c.Put(ctx, "go/watch/1", "one"))
	must(c.Put(ctx, "go/watch/1", "two"))
	must(c.Delete(ctx, "go/watch/1"))
	var seen []string
	for len(seen) < 4 {
		answer, open := <-events
		if !open || answer.Err() != nil {
			fail("watch ended: %v", answer.Err())
		}
		for _, e := range answer.Events {
			previous := "-"
			if e.PrevKv != nil {
				previous = string(e.PrevKv.Value)
			}
			seen = append(seen, fmt.Sprintf("%s %s %s %s", e.Type, e.Kv.Key, e.Kv.Value, previous))
		}
	}
	want("events", fmt.Sprint(seen), "[PUT go/watch/0 before - PUT go/watch/1 one - PUT go/watch/1 two one DELETE go/watch/1  two]")
	if err := c.RequestProgress(inner); err != nil {
		fail("%v", err)
	}
	for answer := range events {
		if answer.IsProgressNotify() {
			break
		}
	}
	answer := <-c.Watch(ctx, "go/old", clientv3.WithRev(1))
	want("a watch below the compaction", errors.Is(answer.Err(), rpctypes.ErrCompacted), true)
	fmt.Println("ok watches")
}

func leases(ctx context.Context, c *clientv3.Client) {
	lease := must(c.Grant(ctx, 60))
	must(c.Put(ctx, "go/leased", "v", clientv3.WithLease(lease.ID)))
	info := must(c.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys()))
	want("granted", info.GrantedTTL, int64(60))
	want("attached", string(info.Keys[0]), "go/leased")
	want("kept alive", must(c.KeepAliveOnce(ctx, lease.ID)).TTL, int64(60))
	must(c.Revoke(ctx, lease.ID))
	want("revoked", must(c.Get(ctx, "go/leased")).Count, int64(0))
	_, err := c.Put(ctx, "go/leased", "v", clientv3.WithLease(lease.ID))
	want("unknown lease", errors.Is(err, rpctypes.ErrLeaseNotFound), true)
	fmt.Println("ok leases")
}

func locks(ctx context.Context, c *clientv3.Client) {
	one := must(concurrency.NewSession(c, concurrency.WithTTL(20)))
	two := must(concurrency.NewSession(c, concurrency.WithTTL(20)))
	first, second := concurrency.NewMutex(one, "go/lock"), concurrency.NewMutex(two, "go/lock")
	if err := first.Lock(ctx); err != nil {
		fail("%v", err)
	}
	want("try a held lock", errors.Is(second.TryLock(ctx), concurrency.ErrLocked), true)
	got := make(chan error, 1)
	go func() { got <- second.Lock(ctx) }()
	if err := first.Unlock(ctx); err != nil {
		fail("%v", err)
	}
	if err := <-got; err != nil {
		fail("%v", err)
	}
	if err := second.Unlock(ctx); err != nil {
		fail("%v", err)
	}
	election := concurrency.NewElection(one, "go/election")
	if err := election.Campaign(ctx, "me"); err != nil {
		fail("%v", err)
	}
	want("leader", string(must(election.Leader(ctx)).Kvs[0].Value), "me")
	if err := election.Resign(ctx); err != nil {
		fail("%v", err)
	}
	_, err := election.Leader(ctx)
	want("no leader", errors.Is(err, concurrency.ErrElectionNoLeader), true)
	one.Close()
	two.Close()
	fmt.Println("ok locks")
}

func main() {
	c := must(clientv3.New(clientv3.Config{Endpoints: []string{os.Args[1]}, DialTimeout: 10 * time.Second}))
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for _, part := range []func(context.Context, *clientv3.Client){puts, transactions, watches, leases, locks} {
		part(ctx, c)
	}
}
