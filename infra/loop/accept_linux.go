// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
)

// Acceptor accepts connections for loops. Nothing but a loop can wait for them, so
// that each costs the kernel half of the calls that a net.Conn and Move cost. Its
// methods may be called concurrently.
type Acceptor struct {
	file *os.File
	raw  syscall.RawConn
	addr net.Addr
	once sync.Once
	err  error
}

// NewAcceptor takes l over, which must listen with TCP. The error leaves l as it was.
func NewAcceptor(l net.Listener) (*Acceptor, error) {
	t, ok := l.(*net.TCPListener)
	if !ok {
		return nil, ErrUnsupported
	}
	f, err := t.File()
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	_ = l.Close() // the copy listens
	return &Acceptor{file: f, raw: raw, addr: l.Addr()}, nil
}

// Addr is the bound address.
func (a *Acceptor) Addr() net.Addr { return a.addr }

// Close ends Accept, with net.ErrClosed.
func (a *Acceptor) Close() error {
	a.once.Do(func() { a.err = a.file.Close() })
	return a.err
}

// Accept waits for a connection and returns it with its peer's address. The Socket
// is to be given to Move, and closed if that fails; before Move it neither reads nor
// writes.
func (a *Acceptor) Accept() (*Socket, netip.AddrPort, error) {
	var fd int
	var sa syscall.Sockaddr
	var err error
	if rerr := a.raw.Read(func(l uintptr) bool {
		for { // Go's poller tells of connections that come, not of those that wait
			fd, sa, err = syscall.Accept4(int(l), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
			if !errors.Is(err, syscall.EINTR) && !errors.Is(err, syscall.ECONNABORTED) {
				return !errors.Is(err, syscall.EAGAIN)
			}
		}
	}); rerr != nil {
		return nil, netip.AddrPort{}, net.ErrClosed
	}
	if err != nil {
		return nil, netip.AddrPort{}, os.NewSyscallError("accept4", err)
	}
	s := &Socket{fd: fd, own: true, bound: DefaultBound}
	s.Conn = polled{s}
	return s, peerOf(sa), nil
}

func peerOf(sa syscall.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *syscall.SockaddrInet6:
		addr := netip.AddrFrom16(a.Addr).Unmap()
		if a.ZoneId != 0 && addr.Is6() {
			if i, err := net.InterfaceByIndex(int(a.ZoneId)); err == nil {
				addr = addr.WithZone(i.Name)
			}
		}
		return netip.AddrPortFrom(addr, uint16(a.Port))
	}
	return netip.AddrPort{}
}
