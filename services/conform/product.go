// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is one process of a running product.
type Process struct {
	Role  string         `json:"role"`
	Name  string         `json:"name"`
	PID   int            `json:"pid"`
	Data  string         `json:"data"`
	Ports map[string]int `json:"ports"`
}

// Addr is the loopback address of one of the process's ports.
func (p *Process) Addr(port string) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Ports[port]))
}

// Product is a running manor dev.
type Product struct {
	API       string    `json:"api"`
	Operator  string    `json:"operator"`
	CA        string    `json:"ca"`
	Processes []Process `json:"processes"`

	t    testing.TB
	cmd  *exec.Cmd
	once sync.Once
}

// Programs builds the product once for a run of tests and returns the folder of
// its programs.
func Programs(t testing.TB, builder func() (string, error)) string {
	t.Helper()
	dir, err := builder()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Build builds the programs into dir.
func Build(dir string) error {
	cmd := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "github.com/manormq/manor/services/cmd/...")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the product: %w\n%s", err, out)
	}
	return nil
}

// Start starts manor dev of the folder bin with args and returns when all of
// its listeners accept. The end of the test stops it.
func Start(t testing.TB, bin string, args ...string) *Product {
	t.Helper()
	return StartWith(t, bin, os.Stderr, nil, args...)
}

// StartWith is Start with what the product logs going to log, and more variables in its
// environment, NAME=value.
func StartWith(t testing.TB, bin string, log io.Writer, environ []string, args ...string) *Product {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "manor"), append([]string{"dev", "--json"}, args...)...)
	cmd.Stderr, cmd.Env = log, append(os.Environ(), environ...)
	cmd.SysProcAttr = NoOrphan()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &Product{t: t, cmd: cmd}
	t.Cleanup(p.Stop)
	late := time.AfterFunc(60*time.Second, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	r := bufio.NewReader(out)
	line, err := r.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, p)
	}
	if err != nil {
		t.Fatalf("manor dev %q did not become ready: %v", args, errors.Join(err, cmd.Wait()))
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	return p
}

// Stop stops the product in order, as Ctrl-C does.
func (p *Product) Stop() { p.end(syscall.SIGTERM) }

// Kill ends manor dev with kill -9, and with it every process of the product.
func (p *Product) Kill() { p.end(syscall.SIGKILL) }

func (p *Product) end(signal syscall.Signal) {
	p.once.Do(func() {
		_ = p.cmd.Process.Signal(signal)
		// One that hangs says where: SIGQUIT has Go write its stacks.
		late := time.AfterFunc(45*time.Second, func() { _ = p.cmd.Process.Signal(syscall.SIGQUIT) })
		defer late.Stop()
		if err := p.cmd.Wait(); err != nil && signal == syscall.SIGTERM {
			p.t.Errorf("the product did not stop in order: %v", err)
		}
	})
}

// Of returns the processes of that role; in one process that is the one.
func (p *Product) Of(role string) (found []*Process) {
	for i := range p.Processes {
		if r := p.Processes[i].Role; r == role || r == "all" {
			found = append(found, &p.Processes[i])
		}
	}
	return found
}

// offsetBases are the first ports of each kind that manor dev may use, for up to nine
// processes of a role, ten ports apart.
var offsetBases = [...]int{1883, 8080, 8083, 8084, 8883, 8888, 8889, 8890, 4222, 6222, 44053, 44054, 44055}

// Offset returns a --listen-offset whose ports are free, however many processes there are
// to be.
func Offset(t testing.TB) string {
	t.Helper()
	var ports []int
	for _, base := range offsetBases {
		for k := range 9 {
			ports = append(ports, base+10*k)
		}
	}
	// From 17000 on all ports are below or above those that Linux takes for outgoing
	// connections, 32768 to 60999: nobody takes one before manor dev does.
	for k := range 43 {
		if offset := 17_000 + (os.Getpid()+k)%43*100; free(offset, ports) {
			return strconv.Itoa(offset)
		}
	}
	t.Fatal("no free ports")
	return ""
}

func free(offset int, ports []int) bool {
	for _, port := range ports {
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port+offset)))
		if err != nil {
			return false
		}
		_ = ln.Close()
	}
	return true
}
