// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// A small directory is measured from end to end, and every figure is there.
func TestDirectory(t *testing.T) {
	var out bytes.Buffer
	d := Directory{Tenants: 20, Credentials: 60, Lookups: 40, AtOnce: 4, SignUps: 50 * time.Millisecond, rest: 60 * time.Millisecond}
	if err := d.Run(t.Context(), &out); err != nil {
		t.Fatal(err, &out)
	}
	for _, want := range []string{
		"20 tenants, 60 credentials", "filled: sign-ups", "filled: imported hashes", "on disk", "start of the NATS server",
		"all credentials of 1 tenants at once", "all credentials of 20 tenants at once", "; 60 of them",
		"start of a gateway's directory", "look-ups of what the directory has not read", "look-ups of what it has",
		"memory of the directory  ", "snapshot", "start from the snapshot", "memory of the directory, nobody connected", "sign-ups, without hashing",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("expected %q in\n%s", want, &out)
		}
	}
}

func TestDirectory_Flags(t *testing.T) {
	for _, args := range [][]string{{"-tenants", "0"}, {"-tenants", "10", "-credentials", "9"}, {"-lookups", "0"}, {"-at-once", "0"}, {"-signups", "0s"}} {
		var d Directory
		if err := parse("manor bench directory", args, io.Discard, d.Flags); err != nil {
			t.Fatal(err)
		}
		if err := d.Run(t.Context(), io.Discard); !errs.Is(err, errs.Invalid) {
			t.Errorf("%v: got %v, expected Invalid", args, err)
		}
	}
}
