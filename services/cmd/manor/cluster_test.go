// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.yaml.in/yaml/v3"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/nats"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/infra/wire"
	"github.com/manormq/manor/services/broker"
	"github.com/manormq/manor/services/ctl"
)

func threeBrokers(t *testing.T) *region {
	t.Helper()
	o := &options{data: t.TempDir(), bind: "127.0.0.1", brokers: 3, gateways: 2, nats: 3, zones: 3, logLevel: "error"}
	if err := o.validate(); err != nil {
		t.Fatal(err)
	}
	ca, err := openAuthority(o.data)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := busToken(o.data)
	if err != nil {
		t.Fatal(err)
	}
	return &region{options: o, ca: ca, all: o.layout(), token: token}
}

func TestLayout_ThreeBrokers(t *testing.T) {
	r := threeBrokers(t)
	r.data = "d"
	got := ""
	for _, p := range r.layout() {
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		got += string(text) + p.zone + "\n"
	}
	want := `{"role":"nats","name":"nats-1","pid":0,"data":"d/nats-1","ports":{"cluster":6222,"nats":4222}}
{"role":"nats","name":"nats-2","pid":0,"data":"d/nats-2","ports":{"cluster":6232,"nats":4232}}
{"role":"nats","name":"nats-3","pid":0,"data":"d/nats-3","ports":{"cluster":6242,"nats":4242}}
{"role":"broker","name":"broker-1","pid":0,"data":"d/broker-1","ports":{"cluster":44053,"join":44055,"link":44054,"operator":8888}}a
{"role":"broker","name":"broker-2","pid":0,"data":"d/broker-2","ports":{"cluster":44063,"join":44065,"link":44064,"operator":8898}}b
{"role":"broker","name":"broker-3","pid":0,"data":"d/broker-3","ports":{"cluster":44073,"join":44075,"link":44074,"operator":8908}}c
{"role":"tenancy","name":"tenancy-1","pid":0,"data":"d/tenancy-1","ports":{"api":8080,"operator":8890}}
{"role":"gateway","name":"gateway-1","pid":0,"data":"d/gateway-1","ports":{"mqtt":1883,"mqtts":8883,"operator":8889,"ws":8083,"wss":8084}}
{"role":"gateway","name":"gateway-2","pid":0,"data":"d/gateway-2","ports":{"mqtt":1893,"mqtts":8893,"operator":8899,"ws":8093,"wss":8094}}
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// However many processes there are, and wherever they are moved, each port is one's
// alone, and there is such a port.
func TestLayout_PortsAreDistinct(t *testing.T) {
	for _, offset := range []int{0, mostOffset} {
		o := &options{data: "d", brokers: mostOfRole, gateways: mostOfRole, nats: 5, tenancies: mostOfRole, zones: 2, offset: offset}
		taken := map[int]string{}
		for _, p := range o.layout() {
			for name, port := range p.Ports {
				what := p.Name + " " + name
				if other := taken[port]; other != "" || port < 1 || port > 65535 {
					t.Errorf("port %d is of %s and of %q", port, what, other)
				}
				taken[port] = what
			}
			if k, ok := strings.CutPrefix(p.Name, "broker-"); ok {
				if n, _ := strconv.Atoi(k); p.zone != string("ba"[n%2]) {
					t.Errorf("%s is in zone %s", p.Name, p.zone)
				}
			}
		}
	}
}

// section of a configuration that configure wrote.
func written(t *testing.T, r *region, name string) map[string]any {
	t.Helper()
	i := slices.IndexFunc(r.all, func(p process) bool { return p.Name == name })
	if err := os.MkdirAll(r.all[i].Data, 0o700); err != nil {
		t.Fatal(err)
	}
	file, err := r.configure(&r.all[i])
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := yaml.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	if out["name"] != name {
		t.Errorf("%s calls itself %v", name, out["name"])
	}
	return out
}

func TestConfigure_ThreeBrokers(t *testing.T) {
	r := threeBrokers(t)
	bus := map[string]any{"urls": []any{"nats://127.0.0.1:4222", "nats://127.0.0.1:4232", "nats://127.0.0.1:4242"}, "token_file": r.token}
	links := []any{"127.0.0.1:44054", "127.0.0.1:44064", "127.0.0.1:44074"}
	for k, zone := range []string{"a", "b", "c"} {
		c := written(t, r, fmt.Sprintf("broker-%d", k+1))
		if diff := cmp.Diff(bus, c["nats"]); diff != "" {
			t.Errorf("nats (-want +got):\n%s", diff)
		}
		text, err := yaml.Marshal(c["broker"])
		if err != nil {
			t.Fatal(err)
		}
		var section broker.Config
		if err := yaml.Unmarshal(text, &section); err != nil {
			t.Fatal(err)
		}
		want := broker.ClusterConfig{
			Listen: fmt.Sprintf("127.0.0.1:%d", 44053+10*k), JoinListen: fmt.Sprintf("127.0.0.1:%d", 44055+10*k), CAKey: r.ca.keyFile("ca"),
			CompressLinks: "auto", Zone: zone, Labels: []string{}, Replicas: 2,
		}
		if diff := cmp.Diff(want, section.Cluster); diff != "" || section.Listen != links[k] || !section.Cluster.On() {
			t.Errorf("listens at %s; cluster (-want +got):\n%s", section.Listen, diff)
		}
		full := broker.DefaultConfig()
		if err := errors.Join(yaml.Unmarshal(text, &full), full.Validate()); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"gateway-1", "gateway-2", "tenancy-1"} {
		c := written(t, r, name)
		b, _ := c["broker"].(map[string]any)
		if diff := cmp.Diff(bus, c["nats"]); diff != "" || b["address"] != links[0] || !cmp.Equal(b["addresses"], any(links)) {
			t.Errorf("%s: broker %v, nats (-want +got):\n%s", name, b, diff)
		}
	}
}

// With one broker and one NATS server all is as it is without clusters.
func TestConfigure_OneBroker(t *testing.T) {
	r := threeBrokers(t)
	r.brokers, r.zones, r.nats = 1, 0, 1
	r.all = r.layout()
	c := written(t, r, "broker-1")
	b, _ := c["broker"].(map[string]any)
	if _, ok := b["cluster"]; ok || c["nats"] != nil {
		t.Errorf("a broker on its own has a cluster: %v", c)
	}
	b, _ = written(t, r, "gateway-1")["broker"].(map[string]any)
	if _, ok := b["addresses"]; ok || b["address"] != "127.0.0.1:44054" {
		t.Errorf("a gateway of one broker: %v", b)
	}
	want := []string{"nats", "--name", "nats-1", "--data", r.all[0].Data, "--listen", "127.0.0.1:4222", "--token-file", r.token, "--log-level", "error"}
	if diff := cmp.Diff(want, r.natsArgs(&r.all[0])); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The certificate of a broker serves both ends of a link between brokers, where the
// other end is known by its name, at whatever address it is.
func TestAuthority_ClusterLinks(t *testing.T) {
	r := threeBrokers(t)
	config := func(name string) *tls.Config {
		cert, key, err := r.ca.node(name)
		if err != nil {
			t.Fatal(err)
		}
		c, err := wire.TLS(cert, key, r.ca.file)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for expected, ok := range map[string]bool{"broker-2": true, "broker-3": false} {
		a, b := net.Pipe()
		client := config("broker-1")
		client.ServerName = expected
		served := make(chan error, 1)
		server := tls.Server(b, config("broker-2"))
		go func() { served <- server.HandshakeContext(t.Context()) }()
		err := tls.Client(a, client).HandshakeContext(t.Context())
		_ = a.Close()
		if server := <-served; (err == nil && server == nil) != ok {
			t.Errorf("broker-2 taken for %s: %v, %v", expected, err, server)
		}
		_ = b.Close()
	}
}

// TestManorProcess is manor itself as a process of other tests, with the arguments
// after --.
func TestManorProcess(t *testing.T) {
	i := slices.Index(os.Args, "--")
	if i < 0 || os.Getenv("MANOR_TEST_PROCESS") == "" {
		t.Skip("it is run by others")
	}
	root := ctl.New(os.Args[0])
	root.AddCommand(natsServer())
	root.SetArgs(os.Args[i+1:])
	if err := root.ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(node.ExitCode(err))
	}
}

// Of several that start together one that does not start ends the others.
func TestTogether_OneDoesNotStart(t *testing.T) {
	good := &child{
		process: &process{Name: "good", Ports: map[string]int{"mqtt": freePort(t)}}, log: slog.New(slog.DiscardHandler),
		program: os.Args[0], args: []string{"-test.run", "^TestChildProcess$"}, output: t.Output(),
	}
	t.Setenv("MANOR_TEST_LISTEN", good.local("mqtt"))
	bad := &child{process: &process{Name: "bad"}, log: slog.New(slog.DiscardHandler), program: "/nowhere/at/all", output: t.Output()}
	if err := together("both", []node.Part{good.part(), bad.part()}).Start(t.Context()); err == nil || !strings.Contains(err.Error(), "/nowhere/at/all") {
		t.Errorf("%v, want one that names the program", err)
	}
	if nc, err := net.Dial("tcp", good.local("mqtt")); err == nil {
		_ = nc.Close()
		t.Error("the other one lives")
	}
}

// leaderOf is the server that leads the bucket partitions.
func leaderOf(t *testing.T, r *region, secret string) string {
	t.Helper()
	nc, err := natsgo.Connect(strings.Join(r.natsURLs(), ","), natsgo.Token(secret))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	var s jetstream.Stream
	for deadline := time.Now().Add(30 * time.Second); ; { // which a busy machine may take a while to say
		if s, err = js.Stream(t.Context(), "KV_partitions"); err == nil && s.CachedInfo().Cluster.Leader != "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the bucket has no leader: ", err)
		}
	}
	if n := s.CachedInfo().Config.Replicas; n != 3 {
		t.Errorf("the bucket is kept %d times", n)
	}
	return s.CachedInfo().Cluster.Leader
}

// TestNATS_Cluster runs three NATS servers as processes, as manor dev does. They keep a
// bucket three times; one is killed, writes go on, and it comes back.
func TestNATS_Cluster(t *testing.T) {
	const patience = 60 * time.Second
	r := threeBrokers(t)
	_, secret, err := busToken(r.data)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("MANOR_TEST_PROCESS", "1")
	r.all = r.all[:3]
	for i := range r.all {
		for name := range r.all[i].Ports {
			r.all[i].Ports[name] = freePort(t)
		}
	}
	parts := make([]node.Part, 0, len(r.all))
	for i := range r.all {
		p := &r.all[i]
		if err := os.MkdirAll(p.Data, 0o700); err != nil {
			t.Fatal(err)
		}
		c := &child{
			process: p, log: slog.New(slog.DiscardHandler), program: os.Args[0], output: t.Output(),
			args: append([]string{"-test.run", "^TestManorProcess$", "--"}, r.natsArgs(p)...),
		}
		parts = append(parts, c.part())
	}
	servers := together("nats", parts)
	if err := servers.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = servers.Stop() }()
	control, err := nats.Connect(nats.Config{URLs: r.natsURLs(), Name: "test", Token: secret, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = control.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := agreed(ctx, control); err != nil {
		t.Fatal(err)
	}
	var bucket bus.Bucket
	if err := retry(ctx, func() (err error) {
		bucket, err = control.Bucket(ctx, bus.BucketConfig{Name: "partitions"})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	put := func(key string) {
		t.Helper()
		if err := retry(ctx, func() error {
			call, end := context.WithTimeout(ctx, 2*time.Second)
			defer end()
			_, err := bucket.Put(call, key, []byte(key), bus.Any)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	put("a")
	// The one that writes and reads wait for: the leader.
	leader := slices.IndexFunc(r.all, func(p process) bool { return p.Name == leaderOf(t, r, secret) })
	begun := time.Now()
	if err := killPID(strconv.Itoa(r.all[leader].PID)); err != nil {
		t.Fatal(err)
	}
	if err := retry(ctx, func() error { _, err := bucket.Get(ctx, "a"); return err }); err != nil {
		t.Fatal(err)
	}
	t.Logf("a read after the leader was killed took %v", time.Since(begun))
	put("b")
	t.Logf("a write after the leader was killed took %v", time.Since(begun))
	// With another stopped the one that was killed must have come back, with all of it.
	if err := parts[(leader+1)%3].Stop(); err != nil {
		t.Fatal(err)
	}
	put("c")
	t.Logf("it is back after %v", time.Since(begun))
	for _, key := range []string{"a", "b", "c"} {
		if err := retry(ctx, func() error { _, err := bucket.Get(ctx, key); return err }); err != nil {
			t.Error(err)
		}
	}
	if err := servers.Stop(); err != nil {
		t.Fatal(err)
	}
	for number, want := range map[int]string{1: "expected --nats 3", 3: "", 5: ""} {
		o := *r.options
		o.nats = number
		if err := o.checkServers(); (err == nil) != (want == "") || err != nil && (!errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), want)) {
			t.Errorf("--nats %d on the data of three: %v", number, err)
		}
	}
}

// The data of a server on its own is not for a cluster.
func TestCheckServers_One(t *testing.T) {
	o := &options{data: t.TempDir()}
	if err := o.checkServers(); err != nil {
		t.Error(err)
	}
	if err := os.MkdirAll(filepath.Join(o.data, "nats-1", "jetstream"), 0o700); err != nil {
		t.Fatal(err)
	}
	for number, ok := range map[int]bool{0: true, 1: true, 3: false} {
		o.nats = number
		if err := o.checkServers(); (err == nil) != ok {
			t.Errorf("--nats %d on the data of one: %v", number, err)
		}
	}
}
