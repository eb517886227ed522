// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// broker is a broker that runs as processes of ours.
type broker struct {
	name  string
	addrs map[string]string // by transport
	// login are the generator's arguments where clients need a credential.
	login []string
	dir   string
	pids  []int
	stop  func()
}

// arguments are the generator's to reach b over a transport.
func (b *broker) arguments(transport string) []string {
	args := []string{"-addr", b.addrs[transport], "-t", transport}
	if transport == overTLS || transport == overWSS {
		args = append(args, b.login...)
	}
	return args
}

// startTime is how long a broker may take to accept connections.
const startTime = 30 * time.Second

// startMosquitto starts Debian's mosquitto on free loopback ports, with unlimited
// queues and nothing on disk. With TLS it uses a copy of the certificate in the
// two files; none if they are empty.
func startMosquitto(ctx context.Context, path, cert, key string) (*broker, error) {
	dir, err := os.MkdirTemp("", "mosquitto")
	if err != nil {
		return nil, err
	}
	// As root mosquitto becomes another user, who has to read this.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	b := &broker{name: "mosquitto", addrs: map[string]string{}}
	var conf strings.Builder
	conf.WriteString("allow_anonymous true\nmax_queued_messages 0\npersistence false\nlog_dest none\n")
	for _, transport := range []string{overTCP, overWS, overTLS} {
		port, err := freePort(0)
		if err != nil {
			return nil, err
		}
		settings := ""
		switch {
		case transport == overWS:
			settings = "protocol websockets\n"
		case transport == overTLS && cert == "":
			continue
		case transport == overTLS:
			settings = fmt.Sprintf("certfile %s/cert.pem\nkeyfile %s/key.pem\n", dir, dir)
			if err := errors.Join(copyFile(cert, dir+"/cert.pem"), copyFile(key, dir+"/key.pem")); err != nil {
				return nil, err
			}
		}
		b.addrs[transport] = fmt.Sprintf("127.0.0.1:%d", port)
		fmt.Fprintf(&conf, "listener %d 127.0.0.1\n%s", port, settings)
	}
	file := filepath.Join(dir, "mosquitto.conf")
	if err := os.WriteFile(file, []byte(conf.String()), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, "-c", file)
	if err := b.run(cmd, dir); err != nil {
		return nil, err
	}
	if err := b.accepts(); err != nil {
		b.stop()
		return nil, err
	}
	return b, nil
}

// copyFile makes a copy that every user of this machine may read.
func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o644)
}

// run starts cmd and has stop end it and remove dir.
func (b *broker) run(cmd *exec.Cmd, dir string) error {
	if b.name == "manor" {
		cmd.Stderr = os.Stderr // others say what they do all the time
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		_ = os.RemoveAll(dir)
		return fmt.Errorf("start %s: %w", b.name, err)
	}
	b.pids = []int{cmd.Process.Pid}
	b.stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		ended := time.AfterFunc(cmd.WaitDelay, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		ended.Stop()
		_ = os.RemoveAll(dir)
	}
	return nil
}

// devLine is the part of manor dev's --json line that is read here.
type devLine struct {
	API       string `json:"api"`
	Processes []struct {
		Role  string         `json:"role"`
		PID   int            `json:"pid"`
		Ports map[string]int `json:"ports"`
	} `json:"processes"`
}

// startManor starts this program's manor dev with more arguments, in a new
// folder and on free ports, and counts all of its processes.
func startManor(ctx context.Context, path string, args []string) (*broker, error) {
	dir, err := os.MkdirTemp("", "manor")
	if err != nil {
		return nil, err
	}
	offset, err := freeOffset()
	if err != nil {
		return nil, err
	}
	args = append([]string{"dev", "--anonymous", "bench", "--json", "--data", dir, "--listen-offset", strconv.Itoa(offset)}, args...)
	cmd := exec.CommandContext(ctx, path, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	b := &broker{name: "manor", addrs: map[string]string{}, dir: dir}
	if err := b.run(cmd, dir); err != nil {
		return nil, err
	}
	late := time.AfterFunc(startTime, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	lines := bufio.NewReader(out)
	text, err := lines.ReadString('\n')
	var line devLine
	if err == nil {
		err = json.Unmarshal([]byte(text), &line)
	}
	if err != nil {
		b.stop()
		return nil, fmt.Errorf("manor dev did not say where it listens: %w", err)
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	for _, p := range line.Processes {
		b.pids = append(b.pids, p.PID)
		for transport, name := range map[string]string{overTCP: "mqtt", overTLS: "mqtts", overWS: "ws", overWSS: "wss"} {
			if port := p.Ports[name]; port != 0 && b.addrs[transport] == "" {
				b.addrs[transport] = fmt.Sprintf("127.0.0.1:%d", port)
			}
		}
	}
	if b.addrs[overTCP] == "" {
		b.stop()
		return nil, errors.New("manor dev has no MQTT port")
	}
	if b.login, err = signUp(ctx, line.API); err != nil {
		b.stop()
		return nil, err
	}
	return b, nil
}

// signUp makes a tenant and returns the generator's arguments to connect with
// its credential.
func signUp(ctx context.Context, api string) ([]string, error) {
	const body = `{"organization":"Bench","email":"bench@bench.example","password":"correct-horse-battery","tenant":"bench-tls"}`
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, api+"/v1/signup", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Credential struct {
			Username string `json:"username"`
			Password string `json:"password"`
		} `json:"credential"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Credential.Password == "" {
		return nil, fmt.Errorf("sign up for a tenant: %s: %w", resp.Status, err)
	}
	_, name, _ := strings.Cut(answer.Credential.Username, ":")
	return []string{"-user", "bench-tls:" + cmp.Or(name, answer.Credential.Username), "-pass", answer.Credential.Password}, nil
}

// freePort returns a loopback port that was free a moment ago: want, or any if
// that is 0.
func freePort(want int) (int, error) {
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", want))
	if err != nil {
		return 0, err
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().(*net.TCPAddr).Port, nil
}

// freeOffset returns a --listen-offset at which manor dev's ports are free.
func freeOffset() (int, error) {
	for offset := 10_000; offset <= 20_000; offset += 100 {
		free := true
		for _, port := range []int{1883, 8883, 8083, 8084, 8080, 8888, 1893, 8893} {
			if _, err := freePort(port + offset); err != nil {
				free = false
				break
			}
		}
		if free {
			return offset, nil
		}
	}
	return 0, errors.New("no --listen-offset between 10000 and 20000 has free ports")
}

// findMosquitto returns the path of mosquitto, which Debian keeps where only
// root looks.
func findMosquitto() (string, error) {
	for _, name := range []string{"mosquitto", "/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("mosquitto is not installed (apt-get install mosquitto)")
}

// versionOf is the first line that a program says about itself.
func versionOf(ctx context.Context, path string, args ...string) string {
	out, _ := exec.CommandContext(ctx, path, args...).CombinedOutput() // mosquitto -h ends with 3
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}
