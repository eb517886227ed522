// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/node"
)

func TestListen_WaitsForThePort(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	address := other.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	_, err = node.Listen(t.Context(), address, "broker.listen", time.Millisecond)
	for _, want := range []string{"port " + port + " is in use", "broker.listen", "net.ipv4.ip_local_reserved_ports=" + port} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("a port in use: %v, want %q", err, want)
		}
	}
	begun := time.Now()
	time.AfterFunc(200*time.Millisecond, func() { _ = other.Close() })
	ln, err := node.Listen(t.Context(), address, "broker.listen", 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	if time.Since(begun) < 200*time.Millisecond {
		t.Error("it listened before the port was free")
	}
	begun = time.Now()
	if _, err := node.Listen(t.Context(), "127.0.0.1:port", "broker.listen", 20*time.Second); err == nil || time.Since(begun) > 10*time.Second {
		t.Errorf("no port at all: %v after %v", err, time.Since(begun))
	}
}
