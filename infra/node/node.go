// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
)

// Config is what every role's configuration begins with; embed it.
type Config struct {
	Name         string              `yaml:"name" doc:"the name of this node, unique in its region; empty takes the host name"`
	Log          telemetry.LogConfig `yaml:"log"`
	Operator     OperatorConfig      `yaml:"operator"`
	DrainTimeout time.Duration       `yaml:"drain_timeout" doc:"how long an ordered stop may take before what is left is cut off"`
}

// DefaultConfig returns the common section with the operator listener at that
// address.
func DefaultConfig(operator string) Config {
	return Config{
		Log:          telemetry.DefaultLog(),
		Operator:     OperatorConfig{Listen: operator},
		DrainTimeout: 20 * time.Second,
	}
}

// Validate says what is wrong with the common section. A role's own Validate
// hides it and must call it.
func (c *Config) Validate() error {
	var p Problems
	_, err := telemetry.NewLogger(io.Discard, c.Log)
	p.Add("", err)
	if c.Operator.Listen != "" {
		_, _, err := net.SplitHostPort(c.Operator.Listen)
		p.Expect(err == nil, "operator.listen: expected host:port, found %q", c.Operator.Listen)
	}
	p.Expect(c.DrainTimeout >= 0, "drain_timeout: expected 0s or more, found %v", c.DrainTimeout)
	return p.Err()
}

// NodeName returns the configured name, or the host's.
func (c *Config) NodeName() string {
	if c.Name != "" {
		return c.Name
	}
	if h, err := os.Hostname(); err == nil {
		return h
	}
	return "node"
}

// Part is one thing that a process consists of. Any of its functions may be
// nil.
type Part struct {
	Name string
	// Start makes the part ready for those that come after it. It returns when
	// it is.
	Start func(ctx context.Context) error
	// Run works until ctx is done. If it returns an error, or returns before
	// ctx is done, the process stops.
	Run func(ctx context.Context) error
	// Drain is asked before Run's ctx is cancelled: take nothing new, finish
	// what is begun. It returns when that is done or ctx is.
	Drain func(ctx context.Context) error
	// Stop is called after Run returned.
	Stop func() error
}

// Options are how Run runs.
type Options struct {
	Log *slog.Logger
	// DrainTimeout bounds the whole ordered stop; 0 means 20 s.
	DrainTimeout time.Duration
	// Ready, if not nil, is called when all parts have started.
	Ready func()
	// NoSignals leaves SIGINT and SIGTERM alone.
	NoSignals bool
}

// Run starts the parts in order, waits for ctx, a signal or the failure of a
// part, and stops them in reverse. A second signal ends the wait for draining.
// The error is the first failure; an ordered stop has none.
func Run(ctx context.Context, o Options, parts ...Part) error {
	if o.DrainTimeout <= 0 {
		o.DrainTimeout = 20 * time.Second
	}
	signals := make(chan os.Signal, 2)
	if !o.NoSignals {
		signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
		defer signal.Stop(signals)
	}
	// What runs lives on after ctx, until it is its turn to stop.
	life, endLife := context.WithCancel(context.WithoutCancel(ctx))
	defer endLife()

	starting, cancelStart := context.WithCancel(ctx)
	defer cancelStart()
	failed := make(chan error, len(parts))
	var running []*runningPart
	var err error
	for _, p := range parts {
		var r *runningPart
		if r, err = start(starting, life, p, signals, failed); err != nil {
			err = fmt.Errorf("start %s: %w", p.Name, err)
			break
		}
		running = append(running, r)
	}
	if err == nil {
		if o.Ready != nil {
			o.Ready()
		}
		select {
		case <-ctx.Done():
			o.Log.Info("stopping", "why", context.Cause(ctx).Error())
		case s := <-signals:
			o.Log.Info("stopping", "why", s.String())
		case err = <-failed:
			level := slog.LevelError
			if errs.CodeOf(err) == CodeRetired {
				level = slog.LevelWarn // somebody has asked for that
			}
			o.Log.Log(ctx, level, "a part of the process failed", "error", err)
		}
	}
	return errors.Join(err, stop(o, running, signals))
}

type runningPart struct {
	Part
	cancel context.CancelFunc
	done   chan struct{} // closed when Run returned
}

// start starts one part; a signal or ctx interrupts its Start.
func start(ctx, life context.Context, p Part, signals <-chan os.Signal, failed chan<- error) (*runningPart, error) {
	if p.Start != nil {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		started := make(chan error, 1)
		go func() { started <- p.Start(ctx) }()
		select {
		case err := <-started:
			if err != nil {
				return nil, err
			}
		case s := <-signals:
			cancel()
			<-started
			return nil, errs.New(errs.Unavailable, "interrupted by %s", s)
		}
	}
	r := &runningPart{Part: p, done: make(chan struct{})}
	var runCtx context.Context
	runCtx, r.cancel = context.WithCancel(life)
	if p.Run == nil {
		close(r.done)
		return r, nil
	}
	go func() {
		defer close(r.done)
		err := p.Run(runCtx)
		if runCtx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
			return
		}
		if err == nil {
			err = errs.New(errs.Internal, "ended by itself")
		}
		failed <- fmt.Errorf("%s: %w", p.Name, err)
	}()
	return r, nil
}

func stop(o Options, running []*runningPart, signals <-chan os.Signal) error {
	ctx, cancel := context.WithTimeout(context.Background(), o.DrainTimeout)
	defer cancel()
	go func() {
		select {
		case <-signals:
			o.Log.Warn("second signal: not waiting any longer")
			cancel()
		case <-ctx.Done():
		}
	}()
	var errAll error
	for _, r := range slices.Backward(running) {
		errAll = errors.Join(errAll, r.stop(ctx, o.Log))
	}
	return errAll
}

// grace is what each step of stopping a part gets when the drain timeout has
// passed: what ignores its context must not hold the process.
const grace = time.Second

func (r *runningPart) stop(ctx context.Context, log *slog.Logger) error {
	if r.Drain != nil {
		drained := make(chan error, 1)
		go func() { drained <- r.Drain(ctx) }()
		err := errs.New(errs.Unavailable, "it ignores the drain timeout")
		within(ctx, func(done <-chan struct{}) {
			select {
			case err = <-drained:
			case <-done:
			}
		})
		if err != nil {
			log.Warn("not drained", "part", r.Name, "error", err)
		}
	}
	r.cancel()
	var all error
	within(ctx, func(done <-chan struct{}) {
		select {
		case <-r.done:
		case <-done:
			all = errs.New(errs.Unavailable, "stop %s: still running after the drain timeout", r.Name)
		}
	})
	if r.Stop != nil {
		stopped := make(chan error, 1)
		go func() { stopped <- r.Stop() }()
		err := errs.New(errs.Unavailable, "it does not end")
		within(ctx, func(done <-chan struct{}) {
			select {
			case err = <-stopped:
			case <-done:
			}
		})
		if err != nil {
			all = errors.Join(all, fmt.Errorf("stop %s: %w", r.Name, err))
		}
	}
	log.Debug("stopped", "part", r.Name)
	return all
}

// within calls f with a channel that is closed a moment after ctx is done.
func within(ctx context.Context, f func(done <-chan struct{})) {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-t.C:
			cancel()
		case <-late.Done():
		}
	})()
	f(late.Done())
}

// Version is the version of the main module that was built in, with the commit
// if it is known.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" {
		v = "(devel)"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			v += "+" + s.Value[:12]
		}
	}
	return v
}
