// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package loop

import (
	"net"
	"net/netip"
)

// Acceptor cannot be made on this system.
type Acceptor struct{}

// NewAcceptor fails with ErrUnsupported.
func NewAcceptor(net.Listener) (*Acceptor, error) { return nil, ErrUnsupported }

// Addr is never called.
func (*Acceptor) Addr() net.Addr { return nil }

// Close is never called.
func (*Acceptor) Close() error { return nil }

// Accept is never called.
func (*Acceptor) Accept() (*Socket, netip.AddrPort, error) {
	return nil, netip.AddrPort{}, ErrUnsupported
}
