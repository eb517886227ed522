// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/manormq/manor/services/conform/script"
	"github.com/manormq/manor/services/conform/wire"
)

// TestScripts_OneProcess and TestScripts_Processes hold Manor to the scripts on
// every version over every transport. As processes it has two gateways: over TCP
// all connections take them in turn, over the others scripts do.
func TestScripts_OneProcess(t *testing.T) {
	list := failures(t, "testdata/manor.txt")
	scripts(t, list, "--data", t.TempDir(), "--listen-offset", Offset(t), "--log-level", "error")
}

func TestScripts_Processes(t *testing.T) {
	list := failures(t, "testdata/manor.txt")
	scripts(t, list, "--data", t.TempDir(), "--listen-offset", Offset(t), "--brokers", "1", "--gateways", "2", "--log-level", "error")
}

func scripts(t *testing.T, list known, args ...string) {
	if testing.Short() {
		t.Skip("starts the product; not in short runs")
	}
	p := Start(t, Programs(t, built), args...)
	tn := signUp(t, p, "scripts")
	// They run at once in one tenant: their names differ by run.
	transports := []string{"mqtt", "mqtts", "ws", "wss"}
	results := make([][]script.Result, len(transports))
	var wg sync.WaitGroup
	for i, transport := range transports {
		o := tn.options(p, transport, strconv.Itoa(i)+"t")
		o.Spread = transport == "mqtt"
		wg.Go(func() { results[i] = run(t, o) })
	}
	wg.Wait()
	for i, transport := range transports {
		t.Run(transport, func(t *testing.T) { hold(t, results[i], list) })
	}
}

// TestScripts_TwoTenants runs the scripts in two tenants at once, with equal
// names: each keeps to the specification as if it were alone.
func TestScripts_TwoTenants(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the product; not in short runs")
	}
	p := Start(t, Programs(t, built), "--data", t.TempDir(), "--listen-offset", Offset(t), "--log-level", "error")
	known := failures(t, "testdata/manor.txt")
	tenants := []*account{signUp(t, p, "one"), signUp(t, p, "two")}
	var results [2][]script.Result
	var wg sync.WaitGroup
	for i, tn := range tenants {
		wg.Go(func() { results[i] = run(t, tn.options(p, "mqtt", "same")) })
	}
	wg.Wait()
	for _, r := range results {
		hold(t, r, known)
	}
}

// TestScripts_Silent runs what is about brokers that do not tell clients of 3.1 what
// they refuse, in a tenant that has it so.
func TestScripts_Silent(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the product; not in short runs")
	}
	p := Start(t, Programs(t, built), "--data", t.TempDir(), "--listen-offset", Offset(t), "--log-level", "error")
	tn := signUp(t, p, "silent")
	request(t, http.MethodPut, p.API+"/v1/tenants/"+tn.ID+"/settings", tn.Key,
		strings.NewReader(`{"disconnect_on_unauthorized_publish_v3":false}`), http.StatusOK, nil)
	o := tn.options(p, "mqtt", "hush")
	o.Silent, o.Match = true, regexp.MustCompile("^publish/not-authorized-old$")
	var results []script.Result
	waitFor(t, "the setting", func() bool {
		results = run(t, o)
		return len(results) == 1 && results[0].Failure == nil && results[0].Skipped == ""
	})
}

// options are the way to a tenant over one transport.
func (a *account) options(p *Product, transport, id string) *script.Options {
	o := &script.Options{Username: a.UserPlain, Password: a.Password, RunID: id, Timeout: 20 * time.Second}
	var faces []string
	for _, g := range p.Of("gateway") {
		faces = append(faces, g.Addr(transport))
	}
	o.Broker = strings.Join(faces, ",")
	o.WebSocket = strings.HasPrefix(transport, "ws")
	if strings.HasSuffix(transport, "s") && transport != "ws" {
		o.TLS, o.Username = a.caAsConfig, a.Username
	}
	return o
}

func run(t *testing.T, o *script.Options) []script.Result {
	t.Helper()
	o.Jobs = 24 // several are run at once, and a gateway that is overloaded refuses clients
	all, err := script.Load()
	if err == nil {
		var results []script.Result
		if results, err = script.Run(t.Context(), all, o); err == nil {
			again(t, all, o, results)
			return results
		}
	}
	t.Error(err)
	return nil
}

// busy is how a gateway that is overloaded refuses a client; of 3.x it may be that.
var busy = map[bool]string{true: `code=0x9F reason="this gateway is overloaded`, false: "connack code=0x03"}

// again runs the scripts again that have failed because the gateway was overloaded, on a
// machine where much else runs: it has said that the client is to try again.
func again(t *testing.T, all []*script.Script, o *script.Options, results []script.Result) {
	t.Helper()
	for n := 1; n <= 5; n++ {
		refused := make(map[[2]string]*script.Result)
		var names []string
		for i := range results {
			if r := &results[i]; r.Failure != nil && strings.Contains(strings.Join(r.Trace, "\n"), busy[r.Version == wire.V5]) {
				refused[[2]string{r.Script, r.Version.String()}] = r
				names = append(names, regexp.QuoteMeta(r.Script))
			}
		}
		if len(refused) == 0 {
			return
		}
		time.Sleep(2 * time.Second) // as it was told
		more, err := script.Run(t.Context(), all, &script.Options{
			Broker: o.Broker, Spread: o.Spread, TLS: o.TLS, WebSocket: o.WebSocket, Path: o.Path, Username: o.Username, Password: o.Password, Silent: o.Silent,
			Timeout: o.Timeout, Quiet: o.Quiet, Jobs: 4, RunID: o.RunID[:min(3, len(o.RunID))] + "r" + strconv.Itoa(n),
			Match: regexp.MustCompile("^(" + strings.Join(names, "|") + ")$"),
		})
		if err != nil {
			t.Errorf("%d scripts once more: %v", len(refused), err)
			return
		}
		for i := range more {
			if r := refused[[2]string{more[i].Script, more[i].Version.String()}]; r != nil {
				*r = more[i]
			}
		}
	}
}

