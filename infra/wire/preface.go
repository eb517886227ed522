// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// Version is the version of the preface and of the batch header.
const Version uint16 = 2

// magic begins every connection, so that a stranger is told from a node.
const magic = "MLNK"

// maxName bounds a node's name, in bytes.
const maxName = 255

// ErrPreface says that the other end did not introduce itself as a node does.
var ErrPreface = errors.New("wire: bad preface")

// preface is
//
//	"MLNK" | version u16 | features u32 | len u8 | node
func preface(node string, features uint32) []byte {
	dst := []byte(magic)
	dst = binary.BigEndian.AppendUint16(dst, Version)
	dst = binary.BigEndian.AppendUint32(dst, features)
	dst = append(dst, byte(len(node)))
	return append(dst, node...)
}

// readPreface reads a preface.
func readPreface(r io.Reader) (node string, features uint32, err error) {
	var head [11]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", 0, fmt.Errorf("%w: %w", ErrPreface, err)
	}
	if string(head[:4]) != magic {
		return "", 0, fmt.Errorf("%w: begins with %q, want %q", ErrPreface, head[:4], magic)
	}
	if v := binary.BigEndian.Uint16(head[4:]); v != Version {
		return "", 0, fmt.Errorf("%w: version %d, want %d", ErrPreface, v, Version)
	}
	name := make([]byte, head[10])
	if _, err := io.ReadFull(r, name); err != nil {
		return "", 0, fmt.Errorf("%w: %w", ErrPreface, err)
	}
	if len(name) == 0 {
		return "", 0, fmt.Errorf("%w: the node has no name", ErrPreface)
	}
	return string(name), binary.BigEndian.Uint32(head[6:]), nil
}

// introduce exchanges prefaces over nc within timeout. A node behind TLS must
// have its name in its certificate.
func introduce(nc net.Conn, r *bufio.Reader, c Config) (peer string, features uint32, err error) {
	if c.Node == "" || len(c.Node) > maxName {
		return "", 0, fmt.Errorf("wire: a node's name has 1 to %d bytes, not %d", maxName, len(c.Node))
	}
	if err := nc.SetDeadline(time.Now().Add(c.Handshake)); err != nil {
		return "", 0, err
	}
	var wrote sync.WaitGroup
	var werr error
	wrote.Go(func() { // both ends write first: over a pipe without a buffer neither may wait
		_, werr = nc.Write(preface(c.Node, c.Features))
	})
	peer, features, err = readPreface(r)
	if err != nil {
		_ = nc.Close()
	}
	if wrote.Wait(); err != nil {
		return "", 0, err
	}
	if werr != nil {
		return "", 0, fmt.Errorf("wire: send preface: %w", werr)
	}
	if secure, ok := nc.(*tls.Conn); ok {
		if err := vouched(secure, peer); err != nil {
			return "", 0, err
		}
	}
	return peer, features & c.Features, nc.SetDeadline(time.Time{})
}

// vouched returns nil if the certificate of the other end is for node, by its
// common name or one of its DNS names.
func vouched(nc *tls.Conn, node string) error {
	certs := nc.ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return fmt.Errorf("%w: %q shows no certificate", ErrPreface, node)
	}
	if leaf := certs[0]; leaf.Subject.CommonName != node && !slices.Contains(leaf.DNSNames, node) {
		return fmt.Errorf("%w: calls itself %q, its certificate is for %q", ErrPreface, node, leaf.Subject.CommonName)
	}
	return nil
}
