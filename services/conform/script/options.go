// SPDX-License-Identifier: Apache-2.0

package script

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/services/conform/wire"
)

// Options say which broker is tested, and how.
type Options struct {
	// MustLetIn has Run fail if the broker wants other credentials, which every
	// script would say again.
	MustLetIn bool
	// Broker is host:port, or several of them, comma separated: the faces of one
	// broker. Scripts take them in turn, with Spread every connection does.
	Broker    string
	Spread    bool
	TLS       *tls.Config // nil for none
	WebSocket bool
	Path      string // of WebSocket; /mqtt if empty
	// Username and Password are sent in every CONNECT that has none of its own.
	Username, Password string
	// Silent says that the broker does not tell clients of 3.1 what it refuses, as the
	// specification has it, which has no words for that.
	Silent   bool
	Versions []wire.Version // all if empty
	Match    *regexp.Regexp // names of scripts; all if nil
	Timeout  time.Duration  // for every packet that is expected; 5 s if 0
	Quiet    time.Duration  // how long nothing has to come where nothing is to; 300 ms if 0
	Jobs     int            // scripts at a time; 64 if 0
	// RunID begins all names of the run, so that they differ from those of
	// another: 1 to 5 small letters and digits.
	RunID string
	// Each hears every result when it is there. It may be called concurrently.
	Each func(Result)

	faces []string
	turn  atomic.Uint32
}

var runID = regexp.MustCompile(`^[a-z0-9]{1,5}$`)

func (o *Options) prepare() error {
	o.faces = strings.Split(o.Broker, ",")
	for _, face := range o.faces {
		if _, _, err := net.SplitHostPort(face); err != nil {
			return fmt.Errorf("broker: expected host:port: %w", err)
		}
	}
	if !runID.MatchString(o.RunID) {
		return fmt.Errorf("run id %q: expected 1 to 5 small letters and digits", o.RunID)
	}
	if len(o.Versions) == 0 {
		o.Versions = []wire.Version{wire.V31, wire.V311, wire.V5}
	}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Quiet == 0 {
		o.Quiet = 300 * time.Millisecond
	}
	if o.Jobs == 0 {
		o.Jobs = 64
	}
	if o.Path == "" {
		o.Path = "/mqtt"
	}
	return nil
}

// face is the one of the broker that a connection of script number i takes.
func (o *Options) face(i int) string {
	if o.Spread {
		i = int(o.turn.Add(1))
	}
	return o.faces[i%len(o.faces)]
}

// dial opens a connection to a face of the broker. frames say how WebSocket
// frames are made.
func (o *Options) dial(ctx context.Context, face string, frames []arg) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", face)
	if err != nil {
		return nil, err
	}
	if o.TLS != nil {
		secure := tls.Client(conn, o.TLS)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, err
		}
		conn = secure
	}
	if !o.WebSocket {
		return conn, nil
	}
	return upgrade(conn, o, face, frames)
}
