// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// pinned calls start on a thread that runs on the first half of the processors, or
// on the second, so that the processes that it starts do.
func pinned(second bool, start func() error) error {
	var all, half unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return fmt.Errorf("ask for the processors: %w", err)
	}
	n, seen := all.Count(), 0
	if n < 2 {
		return start()
	}
	for cpu := 0; seen < n; cpu++ {
		if !all.IsSet(cpu) {
			continue
		}
		if seen >= n/2 == second {
			half.Set(cpu)
		}
		seen++
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.SchedSetaffinity(0, &half); err != nil {
		return fmt.Errorf("choose processors: %w", err)
	}
	defer func() { _ = unix.SchedSetaffinity(0, &all) }()
	return start()
}
