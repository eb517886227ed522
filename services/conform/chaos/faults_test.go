// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// world is a region under load.
type world struct {
	*Region
	load *Load
}

// fault is something that happens to a world. do returns when it is over: all
// processes run and reach each other again.
type fault struct {
	name string
	do   func()
}

// faults are all there are, on nodes chosen anew.
func (w *world) faults() (all []fault) {
	add := func(name string, do func()) {
		if strings.HasPrefix(name, *only) {
			all = append(all, fault{name, do})
		}
	}
	for _, role := range []string{"broker", "gateway", "nats", "tenancy"} {
		n := w.one(role)
		away := rand.N(8 * time.Second)
		add(fmt.Sprintf("kill -9 %s for %.1f s", n.Name, away.Seconds()), func() { w.restart(away, (*Node).Kill, n) })
	}
	return all
}

func (w *world) one(role string) *Node {
	of := w.Of(role)
	return of[rand.IntN(len(of))]
}

// restart ends nodes, all at once, and starts them again after away.
func (w *world) restart(away time.Duration, end func(*Node), nodes ...*Node) {
	for _, n := range nodes {
		end(n)
	}
	time.Sleep(away) // how long the fault lasts
	for _, n := range nodes {
		n.Start()
	}
	for _, n := range nodes {
		n.Ready(time.Minute)
	}
}
