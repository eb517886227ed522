// SPDX-License-Identifier: Apache-2.0

package script

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/manormq/manor/services/conform/statements"
	"github.com/manormq/manor/services/conform/wire"
)

// Result is what came of a script on one version.
type Result struct {
	Script  string       `json:"script"`
	Title   string       `json:"title"`
	Version wire.Version `json:"-"`
	MQTT    string       `json:"mqtt"`
	// Skipped says why it did not run, "" if it did.
	Skipped string   `json:"skipped,omitempty"`
	Failure *Failure `json:"failure,omitempty"`
	Seconds float64  `json:"seconds"`
	// Trace is every packet with its time, for those who look for the reason.
	Trace []string `json:"trace,omitempty"`
}

// Failure is the step where a broker differs from a script.
type Failure struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Step string `json:"step"` // the text of the line
	Want string `json:"want"`
	Got  string `json:"got"`
	// Statements are those that the place is about, with their versions.
	Statements []string `json:"statements"`

	statement string // the one of 5.0 that was seen to be broken, if it is known
}

func (f *Failure) String() string {
	return fmt.Sprintf("%s:%d: %s: expected %s, got %s", f.File, f.Line, f.Step, f.Want, f.Got)
}

// Run runs the scripts that o chooses against its broker, several at a time, and
// returns their results in the order of the scripts and versions. The error is
// about o; what is wrong with the broker is in the results.
func Run(ctx context.Context, scripts []*Script, o *Options) ([]Result, error) {
	if err := o.prepare(); err != nil {
		return nil, err
	}
	set, err := statements.Load()
	if err != nil {
		return nil, err
	}
	type job struct {
		s *Script
		v wire.Version
	}
	var jobs []job
	for _, s := range scripts {
		for _, v := range s.Versions {
			if slices.Contains(o.Versions, v) && (o.Match == nil || o.Match.MatchString(s.Name)) {
				jobs = append(jobs, job{s, v})
			}
		}
	}
	lacks, err := o.lacks(ctx, set)
	if err != nil {
		return nil, err
	}
	results := make([]Result, len(jobs))
	var wg sync.WaitGroup
	free := make(chan struct{}, o.Jobs)
	for i, j := range jobs {
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			r := newRun(j.s, j.v, o, set)
			r.number = i
			// The number keeps the names of two runs apart, the rest those of
			// two scripts: 9 letters and digits, as every ClientId may have.
			r.names = names{o.RunID + pad(i), map[string]string{}}
			results[i] = r.all(ctx, lacks[j.s.Needs])
			if o.Each != nil {
				o.Each(results[i])
			}
		})
	}
	wg.Wait()
	return results, nil
}

// pad writes i with three letters and digits.
func pad(i int) string {
	s := strconv.FormatInt(int64(i)+36*36, 36)
	return s[len(s)-3:]
}

// run is a script on one version. One goroutine owns it.
type run struct {
	s       *Script
	v       wire.Version
	o       *Options
	set     *statements.Set
	number  int
	names   names
	clients map[string]*client
	began   time.Time
	mark    time.Time // the beginning of the step before
	trace   []string
	// kept and retained are what the broker is to forget afterwards: ClientIDs
	// and topics.
	kept, retained map[string]bool
	readers        sync.WaitGroup
}

func newRun(s *Script, v wire.Version, o *Options, set *statements.Set) *run {
	r := &run{s: s, v: v, o: o, set: set, clients: map[string]*client{}}
	r.kept, r.retained = map[string]bool{}, map[string]bool{}
	r.began = time.Now()
	r.mark = r.began
	return r
}

// all carries out the script, unless the broker lacks what it needs, and cleans
// up.
func (r *run) all(ctx context.Context, lacks string) Result {
	res := Result{Script: r.s.Name, Title: r.s.Title, Version: r.v, MQTT: r.v.String(), Skipped: lacks}
	if lacks != "" {
		return res
	}
	res.Failure = r.steps(ctx)
	if res.Failure != nil {
		r.cite(res.Failure)
	}
	for _, c := range r.clients {
		c.close()
	}
	r.clean(ctx)
	r.readers.Wait()
	res.Seconds = time.Since(r.began).Seconds()
	res.Trace = r.trace
	return res
}

// steps carries out the script and looks at what is left.
func (r *run) steps(ctx context.Context) *Failure {
	var last step
	for i := 0; i < len(r.s.steps); i++ {
		st := r.s.steps[i]
		if !slices.Contains(st.versions, r.v) {
			continue
		}
		last = st
		group := []step{st}
		for st.verb == anyOrder && i+1 < len(r.s.steps) {
			next := r.s.steps[i+1]
			if slices.Contains(next.versions, r.v) {
				if next.verb != anyOrder || next.client != st.client {
					break
				}
				group = append(group, next)
			}
			i++
		}
		if st.verb == perhaps && st.last == 0 && r.followed(i) {
			group[0].last = r.o.Timeout
		}
		now := time.Now()
		if f := r.do(ctx, group); f != nil {
			return f
		}
		r.mark = now
	}
	for _, name := range slices.Sorted(maps.Keys(r.clients)) {
		c := r.clients[name]
		if f := c.leftover(last); f != nil {
			return f
		}
	}
	return nil
}

