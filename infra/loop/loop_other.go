// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package loop

import (
	"context"
	"net"
)

// Loop cannot be made on this system.
type Loop struct{}

// Source cannot be made on this system.
type Source struct{}

// New fails with ErrUnsupported.
func New(func(), func() bool) (*Loop, error) { return nil, ErrUnsupported }

// Add is never called.
func (*Loop) Add(int, Handler, string) (*Source, error) { return nil, ErrUnsupported }

// Buffer is never called.
func (*Loop) Buffer() []byte { return nil }

// Len is never called.
func (*Loop) Len() int { return 0 }

// Calls is never called.
func (*Loop) Calls() *Calls { return nil }

// Pending is never called.
func (*Loop) Pending() bool { return false }

// Again is never called.
func (*Loop) Again() {}

// Run is never called.
func (*Loop) Run(context.Context) error { return ErrUnsupported }

// WantRead is never called.
func (*Source) WantRead(bool) {}

// WantEnd is never called.
func (*Source) WantEnd() {}

// Rest is never called.
func (*Source) Rest() {}

// Belong is never called.
func (*Source) Belong(string) {}

// WantWrite is never called.
func (*Source) WantWrite(bool) {}

// Wake is never called.
func (*Source) Wake() {}

// Remove is never called.
func (*Source) Remove() {}

// Close is never called.
func (*Source) Close() error { return nil }

// Quiet returns nc.
func Quiet(nc net.Conn) net.Conn { return nc }
