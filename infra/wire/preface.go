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
	"syscall"
	"time"
)

// Version is the version of the preface and of the batch header.
const Version uint16 = 2

// Versions are those of what the two ends say in their frames that a node speaks, Min to
// Max, each 1 to 15. The zero Versions are those of a node of before there were any: 1.
type Versions struct{ Min, Max uint8 }

// MostVersion is the highest version that a preface can say.
const MostVersion = 15

func (v Versions) String() string { return fmt.Sprintf("%d to %d", v.Min, v.Max) }

func (v Versions) withDefaults() Versions {
	v.Min = max(v.Min, 1)
	v.Max = max(v.Max, v.Min)
	return v
}

// common is the highest version that both speak, 0 if there is none.
func (v Versions) common(o Versions) uint8 {
	if n := min(v.Max, o.Max); n >= max(v.Min, o.Min) {
		return n
	}
	return 0
}

// ErrVersion says that the two ends have no version in common: the older one is to be
// updated. Both ends find that.
var ErrVersion = errors.New("wire: no version that both nodes speak")

// magic begins every connection, so that a stranger is told from a node.
const magic = "MLNK"

// maxName bounds a node's name, in bytes.
const maxName = 255

// ErrPreface says that the other end did not introduce itself as a node does.
var ErrPreface = errors.New("wire: bad preface")

// Silent reports that an error of New is of an end that has closed the connection and said
// nothing: it looked whether somebody listens, as load balancers do.
func Silent(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
}

// preface is
//
//	"MLNK" | version u16 | max u4 | min u4 | features u24 | len u8 | node
//
// A node of before there were versions sends 0 for both, and does not look at them.
func preface(node string, v Versions, features uint32) []byte {
	dst := []byte(magic)
	dst = binary.BigEndian.AppendUint16(dst, Version)
	if v.Max > 1 {
		features |= uint32(v.Max)<<28 | uint32(v.Min)<<24
	}
	dst = binary.BigEndian.AppendUint32(dst, features)
	dst = append(dst, byte(len(node)))
	return append(dst, node...)
}

// readPreface reads a preface.
func readPreface(r io.Reader) (node string, v Versions, features uint32, err error) {
	var head [11]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", v, 0, fmt.Errorf("%w: %w", ErrPreface, err)
	}
	if string(head[:4]) != magic {
		return "", v, 0, fmt.Errorf("%w: begins with %q, want %q", ErrPreface, head[:4], magic)
	}
	if n := binary.BigEndian.Uint16(head[4:]); n != Version {
		return "", v, 0, fmt.Errorf("%w: version %d, want %d", ErrPreface, n, Version)
	}
	name := make([]byte, head[10])
	if _, err := io.ReadFull(r, name); err != nil {
		return "", v, 0, fmt.Errorf("%w: %w", ErrPreface, err)
	}
	if len(name) == 0 {
		return "", v, 0, fmt.Errorf("%w: the node has no name", ErrPreface)
	}
	features = binary.BigEndian.Uint32(head[6:])
	v = Versions{Min: uint8(features >> 24 & 0xF), Max: uint8(features >> 28)}.withDefaults()
	return string(name), v, features &^ versionBits, nil
}

// versionBits are those of the versions in the word of the features.
const versionBits uint32 = 0xFF << 24

// introduce exchanges prefaces over nc within timeout. A node behind TLS must
// have its name in its certificate.
func introduce(nc net.Conn, r *bufio.Reader, c Config) (peer string, version uint8, features uint32, err error) {
	if c.Node == "" || len(c.Node) > maxName {
		return "", 0, 0, fmt.Errorf("wire: a node's name has 1 to %d bytes, not %d", maxName, len(c.Node))
	}
	if err := nc.SetDeadline(time.Now().Add(c.Handshake)); err != nil {
		return "", 0, 0, err
	}
	var wrote sync.WaitGroup
	var werr error
	wrote.Go(func() { // both ends write first: over a pipe without a buffer neither may wait
		_, werr = nc.Write(preface(c.Node, c.Versions, c.Features))
	})
	peer, theirs, features, err := readPreface(r)
	if err != nil {
		_ = nc.Close()
	}
	if wrote.Wait(); err != nil {
		return "", 0, 0, err
	}
	if werr != nil {
		return "", 0, 0, fmt.Errorf("wire: send preface: %w", werr)
	}
	if secure, ok := nc.(*tls.Conn); ok {
		if err := vouched(secure, peer); err != nil {
			return "", 0, 0, err
		}
	}
	if version = c.Versions.common(theirs); version == 0 {
		return "", 0, 0, fmt.Errorf("%w: %q speaks %v, this node %v; update the older one, by one release at a time", ErrVersion, peer, theirs, c.Versions)
	}
	return peer, version, features & c.Features, nc.SetDeadline(time.Time{})
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
