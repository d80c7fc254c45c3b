// SPDX-License-Identifier: Apache-2.0

// The worker of bbolt: one store, driven by lines on standard input, timed here. The lines are those of
// `../src/protocol.rs`, the work that of `../src/store.rs`; nothing here is known elsewhere.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
)

const poolBits = 20

var bucketName = []byte("key")

// Numbers by chance, as the other workers draw them.
type rng uint64

func (r *rng) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (r *rng) below(end uint64) uint64 {
	high, _ := bits.Mul64(r.next(), end)
	return high
}

type values struct {
	pool  []byte
	bytes int
}

func newValues(size int) *values {
	r := rng(1)
	pool := make([]byte, 0, 1<<poolBits+size+8)
	for len(pool) < 1<<poolBits+size {
		pool = binary.LittleEndian.AppendUint64(pool, r.next())
	}
	return &values{pool, size}
}

func (v *values) of(revision uint64) []byte {
	at := revision * 0x9e3779b97f4a7c15 >> (64 - poolBits)
	return v.pool[at : at+uint64(v.bytes)]
}

func (v *values) matches(revision uint64, value []byte) bool {
	head := min(v.bytes, 8)
	return len(value) == v.bytes && bytes.Equal(value[:head], v.of(revision)[:head])
}

func key(revision uint64) []byte {
	key := make([]byte, 16)
	binary.BigEndian.PutUint64(key, revision)
	return key
}

type worker struct {
	path   string
	values *values
	db     *bolt.DB
}

type took struct{ ns, p50, p99 int64 }

func (t took) String() string { return fmt.Sprintf("took %d %d %d", t.ns, t.p50, t.p99) }

func since(begin time.Time) took { return took{ns: time.Since(begin).Nanoseconds()} }

func (w *worker) open(newest uint64) (fmt.Stringer, error) {
	begin := time.Now()
	options := &bolt.Options{NoFreelistSync: true, FreelistType: bolt.FreelistMapType}
	db, err := bolt.Open(filepath.Join(w.path, "db"), 0o600, options)
	if err != nil {
		return nil, err
	}
	w.db = db
	if newest > 0 {
		if err := w.expect(newest); err != nil {
			return nil, err
		}
		return since(begin), nil
	}
	err = db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucketName)
		return err
	})
	return since(begin), err
}

func (w *worker) expect(revision uint64) error {
	return w.db.View(func(tx *bolt.Tx) error {
		value := tx.Bucket(bucketName).Get(key(revision))
		if value == nil {
			return fmt.Errorf("revision %d is missing", revision)
		}
		if !w.values.matches(revision, value) {
			return fmt.Errorf("revision %d has another value", revision)
		}
		return nil
	})
}

// Does `one` for each batch of revisions, each in a transaction that is durable when it ends.
func (w *worker) inBatches(lo, hi, batch uint64, one func(*bolt.Bucket, uint64) error) (fmt.Stringer, error) {
	var commits []int64
	begin := time.Now()
	last := begin
	for first := lo; first < hi; first += batch {
		err := w.db.Update(func(tx *bolt.Tx) error {
			bucket := tx.Bucket(bucketName)
			bucket.FillPercent = 0.9
			for revision := first; revision < min(hi, first+batch); revision++ {
				if err := one(bucket, revision); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		now := time.Now()
		commits = append(commits, now.Sub(last).Nanoseconds())
		last = now
	}
	t := since(begin)
	sort.Slice(commits, func(i, j int) bool { return commits[i] < commits[j] })
	part := func(percent int) int64 {
		if len(commits) == 0 {
			return 0
		}
		return commits[min(len(commits)*percent/100, len(commits)-1)]
	}
	t.p50, t.p99 = part(50), part(99)
	return t, nil
}

func (w *worker) scan(see func(key, value []byte)) error {
	return w.db.View(func(tx *bolt.Tx) error {
		cursor := tx.Bucket(bucketName).Cursor()
		for key, value := cursor.First(); key != nil; key, value = cursor.Next() {
			see(key, value)
		}
		return nil
	})
}

func (w *worker) timedScan(count uint64) (fmt.Stringer, error) {
	begin := time.Now()
	var seen, sum uint64
	if err := w.scan(func(key, value []byte) { seen++; sum += uint64(value[0]) + uint64(key[7]) }); err != nil {
		return nil, err
	}
	t := since(begin)
	if seen != count || sum == 0 && count > 0 {
		return nil, fmt.Errorf("a scan found %d entries where there are %d", seen, count)
	}
	var last, wrong uint64
	err := w.scan(func(key, value []byte) {
		at := binary.BigEndian.Uint64(key)
		if at <= last || !w.values.matches(at, value) {
			wrong++
		}
		last = at
	})
	if err == nil && wrong > 0 {
		err = fmt.Errorf("a scan found %d wrong values", wrong)
	}
	return t, err
}

func (w *worker) read(lo, hi, count, seed uint64) (fmt.Stringer, error) {
	r := rng(seed)
	begin := time.Now()
	for range count {
		if err := w.expect(lo + r.below(hi-lo)); err != nil {
			return nil, err
		}
	}
	return since(begin), nil
}

type size struct{ data, log int64 }

func (s size) String() string { return fmt.Sprintf("size %d %d", s.data, s.log) }

func (w *worker) size() (fmt.Stringer, error) {
	var stat syscall.Stat_t
	if err := syscall.Stat(filepath.Join(w.path, "db"), &stat); err != nil {
		return nil, err
	}
	return size{data: stat.Blocks * 512}, nil
}

func (w *worker) answer(line string) (fmt.Stringer, error) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return nil, fmt.Errorf("an empty request")
	}
	n := make([]uint64, 4)
	for i, word := range words[1:] {
		number, err := strconv.ParseUint(word, 10, 64)
		if err != nil {
			return nil, err
		}
		n[i] = number
	}
	switch words[0] {
	case "open":
		return w.open(n[0])
	case "insert":
		return w.inBatches(n[0], n[0]+n[1], n[2], func(bucket *bolt.Bucket, revision uint64) error {
			return bucket.Put(key(revision), w.values.of(revision))
		})
	case "delete":
		return w.inBatches(n[0], n[1], n[2], func(bucket *bolt.Bucket, revision uint64) error {
			return bucket.Delete(key(revision))
		})
	case "settle":
		return took{}, nil
	case "scan":
		return w.timedScan(n[0])
	case "read":
		return w.read(n[0], n[1], n[2], n[3])
	case "size":
		return w.size()
	}
	return nil, fmt.Errorf("no request %q", line)
}

func main() {
	if len(os.Args) != 5 || os.Args[1] != "worker" {
		fmt.Fprintln(os.Stderr, "bbolt: started by the comparison, as: bbolt worker NAME DIR VALUE_BYTES")
		os.Exit(64)
	}
	valueBytes, err := strconv.Atoi(os.Args[4])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bbolt:", err)
		os.Exit(64)
	}
	w := &worker{path: os.Args[3], values: newValues(valueBytes)}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		reply, err := w.answer(lines.Text())
		if err != nil {
			fmt.Println("failed", strings.ReplaceAll(err.Error(), "\n", "; "))
			continue
		}
		fmt.Println(reply)
	}
	if w.db != nil {
		if err := w.db.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "bbolt:", err)
			os.Exit(1)
		}
	}
}
