// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"errors"
	"os"
	"syscall"
)

// once reads or writes with a call that the scheduler, and the race detector,
// hear of.
func once(name string, fd int, p []byte, call func(int, []byte) (int, error), nothing error) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, err := call(fd, p)
		switch {
		case err == nil && n == 0:
			return 0, nothing
		case err == nil:
			return n, nil
		case errors.Is(err, syscall.EAGAIN):
			return 0, nil
		case !errors.Is(err, syscall.EINTR):
			return 0, os.NewSyscallError(name, err)
		}
	}
}
