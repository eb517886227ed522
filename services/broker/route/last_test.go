// SPDX-License-Identifier: Apache-2.0

package route

import "testing"

// TestAppendLast holds that what was found for a name is not looked for again until a filter
// changes: what the memory is made to have in between is what comes.
func TestAppendLast(t *testing.T) {
	routes := &Tenant[int]{}
	routes.Subscribe(0, "a/+", Sub[int]{Session: 1})
	last := &Last[int]{}
	name := []byte("a/b")
	if got := routes.AppendLast(nil, name, last); len(got) != 1 {
		t.Fatalf("%d entries, expected 1", len(got))
	}
	last.entries = last.entries[:0]
	if got := routes.AppendLast(nil, name, last); len(got) != 0 {
		t.Errorf("%d entries: the same name is matched anew", len(got))
	}
	routes.Subscribe(0, "a/#", Sub[int]{Session: 1})
	if got := routes.AppendLast(nil, name, last); len(got) != 2 {
		t.Errorf("%d entries after another filter came, expected 2", len(got))
	}
}
