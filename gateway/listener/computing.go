// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/manormq/manor/infra/loop"
)

// Computing bounds how many TLS handshakes are computed at once. One takes most of
// a millisecond of a processor between the client's hello and what is answered;
// when thousands of clients come back at a time, all that are not having their
// turn would wait for a processor together with everything else. Turns are given
// in the order in which they were asked for.
type Computing chan struct{}

// NewComputing is a bound of n, above 0.
func NewComputing(n int) Computing { return make(Computing, n) }

// computeDelay is the longest that a handshake waits for its turn.
const computeDelay = 8 * time.Second

var errComputing = errors.New("listener: too many TLS handshakes wait for a processor")

// begin waits for the turn of the handshake on nc. The turn ends with the first
// write, which is the answer to the client's hello; or when end is called, which
// may be more than once. A nil Computing has no bound.
func (c Computing) begin(nc net.Conn) (end func(), err error) {
	if c == nil {
		return func() {}, nil
	}
	select {
	case c <- struct{}{}:
	default:
		late := time.NewTimer(computeDelay)
		defer late.Stop()
		select {
		case c <- struct{}{}:
		case <-late.C:
			return func() {}, errComputing
		}
	}
	end = sync.OnceFunc(func() { <-c })
	if x, ok := nc.(*proxyproto.Conn); ok {
		nc = x.Raw()
	}
	if s, ok := nc.(*loop.Socket); ok {
		s.Written(end)
	}
	return end, nil
}
