// SPDX-License-Identifier: Apache-2.0

package share

import (
	"sync/atomic"
	"testing"
)

// BenchmarkChoice has a group of ten choose for a message; parallel is by publishers
// of several shards at once.
func BenchmarkChoice(b *testing.B) {
	type session struct{ _ int }
	var none *session
	g := NewGroup[*session]("$share/g/t")
	var busy atomic.Bool
	for range 10 {
		g.Join(Member[*session]{Session: &session{}, Busy: &busy}, true)
	}
	for name, choose := range map[string]func() bool{
		"next": func() bool { _, _, ok := g.Next(); return ok },
		"pick": func() bool { _, _, ok := g.Pick(none); return ok && !g.Durable() },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if !choose() {
					b.Fatal("nobody")
				}
			}
		})
		b.Run(name+"/parallel", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if !choose() {
						b.Error("nobody")
						return
					}
				}
			})
		})
	}
}
