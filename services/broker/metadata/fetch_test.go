// SPDX-License-Identifier: Apache-2.0

package metadata_test

import (
	"fmt"
	"testing"
)

// A broker that has lost its disk fetches what there was, page by page. If who sends the pages loses its
// disk too, the next page has nothing of what was behind it: that was not deleted. A third broker, which has
// all, must not be made to believe so either.
func TestFetch_PeerLosesItsDisk(t *testing.T) {
	for after := range 40 {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			w := newWorld(t, 1, 3)
			a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
			all := names("k", 40)
			a.put("kept", all...)
			w.run(10)
			for _, o := range []*node{b, c} {
				w.split[[2]string{a.name, o.name}], w.split[[2]string{o.name, a.name}] = true, true
			}
			c.loseDisk()
			for range after {
				w.tick(c)
				w.deliver()
			}
			b.loseDisk()
			w.run(10)
			clear(w.split)
			w.run(30)
			for _, n := range w.nodes {
				for _, name := range all {
					if n.view[key(name)] != "kept" {
						t.Fatalf("%s has %q under %s", n.name, n.view[key(name)], name)
					}
				}
			}
		})
	}
}
