// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// inherit has the listening socket be told of keep alive, and that small packets do
// not wait for larger ones, once, instead of each that is accepted: on Linux they
// inherit it.
func inherit(c *net.ListenConfig) {
	k := c.KeepAliveConfig
	c.KeepAlive, c.KeepAliveConfig = -1, net.KeepAliveConfig{}
	c.Control = func(_, _ string, raw syscall.RawConn) error {
		var err error
		set := func(fd uintptr, level, option, value int) {
			if err == nil {
				err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), level, option, value))
			}
		}
		if cerr := raw.Control(func(fd uintptr) {
			set(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
			set(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
			set(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(k.Idle/time.Second))
			set(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(k.Interval/time.Second))
			set(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, k.Count)
		}); cerr != nil {
			return cerr
		}
		return err
	}
}
