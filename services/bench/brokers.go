// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
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
	// logins is a file of credentials that clients take in turn where they need
	// one; empty if they never do. tenants is how many tenants are to be seen;
	// where that is 0 they go without, if they can.
	logins  string
	tenants int
	// operators are the URLs of Manor's operator listeners.
	operators []string
	// nodes are Manor's brokers, where they are processes of their own.
	nodes []brokerNode
	// reach is how Manor's tenants are reached.
	reach Site
	dir   string
	pids  []int
	stop  func()
}

// brokerNode is one of Manor's broker processes.
type brokerNode struct {
	pid      int
	link     string // host:port
	operator string // URL
	data     string // folder
}

// arguments are the generator's to reach b over a transport.
func (b *broker) arguments(transport string) []string {
	args := []string{"-addr", b.addrs[transport], "-t", transport}
	if b.logins != "" && (b.tenants > 0 || transport == overTLS || transport == overWSS) {
		args = append(args, "-logins", b.logins)
	}
	return args
}

// startTime is how long a broker may take to accept connections.
const startTime = time.Minute

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
		port, err := freePort()
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
	Processes []struct {
		Role  string         `json:"role"`
		PID   int            `json:"pid"`
		Data  string         `json:"data"`
		Ports map[string]int `json:"ports"`
	} `json:"processes"`
}

// startManor starts this program's manor dev for a row with more arguments, in a
// new folder and on free ports, and counts all of its processes.
func startManor(ctx context.Context, path string, r row, args []string) (*broker, error) {
	dir, err := os.MkdirTemp("", "manor")
	if err != nil {
		return nil, err
	}
	b := &broker{name: "manor", addrs: map[string]string{}, dir: dir, tenants: r.tenants}
	offset, err := freeOffset()
	if err == nil && !r.empty {
		b.logins, err = makeTenants(ctx, dir, max(1, r.tenants))
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	args = append([]string{"dev", "--anonymous", "bench", "--json", "--data", dir, "--listen-offset", strconv.Itoa(offset)}, args...)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = r.environment()
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
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
		if port := p.Ports["operator"]; port != 0 {
			b.operators = append(b.operators, fmt.Sprintf("http://127.0.0.1:%d", port))
		}
		if p.Role == "broker" && p.Ports["link"] != 0 {
			b.nodes = append(b.nodes, brokerNode{
				pid: p.PID, data: p.Data, link: fmt.Sprintf("127.0.0.1:%d", p.Ports["link"]),
				operator: fmt.Sprintf("http://127.0.0.1:%d", p.Ports["operator"]),
			})
		}
		if p.Role != "nats" {
			b.reached(p.Ports)
		}
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
	return b, nil
}

func loopbackAddr(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// reached notes where one of Manor's processes is reached by clients.
func (b *broker) reached(ports map[string]int) {
	b.reach.Domain = devDomain
	if port := ports["api"]; port != 0 && b.reach.API == "" {
		b.reach.API = "http://" + loopbackAddr(port)
	}
	if ports["mqtt"] != 0 {
		b.reach.Gateways = append(b.reach.Gateways, SiteGateway{loopbackAddr(ports["mqtt"]), loopbackAddr(ports["mqtts"])})
	}
}

// freePort returns a loopback port that was free a moment ago, and is not one
// that outgoing connections take.
func freePort() (port int, err error) {
	for range 100 {
		port = 20_000 + rand.IntN(10_000)
		if err = portFree(port); err == nil {
			return port, nil
		}
	}
	return 0, err
}

func portFree(port int) error {
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	return ln.Close()
}

// freeOffset returns a --listen-offset at which manor dev's ports are free.
func freeOffset() (int, error) {
	// All ports are then below or above those that Linux takes for outgoing connections,
	// 32768 to 60999.
	for offset := 17_050; offset <= 21_250; offset += 100 {
		free := true
		for _, port := range []int{
			1883, 8883, 8083, 8084, 8080, 8888, 8889, 8890, 1893, 8893, 8093, 8094, 4222, 44053, 44054, 44055, 44063, 44064, 44065,
			44073, 44074, 44075, 8898, 8899, 8908,
		} {
			if err := portFree(port + offset); err != nil {
				free = false
				break
			}
		}
		if free {
			return offset, nil
		}
	}
	return 0, errors.New("no --listen-offset between 17050 and 21250 has free ports")
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
