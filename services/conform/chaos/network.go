// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// network has each node in a network namespace, at an address of its own, and all
// of them at one bridge, at which the test's clients are too.
type network struct {
	t     testing.TB
	ports map[*Node]port
}

// port is where a node is connected.
type port struct {
	namespace, device string // the device is the bridge's end
}

// newNetwork moves nodes into namespaces, with what their configuration says of
// addresses. It returns nil, and says why, where that is not allowed. The end of
// the test takes everything down.
func newNetwork(t testing.TB, nodes []*Node) *network {
	t.Helper()
	id := os.Getpid() % 10_000
	w := &network{t: t, ports: make(map[*Node]port)}
	bridge, subnet := fmt.Sprintf("mch%d", id), fmt.Sprintf("10.213.%d", id%250)
	t.Cleanup(func() {
		for _, p := range w.ports {
			_ = ip("link", "del", p.device)
			_ = ip("netns", "del", p.namespace)
		}
		_ = ip("link", "del", bridge)
	})
	err := ips(
		"link add "+bridge+" type bridge",
		"addr add "+subnet+".1/24 dev "+bridge,
		"link set "+bridge+" up",
	)
	hosts := make(map[string]string) // by port
	for i, n := range nodes {
		p := port{namespace: fmt.Sprintf("mch%d-%s", id, n.Name), device: fmt.Sprintf("mch%dv%d", id, i)}
		host := fmt.Sprintf("%s.%d", subnet, 10+i)
		w.ports[n] = p
		for _, number := range n.Ports {
			hosts[fmt.Sprint(number)] = host
		}
		if err == nil {
			err = ips(
				"netns add "+p.namespace,
				"link add "+p.device+" type veth peer name eth0 netns "+p.namespace,
				"link set "+p.device+" master "+bridge+" up",
				"-n "+p.namespace+" addr add "+host+"/24 dev eth0",
				"-n "+p.namespace+" link set eth0 up",
				"-n "+p.namespace+" link set lo up",
			)
		}
	}
	if err != nil {
		t.Logf("no network namespaces, so no partitions: %v", err)
		return nil
	}
	loopback := regexp.MustCompile(`127\.0\.0\.1:(\d+)`)
	move := func(text string) string {
		return loopback.ReplaceAllStringFunc(text, func(addr string) string {
			_, number, _ := strings.Cut(addr, ":")
			if host := hosts[number]; host != "" {
				return host + ":" + number
			}
			return addr
		})
	}
	for i, n := range nodes {
		n.host = fmt.Sprintf("%s.%d", subnet, 10+i)
		n.prefix = []string{"ip", "netns", "exec", w.ports[n].namespace}
		for k, arg := range n.argv {
			n.argv[k] = move(arg)
		}
		file := filepath.Join(n.Data, n.Role+"d.yaml")
		text, err := os.ReadFile(file)
		if err != nil {
			continue // NATS has arguments only
		}
		if err := certify(filepath.Dir(n.Data), n.Name, n.host); err != nil {
			t.Fatal(err)
		}
		moved := strings.Replace(move(string(text)), "operator:\n", "operator:\n    public: true\n", 1)
		if err := os.WriteFile(file, []byte(moved), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// ip runs ip of iproute2.
func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func ips(commands ...string) error {
	for _, c := range commands {
		if err := ip(strings.Fields(c)...); err != nil {
			return err
		}
	}
	return nil
}

func (w *network) do(command string) {
	if err := ips(command); err != nil {
		w.t.Error(err)
	}
}

// Isolate cuts a node off from everything; join takes that back.
func (w *network) Isolate(n *Node) (join func()) {
	w.do("link set " + w.ports[n].device + " down")
	return func() { w.do("link set " + w.ports[n].device + " up") }
}

// Cut has nothing go from any node of some to any of others; join takes that back.
// Cut both ways, they are a partition.
func (w *network) Cut(from, to []*Node) (join func()) {
	var undo []string
	for _, a := range from {
		for _, b := range to {
			route := fmt.Sprintf("blackhole %s/32", b.host)
			w.do("-n " + w.ports[a].namespace + " route add " + route)
			undo = append(undo, "-n "+w.ports[a].namespace+" route del "+route)
		}
	}
	return func() {
		for _, c := range undo {
			w.do(c)
		}
	}
}
