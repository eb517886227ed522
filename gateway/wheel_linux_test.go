// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"runtime/debug"
	"syscall"
	"testing"
	"unsafe"
)

// A million entries cost what they have in their connections and nothing in the
// wheel, and a tick at which none is due touches none of them: their memory cannot be
// read meanwhile.
func TestWheel_AMillionThatAreNotDue(t *testing.T) {
	const (
		n     = 1_000_000
		entry = 32 // bytes
		soon  = 60_000
		later = 2 * soon // when they are due, in milliseconds, after now
	)
	if size := unsafe.Sizeof(timed{}); size > entry {
		t.Errorf("an entry has %d bytes, expected at most %d", size, entry)
	}
	pages, err := syscall.Mmap(-1, 0, n*int(unsafe.Sizeof(timed{})), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Munmap(pages) }()
	entries := unsafe.Slice((*timed)(unsafe.Pointer(unsafe.SliceData(pages))), n)

	w := wheel{}
	next := 0
	if allocs := testing.AllocsPerRun(n-1, func() {
		w.add(&entries[next], soon+int64(next)%(later-soon))
		next++
	}); allocs != 0 || w.len() != n {
		t.Fatalf("%v allocations for each entry, and %d of %d are in the wheel", allocs, w.len(), n)
	}

	if err := syscall.Mprotect(pages, syscall.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	own := timed{} // is due all the time
	looks := 0
	func() {
		defer func() {
			if r := recover(); r != nil {
				t.Fatalf("an entry that is not due is touched: %v", r)
			}
		}()
		w.add(&own, wheelTick)
		// Not into the first list of the others, where it would stand beside them.
		for now := int64(0); now < soon-wheelTick; now += wheelTick {
			w.turn(now, nil, func(*timed) int64 { looks++; return now + wheelTick })
		}
	}()
	if want := soon/wheelTick - 2; looks != want {
		t.Errorf("%d looks at the one that is due, expected %d", looks, want)
	}
	w.remove(&own)

	if err := syscall.Mprotect(pages, syscall.PROT_READ|syscall.PROT_WRITE); err != nil {
		t.Fatal(err)
	}
	looks = 0
	w.turn(later, nil, func(*timed) int64 { looks++; return 2 * later })
	if looks != n {
		t.Errorf("%d looks when all are due, expected %d", looks, n)
	}
}
