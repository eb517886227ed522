// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/link"
)

// The one that answered last is tried first; the others follow in their order, and each
// of them once.
func TestDialer(t *testing.T) {
	up, tried := map[string]bool{}, []string(nil)
	d := &dialer{addresses: []string{"a", "b", "c"}, one: func(ctx context.Context, address string, _ link.Gateway) (link.Broker, error) {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("a broker may keep the others waiting for ever")
		}
		tried = append(tried, address)
		if up[address] {
			return nil, nil
		}
		return nil, errors.New("nobody there")
	}}
	for _, step := range []struct {
		up, want string
		fails    bool
	}{
		{"a b c", "a", false},
		{"b c", "a b", false},
		{"a b c", "b", false},
		{"a", "b c a", false},
		{"", "a b c", true},
		{"c", "a b c", false},
	} {
		clear(up)
		for a := range strings.FieldsSeq(step.up) {
			up[a] = true
		}
		tried = nil
		_, err := d.dial(t.Context(), nil)
		if (err != nil) != step.fails || !slices.Equal(tried, strings.Fields(step.want)) {
			t.Errorf("with %q up: tried %q, %v; want %q", step.up, tried, err, step.want)
		}
		for _, a := range d.addresses {
			if step.fails && !strings.Contains(err.Error(), "at "+a) {
				t.Errorf("%v does not name %s", err, a)
			}
		}
	}
	d.elsewhere()
	tried, up["a"] = nil, true
	if _, err := d.dial(t.Context(), nil); err != nil || !slices.Equal(tried, []string{"a"}) {
		t.Errorf("elsewhere than at c: tried %q, %v; want a", tried, err)
	}
	up["a"] = false
	d.elsewhere()
	d.elsewhere()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tried, up["c"] = nil, false
	if _, err := d.dial(ctx, nil); err == nil || len(tried) > 1 {
		t.Errorf("after its end it tried %q: %v", tried, err)
	}
}
