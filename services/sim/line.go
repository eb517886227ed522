// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"

	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/sim/check"
)

// line is the link of a node to another one on which publishes cross: what is sent
// arrives in its order, and once, until the link is lost. Then what waits for an
// answer may have arrived or not.
type line struct {
	from *station
	to   *node
	// arrives and returns are when the last arrives, and its answer does.
	arrives, returns int64
	waiting          []*crossing
	// broken is why nothing is taken: the loss is not told yet, or the other end is away.
	broken bool
	// run is that of the other end; gen counts the losses.
	run, gen uint64
}

// crossing is one publish on a line.
type crossing struct {
	e    cluster.Enqueue
	done func(cluster.Answer)
}

// Times of links, in microseconds.
const (
	// silence is after what time a link on which nothing comes is lost.
	silence = 3 * second
	// redial is after what time a lost one is made again, if that is possible.
	redial = 300 * ms
)

// open reports whether both directions carry.
func (l *line) open() bool {
	w, a, b := l.from.n.w, l.from.n.at, l.to.at
	return l.to.up && w.net.cut[a][b] == 0 && w.net.cut[b][a] == 0
}

func (l *line) send(e *cluster.Enqueue, over cluster.LinkID, done func(cluster.Answer)) (cluster.LinkID, error) {
	link := cluster.LinkID(l.gen + 1)
	switch {
	case l.broken:
		return cluster.NoLink, cluster.ErrDown
	case over != cluster.AnyLink && over != link:
		return cluster.NoLink, cluster.ErrLost
	}
	if len(l.waiting) == 0 && l.run != l.to.run {
		if !l.open() {
			return cluster.NoLink, cluster.ErrDown
		}
		l.run = l.to.run
	}
	x := &crossing{e: *e, done: done}
	x.e.Message = e.Message.Clone()
	x.e.Parts, x.e.Members, x.e.After = slices.Clone(e.Parts), slices.Clone(e.Members), slices.Clone(e.After)
	if done != nil {
		l.waiting = append(l.waiting, x)
	}
	w, gen := l.from.n.w, l.gen
	l.arrives = max(l.arrives, w.now+w.between(100, w.net.delay))
	if w.rough != nil && w.faults {
		l.arrives = max(l.arrives, w.rough.late[l.from.n.at])
	}
	w.after(l.arrives-w.now, func() {
		if gen == l.gen && !l.broken {
			l.arrive(x)
		}
	})
	return link, nil
}

// arrive delivers a publish, or finds the link dead.
func (l *line) arrive(x *crossing) {
	if !l.open() || l.to.run != l.run {
		l.lose()
		return
	}
	w, gen, at := l.from.n.w, l.gen, l.to.station
	var answer func(cluster.Answer)
	if x.done != nil {
		answer = func(a cluster.Answer) {
			l.returns = max(l.returns, w.now+w.between(100, w.net.delay))
			w.after(l.returns-w.now, func() {
				switch {
				case gen != l.gen || l.broken:
				case !l.open() || l.to.run != l.run:
					l.lose()
				default:
					l.answered(x, a)
				}
			})
		}
	}
	in := at.inlet(l.from.n.name)
	in.Enqueue(&x.e, answer)
	in.Flush()
	at.step()
}

func (l *line) answered(x *crossing, a cluster.Answer) {
	i := slices.Index(l.waiting, x)
	if i < 0 {
		return
	}
	l.waiting = slices.Delete(l.waiting, i, i+1)
	x.done(a)
	l.from.step()
}

// lose tells those who wait that there will be no answer: soon where the other end
// has ended, else when nothing has come for long.
func (l *line) lose() {
	w, after := l.from.n.w, int64(silence)
	if !l.to.up || l.to.run != l.run {
		after = w.between(ms, 50*ms)
	}
	l.loseIn(after)
}

func (l *line) loseIn(after int64) {
	if l.broken {
		return
	}
	l.broken = true
	l.from.n.w.happens("link lost")
	l.from.n.w.disturbed(func(m *check.Messages) { m.LinkLost(string(l.from.n.name), string(l.to.name)) })
	l.from.n.w.after(after, l.from.during(func() {
		l.gen++
		waiting := l.waiting
		l.waiting = nil
		for _, x := range waiting {
			x.done(cluster.Answer{Err: cluster.ErrLost})
		}
		l.from.step()
		l.redial()
	}))
}

func (l *line) redial() {
	l.from.n.w.after(redial, l.from.during(func() {
		if !l.open() {
			l.redial()
			return
		}
		l.broken, l.run = false, l.to.run
		l.from.step()
	}))
}

// watch notices that a line on which somebody waits is dead.
func (l *line) watch() {
	if len(l.waiting) > 0 && !l.broken && (!l.open() || l.to.run != l.run) {
		l.lose()
	}
}

// breakLink ends the link of two nodes, which are told, and can make another one at once: nothing is cut.
func breakLink(w *World) func() {
	a, b := w.pick(), w.pick()
	if a == b || !w.links(a, b) {
		return func() {}
	}
	w.begins("break link", a.name, uint64(b.at))
	for _, ends := range [][2]*node{{a, b}, {b, a}} {
		s, to := ends[0].station, ends[1]
		s.lines[to.at].loseIn(w.between(100, 20*ms))
		s.meta.links[to.at] = metaLink{}
		w.net.linked(ends[0], to)
	}
	return func() {}
}
