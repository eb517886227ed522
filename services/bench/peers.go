// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// peer is a broker of others that Manor is compared with.
type peer struct {
	name string
	path string
	// how it is asked for its version.
	versionFlag string
	// serves reports whether it has what a row needs, as far as that is known.
	serves func(r row) bool
	// start runs it for a row; dir is the data folder of the manor dev beside it.
	start func(ctx context.Context, r row, dir string) (*broker, error)
}

// floorName is the peer that is made here.
const floorName = "floor"

func (p peer) version(ctx context.Context) string {
	switch {
	case p.name == floorName:
		return "floor (manor bench floor)"
	case p.versionFlag == "":
		return p.name + " (see the Makefile)"
	}
	return versionOf(ctx, p.path, p.versionFlag)
}

// peers finds the programs of c.Peers.
func (c Comparison) peers() ([]peer, error) {
	var found []peer
	for name := range strings.SplitSeq(c.Peers, ",") {
		switch name {
		case "mosquitto":
			path, err := findMosquitto()
			if err != nil {
				return nil, err
			}
			found = append(found, peer{name: name, path: path, versionFlag: "-h", serves: withoutTenants, start: func(ctx context.Context, _ row, dir string) (*broker, error) {
				return startMosquitto(ctx, path, filepath.Join(dir, "pki", "listeners.pem"), filepath.Join(dir, "pki", "listeners.key"))
			}})
		case "nats":
			path := filepath.Join(c.Tools, "nats-server")
			found = append(found, peer{name: name, path: path, versionFlag: "--version", serves: withoutTenants, start: func(ctx context.Context, r row, _ string) (*broker, error) {
				return startNATS(ctx, r, path)
			}})
		case "mochi":
			path := filepath.Join(c.Tools, "mochi")
			found = append(found, peer{name: name, path: path, serves: withoutTenants, start: func(ctx context.Context, r row, _ string) (*broker, error) {
				return startMochi(ctx, r, path)
			}})
		case floorName:
			found = append(found, peer{name: name, path: c.Program, serves: row.onFloor, start: func(ctx context.Context, r row, _ string) (*broker, error) {
				return startFloor(ctx, r, c.Program)
			}})
		default:
			return nil, errs.New(errs.Invalid, "-peers: want mosquitto, nats, mochi or floor, not %q", name)
		}
	}
	for _, p := range found {
		if _, err := exec.LookPath(p.path); err != nil {
			return nil, errs.New(errs.Unavailable, "%s is not there: make bench-peers builds it: %w", p.name, err)
		}
	}
	return found, nil
}

// withoutTenants are the rows for those who know no tenants.
func withoutTenants(r row) bool { return r.tenants == 0 }

// startNATS starts nats-server with MQTT, which keeps sessions in JetStream.
func startNATS(ctx context.Context, r row, path string) (*broker, error) {
	return startPeer(r, "nats", func(dir string, mqtt, other int) (*exec.Cmd, error) {
		file := filepath.Join(dir, "nats.conf")
		conf := fmt.Sprintf("server_name: bench\nlisten: 127.0.0.1:%d\njetstream { store_dir: %q }\nmqtt { listen: \"127.0.0.1:%d\" }\n", other, dir, mqtt)
		return exec.CommandContext(ctx, path, "-c", file), os.WriteFile(file, []byte(conf), 0o644)
	})
}

// startMochi starts mochi-mqtt's own program, which lets everybody in.
func startMochi(ctx context.Context, r row, path string) (*broker, error) {
	return startPeer(r, "mochi", func(_ string, mqtt, other int) (*exec.Cmd, error) {
		stats, err := freePort()
		return exec.CommandContext(ctx, path,
			"-tcp", fmt.Sprintf("127.0.0.1:%d", mqtt), "-ws", fmt.Sprintf("127.0.0.1:%d", other), "-info", fmt.Sprintf("127.0.0.1:%d", stats)), err
	})
}

// startFloor starts this program's floor.
func startFloor(ctx context.Context, r row, path string) (*broker, error) {
	return startPeer(r, floorName, func(_ string, mqtt, _ int) (*exec.Cmd, error) {
		return exec.CommandContext(ctx, path, "bench", "floor", "-addr", fmt.Sprintf("127.0.0.1:%d", mqtt)), nil
	})
}

// startPeer starts what command returns, which listens for MQTT over TCP, and
// waits until it does.
func startPeer(r row, name string, command func(dir string, mqtt, other int) (*exec.Cmd, error)) (*broker, error) {
	dir, err := os.MkdirTemp("", name)
	if err != nil {
		return nil, err
	}
	mqtt, err1 := freePort()
	other, err2 := freePort()
	cmd, err3 := command(dir, mqtt, other)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	cmd.Env = r.environment()
	b := &broker{name: name, addrs: map[string]string{overTCP: fmt.Sprintf("127.0.0.1:%d", mqtt)}}
	if err := b.run(cmd, dir); err != nil {
		return nil, err
	}
	if err := b.accepts(); err != nil {
		b.stop()
		return nil, err
	}
	return b, nil
}

// accepts waits until b does at all of its addresses.
func (b *broker) accepts() error {
	end := time.Now().Add(startTime)
	for _, addr := range b.addrs {
		for ; ; time.Sleep(20 * time.Millisecond) {
			c, err := net.DialTimeout("tcp", addr, time.Second)
			if err == nil {
				_ = c.Close()
				break
			}
			if time.Now().After(end) {
				return fmt.Errorf("%s does not accept connections: %w", b.name, err)
			}
		}
	}
	return nil
}
