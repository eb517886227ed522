// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// account is a tenant that has signed up, with its credential.
type account struct {
	ID         string
	Hostname   string
	Key        string
	Username   string // where the hostname says which tenant
	UserPlain  string // where it does not
	Password   string
	gateway    *Process
	ca         string
	caAsConfig *tls.Config
}

// signUp makes a tenant through the API.
func signUp(t *testing.T, p *Product, id string) *account {
	t.Helper()
	body := fmt.Sprintf(`{"organization":"Test","email":"ops@test.example","password":"correct-horse-battery","tenant":%q}`, id)
	resp, err := http.Post(p.API+"/v1/signup", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("sign-up: %s, %v\n%s", resp.Status, err, answer)
	}
	var out struct {
		Tenant     struct{ ID, Hostname string }
		APIKey     struct{ Secret string } `json:"api_key"`
		Credential struct {
			Username  string
			UserPlain string `json:"username_plain"`
			Password  string
		}
	}
	if err := json.Unmarshal(answer, &out); err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(p.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &account{
		ID: out.Tenant.ID, Hostname: out.Tenant.Hostname, Key: out.APIKey.Secret, Username: out.Credential.Username,
		UserPlain: out.Credential.UserPlain, Password: out.Credential.Password,
		gateway: p.Of("gateway")[0], ca: p.CA, caAsConfig: &tls.Config{RootCAs: roots, ServerName: out.Tenant.Hostname, MinVersion: tls.VersionTLS12},
	}
}

// missing skips the test, and fails it in CI, because something is not there.
func missing(t testing.TB, what string, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s: %v", what, err)
	}
	t.Skipf("%s: %v (make deps installs it where it can)", what, err)
}

// TestInterop drives clients that others wrote through every listener.
func TestInterop(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the product; not in short runs")
	}
	p := Start(t, Programs(t, built), "--data", t.TempDir(), "--listen-offset", Offset(t))
	tn := signUp(t, p, "interop")
	t.Run("mosquitto", func(t *testing.T) { testMosquitto(t, tn) })
	t.Run("paho v3", func(t *testing.T) { testPahoV3(t, tn) })
	t.Run("paho v5", func(t *testing.T) { testPahoV5(t, tn) })
	t.Run("MQTT.js", func(t *testing.T) { testJS(t, tn) })
}

func testJS(t *testing.T, tn *account) {
	node, err := exec.LookPath("node")
	if err != nil {
		missing(t, "Node.js", err)
	}
	if _, err := os.Stat("js/node_modules/mqtt"); err != nil {
		missing(t, "MQTT.js", err)
	}
	for _, version := range []int{4, 5} {
		for _, scheme := range []string{"ws", "wss"} {
			t.Run(fmt.Sprintf("%s v%d", scheme, version), func(t *testing.T) {
				t.Parallel()
				options := map[string]any{
					"url":      fmt.Sprintf("%s://%s:%d/mqtt", scheme, tn.Hostname, tn.gateway.Ports[scheme]),
					"username": tn.Username, "password": tn.Password, "protocolVersion": version, "prefix": fmt.Sprintf("js-%s-%d", scheme, version),
				}
				if scheme != "ws" {
					options["ca"], options["servername"] = tn.ca, tn.Hostname
				}
				arg, err := json.Marshal(options)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
				defer cancel()
				if out, err := exec.CommandContext(ctx, node, "js/client.mjs", string(arg)).CombinedOutput(); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
	}
}

// mosquitto runs mosquitto's clients with the arguments that reach a tenant.
type mosquitto struct {
	t    *testing.T
	args []string
	wrap []string // a command in front, so that the hostname resolves
}

func (m *mosquitto) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	line := slices.Concat(m.wrap, []string{program}, m.args, args)
	return exec.CommandContext(ctx, line[0], line[1:]...)
}

func (m *mosquitto) run(program string, args ...string) []byte {
	m.t.Helper()
	var errors bytes.Buffer
	cmd := m.command(m.t.Context(), program, args...)
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("%s %q: %v\n%s%s", program, args, err, out, &errors)
	}
	return out
}

func testMosquitto(t *testing.T, tn *account) {
	for _, program := range []string{"mosquitto_sub", "mosquitto_pub"} {
		if _, err := exec.LookPath(program); err != nil {
			missing(t, "mosquitto's clients", err)
		}
	}
	wrap, wrapErr := resolving(t, tn.Hostname)
	for _, version := range []string{"mqttv31", "mqttv311", "mqttv5"} {
		t.Run("tcp "+version, func(t *testing.T) {
			t.Parallel()
			m := &mosquitto{t: t, args: []string{"-h", "127.0.0.1", "-p", fmt.Sprint(tn.gateway.Ports["mqtt"]), "-u", tn.UserPlain, "-P", tn.Password, "-V", version}}
			m.exercise("tcp-" + version)
		})
		t.Run("tls "+version, func(t *testing.T) {
			t.Parallel()
			if wrapErr != nil {
				missing(t, "a way to have "+tn.Hostname+" resolve", wrapErr)
			}
			m := &mosquitto{t: t, wrap: wrap, args: []string{
				"-h", tn.Hostname, "-p", fmt.Sprint(tn.gateway.Ports["mqtts"]), "-u", tn.Username, "-P", tn.Password, "-V", version, "--cafile", tn.ca,
			}}
			m.exercise("tls-" + version)
		})
	}
}

// resolving returns a command that runs another one with an /etc/hosts of its
// own, in which name is loopback. It needs a mount namespace.
func resolving(t *testing.T, name string) ([]string, error) {
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost "+name+"\n"), 0o644); err != nil {
		return nil, err
	}
	script := fmt.Sprintf(`mount --bind %q /etc/hosts && exec "$@"`, hosts)
	for _, unshare := range [][]string{{"unshare", "-m"}, {"unshare", "-rm"}} {
		wrap := slices.Concat(unshare, []string{"sh", "-c", script, "sh"})
		if exec.Command(wrap[0], slices.Concat(wrap[1:], []string{"true"})...).Run() == nil {
			return wrap, nil
		}
	}
	return nil, fmt.Errorf("neither %s resolves nor is a mount namespace allowed", name)
}

