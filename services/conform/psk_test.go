// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// Keys of the test's devices.
const (
	pressKey = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	acmeKey  = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"
)

// TestPSK runs what docs/psk.md says: stunnel in front of a gateway, with
// mosquitto's clients.
func TestPSK(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the product; not in short runs")
	}
	for _, program := range []string{"stunnel", "mosquitto_pub", "mosquitto_sub"} {
		if _, err := exec.LookPath(program); err != nil {
			missing(t, program, err)
		}
	}
	bin, data := Programs(t, built), t.TempDir()
	p := Start(t, bin, "--data", data, "--listen-offset", Offset(t), "--log-level", "error", "--brokers", "1", "--gateways", "2", "--no-restart")
	acme := signUp(t, p, "acme")
	manual := manualBlocks(t)
	ports := map[string]string{}
	for _, port := range []string{"1886", "1887", "8886", "8887"} {
		ports[port] = freePort(t)
	}
	secrets := func(name, line string) string {
		file := filepath.Join(data, name)
		if err := os.WriteFile(file, []byte(line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	ownGateway(t, bin, p.Of("gateway")[1], relocate(manual["yaml"], ports))
	ports["/etc/stunnel/psk.txt"] = secrets("psk.txt", "press-7:"+pressKey)
	ports["/etc/stunnel/psk-acme.txt"] = secrets("psk-acme.txt", "press-8:"+acmeKey)
	config := filepath.Join(data, "stunnel.conf")
	if err := os.WriteFile(config, []byte(relocate(manual["ini"], ports)), 0o600); err != nil {
		t.Fatal(err)
	}
	background(t, exec.Command("stunnel", config))
	for _, port := range []string{"1886", "1887", "8886", "8887"} {
		accepts(t, ports[port])
	}

	client := func(port, identity, key, username, password string) *mosquitto {
		return &mosquitto{t: t, args: []string{"-h", "127.0.0.1", "-p", ports[port], "--psk-identity", identity, "--psk", key, "-u", username, "-P", password}}
	}
	// The gateway listens before it has its link to the broker.
	waitFor(t, "a client is let in", func() bool {
		m := client("8886", "press-7", pressKey, acme.UserPlain, acme.Password)
		return m.command(t.Context(), "mosquitto_pub", "-t", "ready", "-m", "x", "-q", "1").Run() == nil
	})
	t.Run("all tenants", func(t *testing.T) {
		m := client("8886", "press-7", pressKey, acme.UserPlain, acme.Password)
		m.t = t
		m.exercise("psk")
	})
	t.Run("one tenant", func(t *testing.T) {
		m := client("8887", "press-8", acmeKey, acme.Username, acme.Password)
		m.t = t
		m.run("mosquitto_pub", "-q", "1", "-r", "-t", "one/kept", "-m", "kept", "--tls-version", "tlsv1.2")
		if got := client("8886", "press-7", pressKey, acme.UserPlain, acme.Password).run("mosquitto_sub", "-t", "one/kept", "-C", "1", "-W", "20"); string(got) != "kept\n" {
			t.Errorf("the retained message is %q", got)
		}
	})
	for name, c := range map[string]struct {
		m    *mosquitto
		want string
	}{
		"another key":                       {client("8886", "press-7", acmeKey, acme.UserPlain, acme.Password), ""},
		"an unknown identity":               {client("8886", "press-9", pressKey, acme.UserPlain, acme.Password), ""},
		"a key of another service":          {client("8887", "press-7", pressKey, acme.Username, acme.Password), ""},
		"a key, and not the password":       {client("8886", "press-7", pressKey, acme.UserPlain, "wrong"), "Connection Refused: bad user name or password"},
		"a key, and nobody's user name":     {client("8887", "press-8", acmeKey, "nobody", acme.Password), "Connection Refused: bad user name or password"},
		"no TLS":                            {&mosquitto{args: []string{"-h", "127.0.0.1", "-p", ports["8886"], "-u", acme.UserPlain, "-P", acme.Password}}, ""},
		"the listener, without stunnel":     {&mosquitto{args: []string{"-h", "127.0.0.1", "-p", ports["1886"], "-u", acme.UserPlain, "-P", acme.Password}}, ""},
		"TLS that brings no key of its own": {&mosquitto{args: []string{"-h", "127.0.0.1", "-p", ports["8886"], "--cafile", p.CA, "-u", acme.UserPlain, "-P", acme.Password}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := c.m.command(t.Context(), "mosquitto_pub", "-t", "t", "-m", "x", "-q", "1").CombinedOutput()
			if err == nil || !bytes.Contains(out, []byte(c.want)) {
				t.Errorf("%v %s, expected it to be refused (%s)", err, out, c.want)
			}
		})
	}
}

// manualBlocks are the configurations in docs/psk.md, by language.
func manualBlocks(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/psk.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string]string{}
	for _, m := range regexp.MustCompile("(?s)```([a-z]+)\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		blocks[m[1]] = m[2]
	}
	if blocks["yaml"] == "" || blocks["ini"] == "" {
		t.Fatalf("docs/psk.md: expected a block yaml and a block ini, found %d", len(blocks))
	}
	return blocks
}

// relocate replaces words of a text.
func relocate(text string, words map[string]string) string {
	var pairs []string
	for from, to := range words {
		pairs = append(pairs, from, to)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// ownGateway puts a gateway with other listeners in the place of one of manor
// dev's, whose name and certificate it needs.
func ownGateway(t *testing.T, bin string, was *Process, listeners string) {
	t.Helper()
	if err := syscall.Kill(was.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	config := map[string]any{}
	for _, from := range []func() ([]byte, error){
		func() ([]byte, error) { return os.ReadFile(filepath.Join(was.Data, "gatewayd.yaml")) },
		func() ([]byte, error) { return []byte(listeners), nil },
	} {
		text, err := from()
		if err == nil {
			err = yaml.Unmarshal(text, &config)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	config["operator"] = map[string]any{"listen": "127.0.0.1:0"}
	text, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "gatewayd.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	background(t, exec.Command(filepath.Join(bin, "gatewayd"), "--config", file))
}

// background starts a program that the end of the test ends.
func background(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &out, &out, NoOrphan()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", cmd.Path, &out)
		}
	})
}

// freePort is one that nobody listens on now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

// accepts waits until somebody listens.
func accepts(t *testing.T, port string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", port))
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("nobody listens on %s: %v", port, err)
		}
	}
}
