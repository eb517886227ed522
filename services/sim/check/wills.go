// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"slices"
	"strings"
)

// Wills are what connections leave, and who got it: each at most once, and once if the
// connection ended in another way than the client's DISCONNECT. The zero value is ready;
// one goroutine uses it.
type Wills struct {
	all []*will
	of  map[string]*will
}

type will struct {
	payload  string
	unneeded bool
	got      map[string]int // by receiver
	id       string
	// forgone are receivers that may lack it; again: it may come twice.
	forgone []string
	again   bool
	// late are receivers that subscribed when its connection was there: it may have ended before.
	late []string
}

// WillOf is the payload of the will of a device's connection.
func WillOf(id string, connection int) string { return fmt.Sprintf("will of %s %d", id, connection) }

func (w *Wills) get(payload string) *will {
	x := w.of[payload]
	if x == nil {
		x = &will{payload: payload, unneeded: true, got: map[string]int{}}
		if w.of == nil {
			w.of = map[string]*will{}
		}
		w.of[payload] = x
		w.all = append(w.all, x)
	}
	return x
}

// Left is called when a device has been told that its session is there: its connection's
// will is committed then.
func (w *Wills) Left(id string, connection int) {
	x := w.get(WillOf(id, connection))
	x.unneeded, x.id = false, id
}

// Forgo is called when what was known of a device's session is lost: its wills may come or not, and
// it may have got others or not.
func (w *Wills) Forgo(id string) {
	for _, x := range w.all {
		x.forgone = append(x.forgone, id)
		if strings.HasPrefix(x.payload, "will of "+id+" ") {
			x.unneeded, x.again = true, true
		}
	}
}

// Subscribed is called when a device has its SUBACK: wills may have been sent before.
func (w *Wills) Subscribed(id string) {
	for _, x := range w.all {
		x.late = append(x.late, id)
	}
}

// Unneeded is called when a client is about to disconnect: no will is to be sent, and one is
// if the broker does not hear of it.
func (w *Wills) Unneeded(id string, connection int) { w.get(WillOf(id, connection)).unneeded = true }

// Delivered is called with each message that somebody gets, and reports whether it is a
// will.
func (w *Wills) Delivered(to, payload string) bool {
	if len(payload) < 8 || payload[:8] != "will of " {
		return false
	}
	w.get(payload).got[to]++
	return true
}

// Count is how many were delivered to somebody.
func (w *Wills) Count() (n int) {
	for _, x := range w.all {
		if len(x.got) > 0 {
			n++
		}
	}
	return n
}

// Missing is a will that was to be sent and that one of them has not; the newest of each
// device may belong to a connection that lives. Empty if there is none.
func (w *Wills) Missing(receivers []string) string {
	newest := map[string]*will{}
	for _, x := range w.all {
		if x.id != "" {
			newest[x.id] = x
		}
	}
	for _, x := range w.all {
		if x.unneeded || newest[x.id] == x {
			continue
		}
		for _, to := range receivers {
			if x.got[to] == 0 && !slices.Contains(x.forgone, to) && !slices.Contains(x.late, to) {
				return fmt.Sprintf("the %s has not come to %s", x.payload, to)
			}
		}
	}
	return ""
}

// Judge calls broken with every will that came twice.
func (w *Wills) Judge(broken func(format string, args ...any)) {
	for _, x := range w.all {
		var to []string
		for id := range x.got {
			to = append(to, id)
		}
		slices.Sort(to)
		for _, id := range to {
			if x.got[id] > 1 && !x.again && !slices.Contains(x.forgone, id) {
				broken("the %s came %d times to %s", x.payload, x.got[id], id)
			}
		}
	}
}
