// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// scenarios are the load patterns by name.
var scenarios = map[string]func(*Options, *Result) error{
	"pairs": pairs, "fanin": fanIn, "fanout": fanOut, "shared": shared,
	"idle": idle, "offline": offline, "retained": retained, "wild": wild, "storm": storm,
}

// Scenarios returns the names of all scenarios.
func Scenarios() []string { return slices.Sorted(maps.Keys(scenarios)) }

// Run measures one scenario. A broker that refuses or ends a connection makes
// Result.Error; the error is about the options.
func Run(o Options) (*Result, error) {
	if err := o.Validate(); err != nil {
		return nil, errs.New(errs.Invalid, "%w", err)
	}
	if err := o.prepare(); err != nil {
		return nil, errs.New(errs.Invalid, "%w", err)
	}
	res := &Result{Label: o.Label, Scenario: o.Scenario, Extra: map[string]float64{}}
	if err := raiseFiles(uint64(o.connections() + 64)); err != nil {
		return nil, err
	}
	var err error
	if o.Tenants > 0 {
		if o.logins, err = signUps(context.Background(), o.API, o.Tenants); err != nil {
			return nil, errs.New(errs.Unavailable, "%w", err)
		}
	}
	if o.pauses, err = watchPauses(o.Operator); err != nil {
		return nil, err
	}
	if err := scenarios[o.Scenario](&o, res); err != nil {
		res.Error = err.Error()
	}
	return res, nil
}

// connections is how many connections the scenario has open at once, at most.
func (o *Options) connections() int {
	switch o.Scenario {
	case "idle":
		return o.N
	case "offline", "retained", "storm":
		return o.Conc + 8
	case "wild":
		return 2 * o.N
	}
	return 2*o.N + max(o.Subs, 500)
}

// raiseFiles raises the limit of open files as far as it goes, also for
// processes that are started later, and fails if that is less than want.
func raiseFiles(want uint64) error {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	lim.Cur = lim.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("raise the limit of open files: %w", err)
	}
	if lim.Cur < want {
		return fmt.Errorf("%d open files are allowed, up to %d may be wanted: raise ulimit -n", lim.Cur, want)
	}
	return nil
}

// prefix makes the topics and client ids of this process its own.
func prefix() string { return fmt.Sprintf("m%d", os.Getpid()) }

// ownCPU is the CPU time of this process until now.
func ownCPU() time.Duration {
	var ru syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// each runs f(0) to f(n-1) on conc goroutines and returns the first error,
// after which it starts no more.
func each(conc, n int, f func(i int) error) error {
	var next atomic.Int64
	var failed atomic.Bool
	errs := make([]error, conc)
	var wg sync.WaitGroup
	for w := range conc {
		wg.Go(func() {
			for !failed.Load() {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := f(i); err != nil {
					errs[w] = fmt.Errorf("%d: %w", i, err)
					failed.Store(true)
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
