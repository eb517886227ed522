// SPDX-License-Identifier: Apache-2.0

package link

import (
	"net"

	"github.com/manormq/manor/infra/loop"
	"github.com/manormq/manor/infra/wire"
)

// maxBacklog is how much of what was written may wait for the kernel before the
// link is given up, in bytes. Windows and credit bound it well below.
const maxBacklog = 1 << 30

// socket makes the writes to nc not wait once the link is open, and completes
// config accordingly.
func socket(nc net.Conn, config *wire.Config) net.Conn {
	s := loop.NewSocket(nc, nil)
	config.Direct = func() {
		s.Bound(maxBacklog)
		s.Async(nil, nil)
	}
	return s
}