// exercise runs through QoS 0 to 2, retained, persistent sessions, 1 MiB and a
// will.
func (m *mosquitto) exercise(name string) {
	t := m.t
	session := []string{"-c"}
	if strings.Contains(name, "mqttv5") {
		session = append(session, "-x", "300")
	}
	for _, qos := range []string{"0", "1", "2"} {
		// A session that is there before its subscriber is: what is published
		// meanwhile waits in it. At QoS 0 the retained message stands in.
		topic, id := name+"/q"+qos, name+"-s"+qos
		sub := append([]string{"-i", id, "-q", qos, "-t", topic}, session...)
		if qos != "0" {
			m.run("mosquitto_sub", append(sub, "-E")...)
			m.run("mosquitto_pub", "-i", name+"-p", "-q", qos, "-t", topic, "-m", "at "+qos)
		} else {
			m.run("mosquitto_pub", "-i", name+"-p", "-q", "0", "-r", "-t", topic, "-m", "at 0")
		}
		if got := m.run("mosquitto_sub", append(sub, "-C", "1", "-W", "20")...); string(got) != "at "+qos+"\n" {
			t.Errorf("QoS %s brought %q", qos, got)
		}
	}
	m.run("mosquitto_pub", "-q", "1", "-r", "-t", name+"/kept", "-m", "kept")
	if got := m.run("mosquitto_sub", "-q", "1", "-t", name+"/kept", "-C", "1", "-W", "20", "-F", "%r %q %p"); string(got) != "1 1 kept\n" {
		t.Errorf("the retained message is %q", got)
	}
	large := filepath.Join(t.TempDir(), "large")
	payload := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)
	if err := os.WriteFile(large, payload, 0o600); err != nil {
		t.Fatal(err)
	}
	m.run("mosquitto_pub", "-q", "1", "-r", "-t", name+"/large", "-f", large)
	if got := m.run("mosquitto_sub", "-q", "1", "-t", name+"/large", "-C", "1", "-W", "20", "-N"); !bytes.Equal(got, payload) {
		t.Errorf("1 MiB came as %d bytes", len(got))
	}
	watch := append([]string{"-i", name + "-w", "-q", "1", "-t", name + "/will"}, session...)
	m.run("mosquitto_sub", append(watch, "-E")...)
	dying := m.command(t.Context(), "mosquitto_sub", "-i", name+"-dying", "-t", name+"/ready", "-v",
		"--will-topic", name+"/will", "--will-payload", "gone", "--will-qos", "1")
	out, err := dying.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	m.run("mosquitto_pub", "-q", "1", "-r", "-t", name+"/ready", "-m", "yes")
	if err := dying.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = out.Read(make([]byte, 1)) // it is connected and subscribed
	_ = dying.Process.Kill()
	_ = dying.Wait()
	if got := m.run("mosquitto_sub", append(watch, "-C", "1", "-W", "20")...); string(got) != "gone\n" {
		t.Errorf("the will is %q", got)
	}
}
