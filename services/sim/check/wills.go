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
	all  []*will
	of   map[string]*will
	mark string // Messages.Mark
	// subscribed are those who have subscribed to wills, and had that acknowledged.
	subscribed []string
}

type will struct {
	payload  string
	unneeded bool
	got      map[string]int // by receiver
	id       string
	// forgone are receivers that may lack it; again: it may come twice.
	forgone []string
	again   bool
	// owed are the receivers that are to get it: those who had subscribed when its connection may
	// have ended first (ended), and have not unsubscribed before they got it.
	owed  []string
	ended bool
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
	x := w.get(WillOf(id, connection) + w.mark)
	x.unneeded, x.id = false, id
}

// Forgo is called when what was known of a device's session is lost: its wills may come or not, and
// it may have got others or not.
func (w *Wills) Forgo(id string) {
	w.Unsubscribing(id)
	for _, x := range w.all {
		x.forgone = append(x.forgone, id)
		if strings.HasPrefix(x.payload, "will of "+id+" ") {
			x.unneeded, x.again = true, true
		}
	}
}

// Subscribed is called when a device has its SUBACK of a filter that wills match. It is owed the wills of
// connections that end from now on, also of those that are open.
func (w *Wills) Subscribed(id string) {
	if !slices.Contains(w.subscribed, id) {
		w.subscribed = append(w.subscribed, id)
	}
}

// Unsubscribing is called when a device sends an UNSUBSCRIBE of such a filter, or has lost its
// subscriptions: nobody knows which wills are sent before that is carried out.
func (w *Wills) Unsubscribing(id string) {
	is := func(o string) bool { return o == id }
	w.subscribed = slices.DeleteFunc(w.subscribed, is)
	for _, x := range w.all {
		x.owed = slices.DeleteFunc(x.owed, is)
	}
}

// Ended is called when a device's connection may have ended for the broker: at the latest when it has
// for the device, at the earliest when another broker has begun to serve the device's partition. Its
// will is owed to who has subscribed by then. Only the first time counts.
func (w *Wills) Ended(id string, connection int) {
	if x := w.get(WillOf(id, connection) + w.mark); !x.ended {
		x.ended, x.owed = true, slices.Clone(w.subscribed)
	}
}

// Unneeded is called when a client is about to disconnect: no will is to be sent, and one is
// if the broker does not hear of it.
func (w *Wills) Unneeded(id string, connection int) {
	w.get(WillOf(id, connection) + w.mark).unneeded = true
}

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

// Missing is a will that was to be sent and that one to whom it is owed has not; the newest of each
// device may belong to a connection that lives. Empty if there is none.
func (w *Wills) Missing() string {
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
		for _, to := range x.owed {
			if x.got[to] == 0 && !slices.Contains(x.forgone, to) {
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
