// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// collections are how many garbage collections are asked of each process, since
// one that allocates little makes none in the time of a measurement.
const collections = 200

// pauses are the pauses of garbage collection of Manor's processes since begin,
// by their operator listeners.
type pauses struct {
	operators []string
	seen      []uint64 // collections at begin, by process
}

// watchPauses begins with the present collection. operators are base URLs,
// comma separated; none if empty.
func watchPauses(operators string) (p pauses, err error) {
	if operators == "" {
		return p, nil
	}
	p.operators = strings.Split(operators, ",")
	for _, url := range p.operators {
		m, err := readMemory(url, "")
		if err != nil {
			return p, fmt.Errorf("-operator: %w", err)
		}
		p.seen = append(p.seen, m.collections)
	}
	return p, nil
}

// report asks for further collections and adds what all took to res.
func (p pauses) report(res *Result) error {
	var h histogram
	for i, url := range p.operators {
		var m memory
		for range collections {
			var err error
			if m, err = readMemory(url, "&gc=1"); err != nil {
				return err
			}
		}
		for _, ns := range m.since(p.seen[i]) {
			h.add(ns)
			res.Extra["gc_pauses"]++
		}
	}
	if len(p.operators) > 0 {
		res.Extra["gc_pause_p50_us"] = micros(h.quantile(.5))
		res.Extra["gc_pause_p99_us"] = micros(h.quantile(.99))
	}
	return nil
}

// memory is the part of runtime.MemStats that is read here.
type memory struct {
	collections uint64
	pauses      []int64 // the latest, in a ring
	heap        int64   // bytes that are allocated
	tables      int64   // of those, what goleveldb's memory tables have
}

// since are the pauses of the collections after the first n, of which only the
// latest are known.
func (m memory) since(n uint64) (ns []int64) {
	size := uint64(len(m.pauses))
	if m.collections > size {
		n = max(n, m.collections-size)
	}
	for ; n < m.collections; n++ {
		ns = append(ns, m.pauses[n%size])
	}
	return ns
}

// memoryTables is a part of the names of goleveldb's functions that allocate memory
// tables: arrays of tens of MiB that hold what was written last, whatever that was. None
// is too small to be in the samples of a heap profile, so their sum is exact.
const memoryTables = "/goleveldb/leveldb/memdb."

// readMemory reads a heap profile as text: the samples, and the statistics behind them.
func readMemory(operator, more string) (m memory, err error) {
	client := http.Client{Timeout: 20 * time.Second}
	resp, err := client.Get(operator + "/debug/pprof/heap?debug=1" + more)
	if err != nil {
		return m, err
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	sample := int64(0) // what the allocations of the present stack have
	for lines.Scan() {
		if stack := lines.Text(); strings.Contains(stack, " @ 0x") {
			if sample, err = inUse(stack); err != nil {
				return m, err
			}
		} else if strings.Contains(stack, memoryTables) {
			m.tables += sample
			sample = 0 // the functions of a stack stand below each other
		}
		name, value, _ := strings.Cut(strings.TrimPrefix(lines.Text(), "# "), " = ")
		switch name {
		case "HeapAlloc":
			var perr error
			m.heap, perr = strconv.ParseInt(value, 10, 64)
			err = errors.Join(err, perr)
		case "NumGC":
			m.collections, err = strconv.ParseUint(value, 10, 64)
		case "PauseNs":
			for field := range strings.FieldsSeq(strings.Trim(value, "[]")) {
				ns, perr := strconv.ParseInt(field, 10, 64)
				m.pauses, err = append(m.pauses, ns), errors.Join(err, perr)
			}
		}
	}
	if err = errors.Join(err, lines.Err()); err == nil && len(m.pauses) == 0 {
		err = fmt.Errorf("%s: no pauses in the heap profile: %s", operator, resp.Status)
	}
	return m, err
}

// inUse reads the bytes in use from the first line of a sample of a heap profile:
// objects: bytes [objects: bytes] @ addresses, the second pair being all that ever was.
func inUse(line string) (int64, error) {
	_, value, ok := strings.Cut(line, ": ")
	value, _, closed := strings.Cut(value, " [")
	n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
	if !ok || !closed || err != nil {
		return 0, fmt.Errorf("a heap profile: expected \"objects: bytes [objects: bytes] @ addresses\", found %.60q", line)
	}
	return n, nil
}
