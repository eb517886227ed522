// SPDX-License-Identifier: Apache-2.0

package script

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/manormq/manor/services/conform/wire"
)

// socket carries MQTT in WebSocket frames. It makes them as a script wants, which
// a library would not.
type socket struct {
	net.Conn
	r       *bufio.Reader
	split   int  // most bytes in a frame; 0 is no limit
	text    bool // frames of text, which no server takes
	rest    uint64
	refused error // why there was no upgrade; reading says so
}

// The opcodes of RFC 6455.
const (
	opContinue = 0
	opText     = 1
	opBinary   = 2
	opClose    = 8
	opPing     = 9
	opPong     = 10
)

// upgrade asks for WebSocket. A refusal is a connection that ends at once: it is
// for the script to say whether it was to be.
func upgrade(conn net.Conn, o *Options, host string, frames []arg) (net.Conn, error) {
	s := &socket{Conn: conn, r: bufio.NewReader(conn)}
	protocol := "mqtt"
	for _, a := range frames {
		switch a.name {
		case "split":
			s.split, _ = strconv.Atoi(a.text)
		case "text":
			s.text = a.text == "1"
		case "protocol":
			protocol = a.text
		}
	}
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce)
	key := base64.StdEncoding.EncodeToString(nonce)
	_ = conn.SetDeadline(time.Now().Add(o.Timeout))
	defer func() { _ = conn.SetDeadline(time.Time{}) }()
	if o.TLS != nil && o.TLS.ServerName != "" {
		host = o.TLS.ServerName
	}
	_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Protocol: %s\r\n\r\n", o.Path, host, key, protocol)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	answer, err := http.ReadResponse(s.r, nil)
	if err != nil {
		s.refused = fmt.Errorf("the upgrade was refused: %w", err)
		return s, nil
	}
	_ = answer.Body.Close()
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // RFC 6455 wants SHA-1
	switch chosen := answer.Header.Get("Sec-WebSocket-Protocol"); {
	case answer.StatusCode != http.StatusSwitchingProtocols:
		s.refused = fmt.Errorf("the upgrade was refused with %s: %w", answer.Status, io.EOF)
	case answer.Header.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]):
		s.refused = errors.New("the upgrade has another Sec-WebSocket-Accept than RFC 6455 wants")
	case chosen != "mqtt":
		s.refused = &wire.MalformedError{Statement: "MQTT-6.0.0-4", Why: fmt.Sprintf("the WebSocket subprotocol is %q, not mqtt", chosen)}
	}
	return s, nil
}

// Read takes MQTT's bytes off binary frames.
func (s *socket) Read(b []byte) (int, error) {
	if s.refused != nil {
		return 0, s.refused
	}
	for s.rest == 0 {
		if err := s.frame(); err != nil {
			return 0, err
		}
	}
	n, err := s.r.Read(b[:min(uint64(len(b)), s.rest)])
	s.rest -= uint64(n)
	return n, err
}

// frame reads the head of a frame, and all of one that is not MQTT's.
func (s *socket) frame() error {
	var h [2]byte
	if _, err := io.ReadFull(s.r, h[:]); err != nil {
		return err
	}
	n := uint64(h[1] & 0x7F)
	if n >= 126 {
		ext := make([]byte, 2+6*(n-126))
		if _, err := io.ReadFull(s.r, ext); err != nil {
			return err
		}
		n = 0
		for _, b := range ext {
			n = n<<8 | uint64(b)
		}
	}
	switch op := h[0] & 0x0F; op {
	case opBinary, opContinue:
		s.rest = n
		return nil
	case opClose:
		return io.EOF
	case opPing, opPong:
		data := make([]byte, n&0x7F)
		if _, err := io.ReadFull(s.r, data); err != nil {
			return err
		}
		if op == opPing {
			return s.write(opPong, data)
		}
		return nil
	default:
		return &wire.MalformedError{Statement: "MQTT-6.0.0-1", Why: fmt.Sprintf("a WebSocket frame with opcode %d", op)}
	}
}

// Write sends b in one frame, or in messages of split bytes.
func (s *socket) Write(b []byte) (int, error) {
	op := byte(opBinary)
	if s.text {
		op = opText
	}
	for rest := b; len(rest) > 0; {
		n := len(rest)
		if s.split > 0 {
			n = min(n, s.split)
		}
		if err := s.write(op, rest[:n]); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(b), nil
}

// write sends a frame, masked as a client's has to be.
func (s *socket) write(op byte, data []byte) error {
	const mask = 0x80
	frame := []byte{0x80 | op}
	switch n := len(data); {
	case n < 126:
		frame = append(frame, mask|byte(n))
	case n < 1<<16:
		frame = binary.BigEndian.AppendUint16(append(frame, mask|126), uint16(n))
	default:
		frame = binary.BigEndian.AppendUint64(append(frame, mask|127), uint64(n))
	}
	var key [4]byte
	_, _ = rand.Read(key[:])
	frame = append(frame, key[:]...)
	for i, b := range data {
		frame = append(frame, b^key[i%4])
	}
	_, err := s.Conn.Write(frame)
	return err
}
