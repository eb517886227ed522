// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/manormq/manor/infra/node"
)

// child is a process that manor dev starts and watches.
type child struct {
	*process
	log       *slog.Logger
	program   string
	args      []string
	output    io.Writer
	noRestart bool

	up      atomic.Bool   // it was ready once: from then on it is started again
	stop    chan struct{} // closed when the process shall end for good
	once    sync.Once
	stopped chan struct{} // closed when it has
}

// The pauses before a process is started again. One that lived for longer than
// settled begins with the shortest.
const (
	restartFirst = 100 * time.Millisecond
	restartMost  = 5 * time.Second
	settled      = 10 * time.Second
)

// readyTime is how long a process may take before it listens.
const readyTime = 30 * time.Second

// part returns the child as a part of manor dev: it is ready when it listens,
// and is stopped before those that were started earlier.
func (c *child) part() node.Part {
	c.stop, c.stopped = make(chan struct{}), make(chan struct{})
	return node.Part{
		Name: c.Name,
		Start: func(ctx context.Context) error {
			started := make(chan error, 1)
			go c.watch(started)
			if err := <-started; err != nil {
				return err
			}
			if err := c.ready(ctx); err != nil {
				c.end()
				return err
			}
			c.up.Store(true)
			return nil
		},
		Run: func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		},
		Drain: func(context.Context) error { c.end(); return nil },
		Stop:  func() error { c.end(); return nil },
	}
}

// end stops the process and waits for that.
func (c *child) end() {
	c.once.Do(func() { close(c.stop) })
	<-c.stopped
}

// watch runs the process, again and again, until stop. It keeps its thread,
// because a child is told of the death of the thread that made it.
func (c *child) watch(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(c.stopped)
	pause := restartFirst
	for {
		cmd := exec.Command(c.program, c.args...)
		cmd.Stdout, cmd.Stderr = c.output, c.output
		cmd.SysProcAttr = childAttributes()
		begun := time.Now()
		err := cmd.Start()
		if started != nil {
			if err == nil {
				c.PID = cmd.Process.Pid
			}
			started <- err
			if started = nil; err != nil {
				return
			}
		}
		if err == nil {
			if err = c.wait(cmd); errors.Is(err, errStopped) {
				return
			}
		}
		if !c.up.Load() {
			c.log.Error("a process has ended before it was ready", "process", c.Name, "error", err)
			return
		}
		if c.noRestart {
			c.log.Error("a process has ended and is not started again", "process", c.Name, "error", err)
			<-c.stop
			return
		}
		if x := (*exec.ExitError)(nil); errors.As(err, &x) && x.ExitCode() == node.ExitRetired {
			c.log.Warn("a process has ended and is not started again, as it is no member any more and would end again", "process", c.Name)
			<-c.stop
			return
		}
		if time.Since(begun) > settled {
			pause = restartFirst
		}
		c.log.Error("a process has ended", "process", c.Name, "error", err, "again_in", pause)
		select {
		case <-time.After(pause):
		case <-c.stop:
			return
		}
		pause = min(2*pause, restartMost)
	}
}

var errStopped = errors.New("stopped")

// wait waits for the end of the process; the error is errStopped if that was
// asked for.
func (c *child) wait(cmd *exec.Cmd) error {
	var err error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err = cmd.Wait()
	}()
	select {
	case <-ended:
		if err == nil {
			err = errors.New("it ended by itself, without an error")
		}
		return err
	case <-c.stop:
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(stopTime):
		c.log.Warn("a process does not stop and is killed", "process", c.Name)
		_ = cmd.Process.Kill()
		<-ended
	}
	return errStopped
}

// stopTime is how long a process may take to stop in order.
const stopTime = 15 * time.Second

// ready waits until the process listens at its ports and says that it is well.
func (c *child) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	var err error
	for {
		if err = c.listens(ctx); err == nil {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-c.stopped:
			return fmt.Errorf("%s ended before it was ready; what it said is above", c.Name)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %v: %w", c.Name, readyTime, err)
		}
	}
}

func (c *child) listens(ctx context.Context) error {
	var d net.Dialer
	for name := range c.Ports {
		if name == "link" || name == "cluster" {
			continue // its health says it; a stranger there would be logged
		}
		nc, err := d.DialContext(ctx, "tcp", c.local(name))
		if err != nil {
			return err
		}
		_ = nc.Close()
	}
	if c.Ports["operator"] == 0 {
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.local("operator")+"/health", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return fmt.Errorf("its health is %s: %s", resp.Status, body)
	}
	return nil
}

// sibling returns the path of a program beside this one.
func sibling(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(self), name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not beside %s: run make build", name, self)
	}
	return path, nil
}
