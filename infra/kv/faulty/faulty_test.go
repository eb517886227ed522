// SPDX-License-Identifier: Apache-2.0

package faulty_test

import (
	"errors"
	"testing"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/faulty"
	"github.com/manormq/manor/infra/kv/kvtest"
	"github.com/manormq/manor/infra/kv/mem"
)

func TestStore_WithoutFaultsIsAStore(t *testing.T) {
	kvtest.Run(t, kvtest.Subject{Open: func(testing.TB) kv.Store { return faulty.New(mem.New(), faulty.Script{}) }})
}

func TestStore_FailsByScript(t *testing.T) {
	s := faulty.New(mem.New(), faulty.Script{
		Apply: faulty.At(2, faulty.ErrDisk), Torn: faulty.At(3, faulty.ErrDisk),
		Get: faulty.Between(1, 2, faulty.ErrDisk), Scan: faulty.From(2, faulty.ErrDisk),
	})
	for n, want := range []error{nil, faulty.ErrDisk, faulty.ErrDisk, nil} {
		var b kv.Batch
		b.Put([]byte{byte('a' + n)}, nil)
		if err := s.Apply(&b, false); !errors.Is(err, want) {
			t.Errorf("Apply %d: %v, want %v", n+1, err, want)
		}
	}
	got := ""
	for _, e := range kvtest.Dump(t, s, nil, nil) {
		got += e.Key
	}
	if got != "acd" {
		t.Errorf("the store holds %q, want acd: a failed Apply left, a torn one kept", got)
	}
	for n, want := range []error{faulty.ErrDisk, faulty.ErrDisk, nil} {
		if _, err := s.Get([]byte("a")); !errors.Is(err, want) {
			t.Errorf("Get %d: %v, want %v", n+1, err, want)
		}
	}
	it := s.Scan(nil, nil)
	if it.Next() || !errors.Is(it.Err(), faulty.ErrDisk) {
		t.Errorf("the second scan gave %v, want ErrDisk", it.Err())
	}
}
