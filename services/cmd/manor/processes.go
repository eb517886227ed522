// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/nats"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/tenancy/store"
)

// region is a product of several processes on this machine.
type region struct {
	*options
	ca    *authority
	all   []process
	token string // file with the secret of the bus
}

// runProcesses runs the product as the processes of all, in their order, and
// stops them in reverse. manor dev itself only watches them, makes the anonymous
// tenant, and a certificate for every tenant.
func runProcesses(ctx context.Context, o *options, all []process, ca *authority, log *slog.Logger, errout io.Writer, ready func()) error {
	token, secret, err := busToken(o.data)
	if err != nil {
		return err
	}
	if _, _, err := ca.listeners(); err != nil {
		return err
	}
	r := &region{options: o, ca: ca, all: all, token: token}
	groups := make(map[string][]node.Part)
	for i := range all {
		program, args, err := r.command(&all[i])
		if err != nil {
			return err
		}
		c := &child{process: &all[i], log: log, program: program, args: args, output: errout, noRestart: o.noRestart}
		groups[c.Role] = append(groups[c.Role], c.part())
	}
	// manor dev's own view of the bus comes after the server, the tenant before
	// the gateways.
	var control *nats.Bus
	own := []node.Part{
		{
			Name: "control",
			Start: func(ctx context.Context) (err error) {
				control, err = nats.Connect(nats.Config{URLs: r.natsURLs(), Name: "dev", Token: secret, Log: log})
				if err != nil {
					return err
				}
				ctx, cancel := context.WithTimeout(ctx, readyTime)
				defer cancel()
				if err := agreed(ctx, control); err != nil {
					return err
				}
				return ensureAnonymous(ctx, o, control, log)
			},
			Stop: func() error { return control.Close() },
		},
		certificates(ca, func(ctx context.Context) (bus.Bucket, error) { return tenantsBucket(control)(ctx) }, log),
	}
	parts := append([]node.Part{together("nats", groups["nats"])}, own...)
	for _, role := range []string{"broker", "tenancy", "gateway"} {
		parts = append(parts, together(role, groups[role]))
	}
	// Said once everything has started: a signal that answers it is an ordered stop.
	parts = append(parts, node.Part{Name: "ready", Run: func(ctx context.Context) error {
		ready()
		<-ctx.Done()
		return nil
	}})
	return node.Run(ctx, node.Options{Log: log, DrainTimeout: 4 * stopTime}, parts...)
}

// ensureAnonymous makes the tenant of --anonymous, if there is one to make.
func ensureAnonymous(ctx context.Context, o *options, control bus.Bus, log *slog.Logger) error {
	if o.anonymous == "" {
		return nil
	}
	return retry(ctx, func() error {
		records, err := store.New(ctx, store.Config{Bus: control, Log: log, Region: regionName})
		if err != nil {
			return err
		}
		_, err = records.EnsureTenant(ctx, o.anonymous, store.EnsureOptions{})
		return err
	})
}

// agreed waits until the NATS servers have.
func agreed(ctx context.Context, control *nats.Bus) error {
	return retry(ctx, func() error { return control.Ready(ctx) })
}

// retry calls f until its error is not Unavailable, or until ctx is done.
func retry(ctx context.Context, f func() error) error {
	for {
		err := f()
		if !errs.Is(err, errs.Unavailable) || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// together is a part of several that start, and stop, at the same time: brokers and
// NATS servers are ready only once others are.
func together(name string, parts []node.Part) node.Part {
	if len(parts) == 1 {
		return parts[0]
	}
	each := func(f func(node.Part) error) error {
		all := make([]error, len(parts))
		var wg sync.WaitGroup
		for i, p := range parts {
			wg.Go(func() { all[i] = f(p) })
		}
		wg.Wait()
		return errors.Join(all...)
	}
	stop := func() error { return each(func(p node.Part) error { return p.Stop() }) }
	return node.Part{
		Name: name,
		Start: func(ctx context.Context) error {
			err := each(func(p node.Part) error { return p.Start(ctx) })
			if err != nil {
				_ = stop()
			}
			return err
		},
		Run:   func(ctx context.Context) error { return each(func(p node.Part) error { return p.Run(ctx) }) },
		Drain: func(ctx context.Context) error { return each(func(p node.Part) error { return p.Drain(ctx) }) },
		Stop:  stop,
	}
}
