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

// readMemory reads the end of a heap profile as text.
func readMemory(operator, more string) (m memory, err error) {
	client := http.Client{Timeout: 20 * time.Second}
	resp, err := client.Get(operator + "/debug/pprof/heap?debug=1" + more)
	if err != nil {
		return m, err
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
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
