// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// What memory tables have is added up from the samples of a heap profile, each once
// though several of its functions are theirs.
func TestReadMemory(t *testing.T) {
	const end = "\n# runtime.MemStats\n# HeapAlloc = 100000000\n# PauseNs = [5 6 0]\n# NumGC = 2\n"
	for _, c := range []struct {
		name, samples string
		tables        int64
		fails         bool
	}{
		{"none", "1: 4096 [2: 8192] @ 0x1 0x2\n#\t0x1\tmain.main+0x1\t/a.go:1\n", 0, false},
		{"two", "1: 33554432 [3: 100663296] @ 0x1 0x2\n#\t0x1\tgithub.com/syndtr/goleveldb/leveldb/memdb.New+0x1\t/a.go:1\n#\t0x2\tmain.main+0x1\t/a.go:1\n\n" +
			"1: 1000 [1: 1000] @ 0x3\n#\t0x3\tmain.other+0x1\t/a.go:1\n\n" +
			"2: 2000000 [9: 9000000] @ 0x1 0x4\n#\t0x1\tgithub.com/syndtr/goleveldb/leveldb/memdb.(*DB).grow+0x1\t/a.go:1\n#\t0x4\tgithub.com/syndtr/goleveldb/leveldb/memdb.(*DB).Put+0x1\t/a.go:2\n", 35_554_432, false},
		{"of another form", "1: much [1: 1] @ 0x1\n", 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/debug/pprof/heap" || r.FormValue("debug") != "1" || r.FormValue("gc") != "1" {
					t.Errorf("asked for %v", r.URL)
				}
				_, _ = io.WriteString(w, "heap profile: 1: 2 [3: 4] @ heap/1048576\n"+c.samples+end)
			}))
			defer s.Close()
			m, err := readMemory(s.URL, "&gc=1")
			if c.fails {
				if err == nil {
					t.Fatal("a profile that cannot be read is taken")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if m.tables != c.tables || m.heap != 100_000_000 || m.collections != 2 || len(m.pauses) != 3 {
				t.Errorf("expected %d bytes of tables, 100000000 of heap, 2 collections and 3 pauses, found %+v", c.tables, m)
			}
		})
	}
}
