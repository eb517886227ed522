// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// EphemeralPort is where Linux begins to take the ports of outgoing connections
// from (net.ipv4.ip_local_port_range): a listener's port above it may be in use
// by one of them for a moment.
const EphemeralPort = 32768

// PortPatience is how long a listener waits for such a port.
const PortPatience = 5 * time.Second

// Listen listens at a TCP address. While that is in use it tries again, for as
// long as patience; then the error names the port and setting, which the caller
// says decides about it.
func Listen(ctx context.Context, address, setting string, patience time.Duration) (net.Listener, error) {
	deadline := time.Now().Add(patience)
	for {
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		switch {
		case err == nil:
			return ln, nil
		case !errors.Is(err, syscall.EADDRINUSE):
			return nil, errs.New(errs.Unavailable, "%s: %w", setting, err)
		case time.Now().After(deadline):
			_, port, _ := net.SplitHostPort(address)
			return nil, errs.New(errs.Unavailable, "port %s is in use (%w): choose another with %s; if it is taken by outgoing connections "+
				"again and again, reserve it: sysctl -w net.ipv4.ip_local_reserved_ports=%s", port, err, setting, port)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, errs.New(errs.Unavailable, "%s: %w", setting, ctx.Err())
		}
	}
}