// followed reports whether step i is followed by one that expects something of
// the same client. Then there is no need to guess how long a packet that may come
// takes: that one or the other comes.
func (r *run) followed(i int) bool {
	for _, st := range r.s.steps[i+1:] {
		if slices.Contains(st.versions, r.v) && (st.verb != perhaps || st.client != r.s.steps[i].client) {
			return st.verb == expect && st.client == r.s.steps[i].client
		}
	}
	return false
}

// do carries out one step, or the packets that may come in any order.
func (r *run) do(ctx context.Context, group []step) *Failure {
	st := group[0]
	if ctx.Err() != nil {
		return r.fail(st, st.text, "the end of the run: "+ctx.Err().Error())
	}
	if st.verb == wait {
		select {
		case <-time.After(st.last):
		case <-ctx.Done():
		}
		return nil
	}
	c := r.clients[st.client]
	if c == nil {
		c = &client{name: st.client, run: r, nextID: 1000}
		r.clients[st.client] = c
	}
	var err error
	switch st.verb {
	case send:
		err = c.send(ctx, st)
	case expect, anyOrder, later:
		err = c.expect(group)
	case perhaps:
		err = c.perhaps(st)
	default:
		err = c.macro(ctx, st)
	}
	return r.failure(st, err)
}

// mismatch is an error that says what was expected and what came.
type mismatch struct {
	at        *step // nil if it is the current one
	want, got string
	statement string
}

func (m *mismatch) Error() string { return "expected " + m.want + ", got " + m.got }

// failure makes a failure of a step's error, nil of none.
func (r *run) failure(st step, err error) *Failure {
	if err == nil {
		return nil
	}
	var m *mismatch
	if !errors.As(err, &m) {
		return r.fail(st, "that it works", err.Error())
	}
	if m.at != nil {
		st = *m.at
	}
	f := r.fail(st, m.want, m.got)
	f.statement = m.statement
	return f
}

func (r *run) fail(st step, want, got string) *Failure {
	return &Failure{File: r.s.File, Line: st.line, Step: st.text, Want: want, Got: got}
}

// cite finds the statements that f is about: the one that it names, those of the
// comment above its line, or all of the script.
func (r *run) cite(f *Failure) {
	if f.statement != "" {
		r.name(f, statements.Citation{ID: f.statement, Version: statements.V5})
		return
	}
	first := r.s.steps[0].line
	var near cite
	for _, c := range r.s.cites {
		if c.line > first && c.line < f.Line {
			near = c
		}
	}
	if near.line == 0 {
		for _, c := range r.s.cites {
			near.all, near.sections = append(near.all, c.all...), append(near.sections, c.sections...)
		}
	}
	f.Statements = near.sections
	for _, c := range near.all {
		for _, st := range r.set.Resolve(c) {
			if (st.Version == statements.V5) == (r.v == wire.V5) {
				r.name(f, statements.Citation{ID: st.ID, Version: st.Version})
			}
		}
	}
}

// name adds a statement to f.
func (r *run) name(f *Failure, c statements.Citation) {
	for _, st := range r.set.Resolve(c) {
		text := st.ID + " of " + string(st.Version) + ": " + st.Text
		if !slices.Contains(f.Statements, text) {
			f.Statements = append(f.Statements, text)
		}
	}
}

func (r *run) note(client, arrow, what string) {
	r.trace = append(r.trace, fmt.Sprintf("%7.3f %s %s %s", time.Since(r.began).Seconds(), client, arrow, what))
}

// clean has the broker forget the sessions and the retained messages of the
// script, so that a run leaves nothing in a broker that others use.
func (r *run) clean(ctx context.Context) {
	for id := range r.kept {
		r.visit(ctx, id, nil)
	}
	if len(r.retained) > 0 {
		r.visit(ctx, r.names.prefix+"clean", r.retained)
	}
}

func (r *run) visit(ctx context.Context, id string, topics map[string]bool) {
	c := &client{name: "clean", run: r, nextID: 1}
	defer c.close()
	if c.macro(ctx, step{verb: connect, kind: wire.Connect, args: []arg{{"id", id, true}}}) != nil {
		return
	}
	for topic := range topics {
		_ = c.packet(&wire.Packet{Kind: wire.Publish, Fields: []wire.Field{{Name: "topic", Value: topic}, {Name: "retain", Value: "1"}}})
	}
	_ = c.macro(ctx, step{verb: disconnect, kind: wire.Disconnect})
}
