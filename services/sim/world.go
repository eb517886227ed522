// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"container/heap"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/sim/check"
)

// Durations, in microseconds of the world's time.
const (
	ms     = 1000
	second = 1000 * ms
	// healed is how long the world may take, once all faults have ended, until all
	// is as it should be.
	healed = 60 * second
)

// minEvents is the least that a world goes through before it is healed.
const minEvents = 2000

// World is one simulated cluster. It is owned by one goroutine.
type World struct {
	rand   *rand.Rand
	now    int64
	seq    uint64
	events events
	count  int
	hash   uint64
	trace  io.Writer

	nodes   []*node
	bus     bucket
	net     network
	clients []client
	// partitions is how many there are, replicas how many brokers hold each.
	partitions int
	// spread is how many of them the tenant of the devices has, 0 for all.
	spread   int
	replicas []int
	logKept  int  // bytes
	commit   bool // whether disks sync with each write
	faults   bool // whether there are any now
	// traps is how many percent of the changes of the table have a fault follow at
	// once; busy until when clients are at their fastest.
	traps int
	busy  int64
	// prey is the partition whose entry changed when the newest trap closed.
	prey partition.ID
	// sessions says that brokers have sessions, of devices, and what they write is what
	// the clients append in other worlds.
	sessions bool
	devices  []*device
	// metaLag is the longest that messages of the metadata take to a node with a new disk, beyond
	// what others take, and actors counts those that were made.
	metaLag int64
	rough   *rough // nil in worlds that are not
	expires bool   // some sessions do
	actors  uint64
	places  places
	// gone are the partitions of which a disk that was lost had the last whole copy, left those of
	// which it was that of all in sync before the change arrived by which they were all.
	gone, left []bool
	// dark counts the appends acknowledged by owners that began to serve while the bus
	// was down, as long as it was.
	dark int
	// serves counts by partition how often somebody began to serve it, jumps how often a
	// clock was set.
	serves []int
	taken  []taken
	jumps  int
	tally  Tally

	History *check.History
	houses  []*house
}

type event struct {
	at  int64
	seq uint64
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	old[len(old)-1] = event{}
	*e = old[:len(old)-1]
	return x
}

// Result is what a run showed.
type Result struct {
	Seed   uint64
	Events int
	// Hash is that of all events: equal seeds give equal hashes.
	Hash uint64
	// Simulated is how long the world lived, in seconds.
	Simulated float64
	// Appends, Acked and Lost count what the clients appended, what was
	// acknowledged, and what of that no replica in sync had any more.
	Appends, Acked, Lost int
	// Delivered is how many messages devices got.
	Delivered int
	// Dark counts the appends that owners acknowledged which had begun to serve while
	// the bus was down, and still was.
	Dark     int
	Happened Tally
	Broken   []string
}

// Run runs the world of a seed. trace is written to unless it is nil.
func Run(seed uint64, trace io.Writer) Result {
	w := newWorld(seed, false, trace)
	length := int64(20+w.rand.IntN(25)) * second
	if w.chance(10) {
		length += 70 * second // long enough for a dead broker's replicas to be made anew
	}
	w.schedule(length)
	w.runUntil(length)
	for w.count < minEvents && !w.broken() {
		w.runUntil(w.now + second) // when most brokers were down, little happened
	}
	w.heal()
	w.settle()
	if w.chance(30) && !w.broken() {
		w.rollBack()
	}
	if !w.broken() {
		w.judge()
	}
	return Result{
		Seed: seed, Events: w.count, Hash: w.hash, Simulated: float64(w.now) / second,
		Appends: len(w.History.Appends), Acked: w.History.Acked, Lost: w.History.Lost, Dark: w.dark, Happened: w.tally, Broken: w.History.Broken(),
	}
}

// settle waits until everything is as it should be.
func (w *World) settle() {
	for end := w.now + healed; w.now < end && !w.broken() && !w.settled(); {
		w.operate()
		w.runUntil(w.now + second)
	}
	if !w.broken() && !w.settled() {
		w.History.Break("%d s after all faults have ended: %s", healed/second, w.unsettled())
	}
}