// failure is a line of a list of failures that are known.
type failure struct {
	line      int
	sometimes bool
	statement string // that the broker breaks, as 3.3.1-2, or a section
}

// known are failures by script and version.
type known map[[2]string]failure

// knownLine is a line of such a list: script, versions, "sometimes" if it also
// passes, and after the colon the statement, or "any" of the script's, and what
// the broker does.
var knownLine = regexp.MustCompile(`^([a-z0-9/-]+)((?: (?:3\.1|3\.1\.1|5))+)( sometimes)?: (\d+\.\d+\.\d+-\d+|section [\d.]+|any), .+$`)

// failures reads a list of failures that are known.
func failures(t *testing.T, file string) known {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	list, n := known{}, 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		m := knownLine.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("%s:%d: %q: expected \"SCRIPT VERSION…[ sometimes]: STATEMENT, what the broker does\"", file, n, line)
		}
		for v := range strings.FieldsSeq(m[2]) {
			list[[2]string{m[1], v}] = failure{n, m[3] != "", m[4]}
		}
	}
	return list
}

// hold fails the test for a failure that is not known, and for one that is known
// and is none any more.
func hold(t *testing.T, results []script.Result, list known) {
	t.Helper()
	ran, left := 0, maps.Clone(list)
	for _, r := range results {
		k := [2]string{r.Script, r.MQTT}
		f, listed := list[k]
		delete(left, k)
		if r.Skipped != "" {
			continue
		}
		ran++
		switch {
		case r.Failure != nil && !listed:
			t.Errorf("%s on %s: %s\n%s\n%s", r.Script, r.MQTT, r.Failure, strings.Join(r.Failure.Statements, "\n"), strings.Join(r.Trace, "\n"))
		case r.Failure != nil && f.statement != "any" && !slices.ContainsFunc(r.Failure.Statements, func(s string) bool { return strings.Contains(s, f.statement) }):
			t.Errorf("%s on %s: it breaks %q, the list says %s: %s", r.Script, r.MQTT, r.Failure.Statements, f.statement, r.Failure)
		case r.Failure == nil && listed && !f.sometimes:
			t.Errorf("%s on %s passes now: take line %d off the list", r.Script, r.MQTT, f.line)
		}
	}
	for k, f := range left {
		t.Errorf("line %d of the list: there is no script %s on %s", f.line, k[0], k[1])
	}
	if ran < 300 {
		t.Errorf("%d scripts ran, expected more than 300", ran)
	}
}

// TestScripts_Mosquitto validates the scripts against a broker of others. What it
// fails is listed with the statement that it breaks; what it passes, a script
// asks in a way that more than Manor can answer.
func TestScripts_Mosquitto(t *testing.T) {
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto"
	}
	version, err := exec.Command(path, "-h").Output()
	if version == nil {
		missing(t, "mosquitto", err)
	}
	if testing.Short() {
		t.Skip("takes seconds; not in short runs")
	}
	if first, _, _ := strings.Cut(string(version), "\n"); first != "mosquitto version 2.0.11" {
		missing(t, "mosquitto 2.0.11, which the list is of", fmt.Errorf("found %q", first))
	}
	list := failures(t, "testdata/mosquitto.txt")
	everything := startMosquitto(t, path, "", "", "protocol websockets\n")
	// What a server does that does not have everything.
	little := startMosquitto(t, path, "retain_available false\n", "max_qos 1\n")
	results := run(t, &script.Options{Broker: everything[0], RunID: "mosq", Silent: true})
	results = append(results, run(t, &script.Options{Broker: everything[1], WebSocket: true, RunID: "ws", Match: regexp.MustCompile("^websocket/")})...)
	results = append(results, run(t, &script.Options{Broker: little[0], RunID: "less", Match: regexp.MustCompile("^limits/")})...)
	hold(t, results, list)
	for _, r := range results {
		if r.Skipped == "" && strings.HasPrefix(r.Script, "limits/") {
			return
		}
	}
	t.Error("no script about limits ran")
}

// startMosquitto starts mosquitto with those listeners and returns their
// addresses. The first has to be one without WebSocket, or it does not start.
func startMosquitto(t *testing.T, path, settings string, listeners ...string) (addrs []string) {
	t.Helper()
	text := "allow_anonymous true\npersistence false\nlog_dest none\n" + settings
	for _, own := range listeners {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, ln.Addr().String())
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		_ = ln.Close()
		text += "listener " + port + " 127.0.0.1\n" + own
	}
	file := filepath.Join(t.TempDir(), "mosquitto.conf")
	// As root mosquitto becomes another user, who has to read this.
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-c", file)
	cmd.SysProcAttr = NoOrphan()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	until := time.Now().Add(10 * time.Second)
	for _, addr := range addrs {
		for {
			conn, err := net.Dial("tcp", addr)
			if err == nil {
				_ = conn.Close()
				break
			}
			if time.Now().After(until) {
				t.Fatalf("mosquitto does not listen: %v", err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return addrs
}
