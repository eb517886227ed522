// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"bytes"
	"fmt"
	"syscall"
	"testing"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/leveldb"
	"github.com/manormq/manor/infra/mqtt"
)

// cpu is what the process has used, in µs: the store works in the background, too.
func cpu(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e3
}

// BenchmarkBody is what BodyThreshold is drawn from: the CPU time of each delivery of a
// message that waits in so many queues and then goes, with a body that they share and with
// a copy for each.
func BenchmarkBody(b *testing.B) {
	for _, receivers := range []int{2, 10, 100} {
		for _, size := range []int{256, 512, 1024, 2048, 4096} {
			for _, shared := range []bool{false, true} {
				b.Run(fmt.Sprintf("receivers=%d/size=%d/shared=%v", receivers, size, shared), func(b *testing.B) {
					store, err := leveldb.Open(b.TempDir(), leveldb.Options{})
					if err != nil {
						b.Fatal(err)
					}
					defer func() { _ = store.Close() }()
					space := NewSpace(store, 3)
					queues := make([]*Queue, receivers)
					for i := range queues {
						queues[i] = New(space, uint64(i), true)
					}
					const depth = 2000 // messages that wait, over all queues
					m := &mqtt.Message{Topic: []byte("site/7/state"), Payload: bytes.Repeat([]byte("x"), size)}
					var batch kv.Batch
					apply := func() {
						if err := store.Apply(&batch, false); err != nil {
							b.Fatal(err)
						}
						batch.Reset()
						for _, q := range queues {
							q.Committed(q.Submitted())
						}
					}
					body, done, began := uint64(0), 0, cpu(b)
					for b.Loop() {
						rounds := depth / receivers
						for range rounds {
							id := uint64(0)
							if shared {
								body++
								id = body
								space.PutBody(&batch, id, m)
							}
							for _, q := range queues {
								q.Append(&Entry{Message: m, QoS: 1}, id, &batch)
							}
							if shared {
								space.Settle(&batch, id)
							}
							apply()
						}
						for range rounds {
							for _, q := range queues {
								e, err := q.Head()
								if err != nil || e == nil {
									b.Fatalf("head: %v, %v", e, err)
								}
								q.Take(false, &batch)
								q.Release(e.Seq, &batch)
							}
							apply()
						}
						done += rounds * receivers
					}
					b.ReportMetric((cpu(b)-began)/float64(done), "µs/delivery")
				})
			}
		}
	}
}
