// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// usage is one reading of the broker's processes.
type usage struct {
	cpu time.Duration // of all threads, in user and kernel mode
	rss int64         // bytes
}

// ticks is how many a second /proc counts in.
const ticks = 100

// descendants returns the pids and every living descendant of them.
func descendants(roots []int) []int {
	children := map[int][]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(d))
		if f := statFields(pid); f != nil {
			parent, _ := strconv.Atoi(f[1])
			children[parent] = append(children[parent], pid)
		}
	}
	var out []int
	seen := map[int]bool{}
	for todo := append([]int(nil), roots...); len(todo) > 0; {
		p := todo[0]
		todo = todo[1:]
		if !seen[p] {
			seen[p] = true
			out = append(out, p)
			todo = append(todo, children[p]...)
		}
	}
	return out
}

// statFields returns the fields of /proc/PID/stat after the command's name, or
// nil if there is no such process.
func statFields(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	fields := strings.Fields(string(b[1+bytes.LastIndexByte(b, ')'):]))
	if len(fields) < 22 {
		return nil
	}
	return fields
}

// sample adds up the processes of pids.
func sample(pids []int) (u usage) {
	for _, p := range pids {
		f := statFields(p)
		if f == nil {
			continue
		}
		user, _ := strconv.ParseInt(f[11], 10, 64)
		system, _ := strconv.ParseInt(f[12], 10, 64)
		pages, _ := strconv.ParseInt(f[21], 10, 64)
		u.cpu += time.Duration(user+system) * (time.Second / ticks)
		u.rss += pages * int64(os.Getpagesize())
	}
	return u
}

// histogram counts nanoseconds in steps of 1/32 of an octave.
type histogram struct {
	n [64 * 32]uint32
}

func (h *histogram) add(ns int64) { h.n[bucket(uint64(max(0, ns)))]++ }

func bucket(v uint64) int {
	if v < 32 {
		return int(v)
	}
	e := bits.Len64(v) - 6
	return (e+1)*32 + int(v>>uint(e))&31
}

// lowest is the least value of bucket i.
func lowest(i int) uint64 {
	if i < 32 {
		return uint64(i)
	}
	return uint64(32+i%32) << uint(i/32-1)
}

func (h *histogram) merge(o *histogram) {
	for i, v := range o.n {
		h.n[i] += v
	}
}

// quantile is the value below which the part q of all values is.
func (h *histogram) quantile(q float64) time.Duration {
	var total uint64
	for _, v := range h.n {
		total += uint64(v)
	}
	want, sum := uint64(q*float64(total)), uint64(0)
	for i, v := range h.n {
		if sum += uint64(v); sum > want {
			return time.Duration(lowest(i))
		}
	}
	return 0
}