func newWorld(seed uint64, sessions bool, trace io.Writer) *World {
	w := &World{sessions: sessions, rand: rand.New(rand.NewPCG(seed, 1)), History: check.New(), trace: trace, faults: true, tally: Tally{}}
	w.places.w = w
	w.partitions = 2 + w.rand.IntN(3)
	w.commit = w.chance(30)
	w.traps = []int{0, 10, 30}[w.rand.IntN(3)]
	w.logKept = []int{800, 8000, 100_000}[w.rand.IntN(3)]
	brokers := 3 + w.rand.IntN(3)
	for range w.partitions {
		w.replicas = append(w.replicas, []int{1, 2, 2, 3, 3}[w.rand.IntN(5)])
	}
	zones := w.chance(30)
	for i := range brokers {
		n := newNode(w, i)
		if zones {
			n.zone = fmt.Sprintf("zone-%d", i%2)
		}
		w.nodes = append(w.nodes, n)
	}
	w.bus.init(w)
	w.net.init(w)
	for i := range w.nodes {
		if i >= 3 && w.chance(30) {
			w.after(w.between(second, 30*second), func() { w.joins(w.nodes[i]) })
		} else {
			w.after(w.between(0, 500*ms), w.nodes[i].start)
		}
	}
	if sessions {
		w.commit = true
		w.metaLag = []int64{0, 400 * ms, 1500 * ms}[w.rand.IntN(3)]
		w.serves, w.gone, w.left = make([]int, w.partitions), make([]bool, w.partitions), make([]bool, w.partitions)
		w.taken = make([]taken, w.partitions)
		return w
	}
	for i := range 3 {
		w.clients = append(w.clients, client{id: i, seqs: make([]uint64, w.partitions)})
		w.after(w.between(0, second), w.clients[i].turn(w))
	}
	return w
}

// joins has a node come to a cluster that is there.
func (w *World) joins(n *node) {
	if n.run == 0 {
		w.happens("joins")
	}
	n.start()
}

// after has do happen in d microseconds; in none if that is less: time never goes back.
func (w *World) after(d int64, do func()) {
	w.seq++
	heap.Push(&w.events, event{at: w.now + max(d, 0), seq: w.seq, do: do})
}

func (w *World) runUntil(end int64) {
	for len(w.events) > 0 && w.events[0].at <= end {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		w.count++
		e.do()
		if w.broken() {
			return
		}
	}
	w.now = end
}

// note adds something to the trace.
func (w *World) note(what string, who partition.Broker, args ...uint64) {
	mix := func(v uint64) { w.hash = (w.hash ^ v) * 1099511628211 }
	mix(uint64(w.now))
	for i := range len(what) {
		mix(uint64(what[i]))
	}
	for i := range len(who) {
		mix(uint64(who[i]))
	}
	for _, v := range args {
		mix(v)
	}
	if w.trace != nil {
		fmt.Fprintf(w.trace, "%9.3f %-4s %-10s %d\n", float64(w.now)/second, who, what, args)
	}
}

// chance is true percent times of a hundred.
func (w *World) chance(percent int) bool { return w.rand.IntN(100) < percent }

// between is a number of [from, to).
func (w *World) between(from, to int64) int64 { return from + w.rand.Int64N(max(to-from, 1)) }

func (w *World) broken() bool { return len(w.History.Broken()) > 0 }

// pick returns a node, rather often one that owns a partition or is in sync.
func (w *World) pick() *node {
	if w.chance(50) {
		t := w.bus.table(partition.ID(w.rand.IntN(w.partitions)))
		if len(t.InSync) > 0 {
			if w.chance(50) {
				return w.node(t.Owner)
			}
			return w.node(t.InSync[w.rand.IntN(len(t.InSync))])
		}
	}
	return w.nodes[w.rand.IntN(len(w.nodes))]
}

func (w *World) node(b partition.Broker) *node {
	for _, n := range w.nodes {
		if n.name == b {
			return n
		}
	}
	return nil
}
