// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

// idleClientsEnv makes the test binary a process of idle clients of the listener
// "NAME ADDRESS".
const idleClientsEnv = "MANOR_TEST_IDLE_CLIENTS"

func TestMain(m *testing.M) {
	if v := os.Getenv(idleClientsEnv); v != "" {
		name, addr, _ := strings.Cut(v, " ")
		if err := serveIdleClients(name, addr, os.Stdin, os.Stdout); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveIdleClients connects as many clients as each line of in says, and keeps
// their connections until in ends. A line of out answers.
func serveIdleClients(name, addr string, in io.Reader, out io.Writer) error {
	var conns []net.Conn
	for lines := bufio.NewScanner(in); lines.Scan(); {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			return err
		}
		first := len(conns)
		conns = append(conns, make([]net.Conn, n)...)
		var all errgroup.Group
		all.SetLimit(16)
		for i := first; i < len(conns); i++ {
			all.Go(func() (err error) {
				if conns[i], err = idleClient(name, addr, i); err != nil {
					return fmt.Errorf("connection %d: %w", i, err)
				}
				return nil
			})
		}
		if err := all.Wait(); err != nil {
			return err
		}
		fmt.Fprintln(out, "connected")
	}
	return nil
}

// idleClient connects client i and subscribes it to a topic of its own.
func idleClient(name, addr string, i int) (net.Conn, error) {
	c, err := dialIdle(name, addr)
	if err != nil {
		return nil, err
	}
	p := hello("idle-" + strconv.Itoa(i))
	p.KeepAlive = 0
	for _, x := range []struct {
		send *packet.Packet
		want packet.Type
	}{
		{&packet.Packet{Type: packet.CONNECT, Connect: p}, packet.CONNACK},
		{&packet.Packet{Type: packet.SUBSCRIBE, Subscribe: &packet.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: fmt.Sprintf("idle/%d/cmd", i)}}}}, packet.SUBACK},
	} {
		if _, err := c.Write(packet.Append(nil, packet.V5, x.send, 0)); err != nil {
			return nil, err
		}
		var dec packet.Decoder
		var got packet.Packet
		b := make([]byte, 256)
		for n, used := 0, 0; used == 0; {
			k, err := c.Read(b[n:])
			n += k
			if err != nil {
				return nil, fmt.Errorf("no %s: %w", x.want, err)
			}
			if used, err = dec.Decode(b[:n], packet.V5, 0, &got); err != nil {
				return nil, err
			}
		}
		if got.Type != x.want || got.Connack != nil && got.Connack.Reason.Failed() || got.Suback != nil && got.Suback.Reasons[0].Failed() {
			return nil, fmt.Errorf("%s came, expected %s without a failure", got.Type, x.want)
		}
	}
	return c, nil
}

func dialIdle(name, addr string) (net.Conn, error) {
	switch name {
	case "mqtt":
		return net.Dial("tcp", addr)
	case "mqtts":
		return tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519}})
	case "ws":
		ws, _, err := websocket.Dial(context.Background(), "ws://"+addr+"/mqtt", &websocket.DialOptions{
			Subprotocols: []string{"mqtt"}, HTTPClient: &http.Client{Transport: &http.Transport{}},
		})
		if err != nil {
			return nil, err
		}
		return websocket.NetConn(context.Background(), ws, websocket.MessageBinary), nil
	}
	return nil, errors.New("no such listener: " + name)
}

// idleProcess is a process of idle clients, whose memory is its own.
type idleProcess struct {
	w   *world
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (w *world) idleClients(listener string) *idleProcess {
	w.t.Helper()
	x := &idleProcess{w: w, cmd: exec.Command(os.Args[0])}
	x.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s", idleClientsEnv, listener, w.addr(listener)))
	x.cmd.Stderr = os.Stderr
	in, err := x.cmd.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := x.cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	x.in, x.out = in, bufio.NewReader(out)
	if err := x.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(x.end)
	return x
}

// connect has n more clients connect.
func (x *idleProcess) connect(n int) {
	x.w.t.Helper()
	fmt.Fprintln(x.in, n)
	if line, err := x.out.ReadString('\n'); err != nil || line != "connected\n" {
		x.w.t.Fatalf("the clients say %q, %v", line, err)
	}
}

// end ends the process, and waits until the gateway has noticed.
func (x *idleProcess) end() {
	if x.in == nil {
		return
	}
	_ = x.in.Close()
	_ = x.cmd.Wait()
	x.in = nil
	x.w.eventually("no connection", func() bool { return x.w.gw.Connections() == 0 })
}
