// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestMeasure compares the floor with the floor.
func TestMeasure(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := Comparison{Program: program, Runs: 2, Duration: time.Second, Peers: floorName}
	peers, err := c.peers()
	if err != nil {
		t.Fatal(err)
	}
	const short = " -n 3 -dur 300ms -warm 100ms"
	for _, r := range []row{
		{name: "qos 0", args: "-s pairs" + short, procs: 1},
		{name: "qos 1", args: "-s pairs -qos 1 -mqtt 5" + short},
		{name: "prefix", args: "-s fanin" + short},
		{name: "one to many", args: "-s fanout -subs 20" + short},
		{name: "many tenants", args: "-s pairs" + short, tenants: 2},
	} {
		t.Run(r.name, func(t *testing.T) {
			results, err := c.measure(t.Context(), r, peers)
			if err != nil {
				t.Fatal(err)
			}
			if served := len(results[1]) > 0; served != r.onFloor() || served == (r.tenants > 0) {
				t.Errorf("the floor has %d results", len(results[1]))
			}
			for _, res := range append(results[0], results[1]...) {
				if res.Error != "" || res.Lost > 0 || res.Delivered == 0 {
					t.Errorf("%s: %d delivered, %d lost, %s", res.Label, res.Delivered, res.Lost, res.Error)
				}
			}
		})
	}
}

func TestFloor_Refuses(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := startFloor(t.Context(), row{}, program)
	if err != nil {
		t.Fatal(err)
	}
	defer b.stop()
	for args, want := range map[string]string{"-s shared": "subscription refused", "-s wild -n 1 -subs 1": "subscription refused"} {
		var o Options
		if err := parse("", append(strings.Fields(args), b.arguments(overTCP)...), os.Stderr, o.Flags); err != nil {
			t.Fatal(err)
		}
		if res, err := Run(o); err != nil || !strings.Contains(res.Error, want) {
			t.Errorf("%s: %v, %v, want %q", args, res, err, want)
		}
	}
}
