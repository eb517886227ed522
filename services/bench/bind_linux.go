// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// bindLate has the port chosen at connect, when the other end is known: bind
// looks for one that is free for all of them, which takes longer with each that
// is in use.
func bindLate(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	}); cerr != nil {
		return cerr
	}
	return err
}
