// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"
)

// Footprint measures what brokers keep for sessions without a connection, for their
// subscriptions and for retained messages: on one broker, then on two that follow
// each other. The sessions are made over the brokers' own links, without sockets of
// clients.
type Footprint struct {
	// Program is the path of manor.
	Program string
	// Sessions is how many sessions are made, with one subscription each that no
	// other has, and as many retained messages.
	Sessions int
	// Payload is the size of a retained message's payload, in bytes.
	Payload int
	// Brokers are the clusters that are measured: how many brokers each has. Where
	// there is more than one, each partition has two replicas.
	Brokers string
}

// Flags declares the options on fs, with their defaults.
func (m *Footprint) Flags(fs *flag.FlagSet) {
	fs.IntVar(&m.Sessions, "sessions", 1_000_000, "sessions, subscriptions and retained messages")
	fs.IntVar(&m.Payload, "payload", 64, "bytes of a retained message")
	fs.StringVar(&m.Brokers, "brokers", "1,2", "numbers of brokers to measure, comma separated")
}

// kept is what all brokers together hold.
type kept struct {
	// heap is what is in use after a garbage collection, without tables: those are the
	// store's memory tables, which hold up to twice its write buffer and their indexes,
	// once that much was written, however much is kept. With them what is made first
	// would seem to cost what they grow by, and the next nothing.
	heap, tables, rss, disk int64 // bytes
	took                    time.Duration
}

// parts are what is made in turn, each with what was there before.
var parts = []string{"session", "subscription", "retained message"}

// warmPart is which part of all is made first and not counted: of everything, so that
// logs, caches and the store's files are in use as they are later.
const warmPart = 10

// Run measures, and writes a table to out as it goes on.
func (m Footprint) Run(ctx context.Context, out io.Writer) error {
	if m.Sessions < 1 || m.Payload < 0 || m.Payload > 64<<10 {
		return fmt.Errorf("expected at least one session and a payload of 0 to 65536 bytes, found %d and %d", m.Sessions, m.Payload)
	}
	fmt.Fprintf(out, "%d sessions, subscriptions and retained messages of %d bytes, behind %d that are not counted\n", m.Sessions, m.Payload, m.warm())
	fmt.Fprintf(out, "bytes for each one, all brokers together; heap without memory tables, rss and disk with all\n\n")
	fmt.Fprintf(out, "%-8s %-9s %-17s %8s %8s %8s %9s\n", "brokers", "replicas", "what", "heap", "rss", "disk", "made /s")
	alone := map[string]kept{}
	for n := range strings.SplitSeq(m.Brokers, ",") {
		replicas := "2"
		if n == "1" {
			replicas = "1"
		}
		got, warm, err := m.cluster(ctx, "--brokers "+n+" --gateways 1 --replicas "+replicas)
		if err != nil {
			return err
		}
		for i, what := range parts {
			k, each := got[i], func(total int64) float64 { return float64(total) / float64(m.Sessions) }
			fmt.Fprintf(out, "%-8s %-9s %-17s %8.0f %8.0f %8.0f %9.0f\n", n, replicas, what, each(k.heap), each(k.rss), each(k.disk), float64(m.Sessions)/k.took.Seconds())
			if n == "1" {
				alone[what] = k
			} else if a, ok := alone[what]; ok {
				fmt.Fprintf(out, "%-8s %-9s %-17s %8.0f %8.0f %8.0f\n", "", "", "  its follower", each(k.heap-a.heap), each(k.rss-a.rss), each(k.disk-a.disk))
			}
		}
		const mib = 1 << 20
		fmt.Fprintf(out, "%-8s %-9s MiB before that, heap %d, rss %d, disk %d; memory tables before and after each %d", n, replicas, warm.heap/mib, warm.rss/mib, warm.disk/mib, warm.tables/mib)
		for _, k := range got {
			fmt.Fprintf(out, ", %d", k.tables/mib)
		}
		fmt.Fprintln(out)
	}
	return nil
}

// warm is how many of each are made first.
func (m Footprint) warm() int { return max(m.Sessions/warmPart, 1) }

// cluster measures one cluster: what it has when it is warm, and by how much each part
// is more; of the memory tables all that there is then.
func (m Footprint) cluster(ctx context.Context, dev string) (got []kept, warm kept, err error) {
	b, err := startManor(ctx, m.Program, row{dev: dev}, strings.Fields(dev))
	if err != nil {
		return nil, warm, err
	}
	defer b.stop()
	f, err := newFleet(ctx, b, m.Payload)
	if err != nil {
		return nil, warm, err
	}
	defer f.close()
	steps := []func(ctx context.Context, i int) error{f.session, f.subscribe, f.retain}
	for _, do := range steps {
		if err := f.each(ctx, 0, m.warm(), do); err != nil {
			return nil, warm, err
		}
	}
	if warm, err = b.kept(); err != nil {
		return nil, warm, err
	}
	last := warm
	for _, do := range steps {
		start := time.Now()
		if err := f.each(ctx, m.warm(), m.Sessions, do); err != nil {
			return nil, warm, err
		}
		took := time.Since(start)
		now, err := b.kept()
		if err != nil {
			return nil, warm, err
		}
		got = append(got, kept{now.heap - last.heap, now.tables, now.rss - last.rss, now.disk - last.disk, took})
		last = now
	}
	return got, warm, nil
}

// restTime is how long what was made may take to be committed and followed: brokers
// of a cluster are never quite still.
const restTime = 3 * time.Second

// kept reads what the brokers hold once they rest.
func (b *broker) kept() (k kept, err error) {
	var pids []int
	for _, p := range b.nodes {
		pids = append(pids, p.pid)
	}
	settleWithin(pids, restTime)
	for _, p := range b.nodes {
		var m memory
		// Twice: what has a finalizer goes with the second.
		for range 2 {
			if m, err = readMemory(p.operator, "&gc=1"); err != nil {
				return k, err
			}
		}
		k.heap += m.heap - m.tables
		k.tables += m.tables
		err = filepath.WalkDir(p.data, func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if info, err := d.Info(); err == nil { // a file may have gone
				k.disk += info.Size()
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return k, err
		}
	}
	k.rss = sample(pids).rss
	return k, nil
}
