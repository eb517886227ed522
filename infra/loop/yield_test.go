// SPDX-License-Identifier: Apache-2.0

//go:build linux

package loop

import (
	"net"
	"runtime"
	"testing"
	"time"
)

// A goroutine that always has work sees to it that others hear of what has come
// from the kernel, on one processor too. Go's scheduler alone would look every
// 10 ms.
func TestYield(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	a, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	heard := make(chan struct{}, 1)
	go func() {
		var buf [1]byte
		for {
			if _, err := b.Read(buf[:]); err != nil {
				return
			}
			heard <- struct{}{}
		}
	}()
	var yield Yield
	defer yield.Close()
	const step = 100 * time.Microsecond
	var late []int
	for range 50 {
		if _, err := a.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		for steps := 1; ; steps++ {
			for begin := time.Now(); time.Since(begin) < step; {
			}
			yield.Now()
			select {
			case <-heard:
				late = append(late, steps)
			default:
				continue
			}
			break
		}
	}
	// Every fifth step looks; a processor that was taken away for a while makes
	// single ones longer, never all.
	over := 0
	for _, n := range late {
		if n > 2*int(yieldEvery/step) {
			over++
		}
	}
	if over > len(late)/2 {
		t.Errorf("heard after %v steps, expected %d at most", late, 2*int(yieldEvery/step))
	}
}
