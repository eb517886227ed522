// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/nats"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/tenancy"
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
	var parts []node.Part
	for i := range all {
		program, args, err := r.command(&all[i])
		if err != nil {
			return err
		}
		c := &child{process: &all[i], log: log, program: program, args: args, output: errout, noRestart: o.noRestart}
		parts = append(parts, c.part())
	}
	// manor dev's own view of the bus comes after the server, the tenant before
	// the gateways.
	var control *nats.Bus
	own := []node.Part{
		{
			Name: "control",
			Start: func(ctx context.Context) (err error) {
				control, err = nats.Connect(nats.Config{URLs: []string{r.natsURL()}, Name: "dev", Token: secret, Log: log})
				if err != nil {
					return err
				}
				return ensureAnonymous(ctx, o, control, log)
			},
			Stop: func() error { return control.Close() },
		},
		certificates(ca, func(ctx context.Context) (bus.Bucket, error) { return tenantsBucket(control)(ctx) }, log),
	}
	parts = slices.Insert(parts, 1, own...)
	parts = append(parts, node.Part{Name: "ready", Start: func(context.Context) error { ready(); return nil }})
	return node.Run(ctx, node.Options{Log: log, DrainTimeout: 4 * stopTime}, parts...)
}

// ensureAnonymous makes the tenant of --anonymous, if there is one to make.
func ensureAnonymous(ctx context.Context, o *options, control bus.Bus, log *slog.Logger) error {
	if o.anonymous == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	records, err := store.New(ctx, store.Config{Bus: control, Log: log, Region: regionName})
	if err != nil {
		return err
	}
	_, err = records.EnsureTenant(ctx, o.anonymous, store.EnsureOptions{})
	return err
}

// command returns the program and arguments of a process, whose configuration
// it writes into the process's folder.
func (r *region) command(p *process) (program string, args []string, err error) {
	if err := os.MkdirAll(p.Data, 0o700); err != nil {
		return "", nil, err
	}
	if p.Role == "nats" {
		self, err := os.Executable()
		return self, []string{
			"nats", "--name", p.Name, "--data", p.Data, "--listen", p.local("nats"),
			"--token-file", r.token, "--log-level", r.logLevel,
		}, err
	}
	program, err = sibling(p.Role + "d")
	if err != nil {
		return "", nil, err
	}
	cert, key, err := r.ca.node(p.Name)
	if err != nil {
		return "", nil, err
	}
	config := section{
		"name":     p.Name,
		"log":      section{"level": r.logLevel},
		"operator": section{"listen": p.local("operator")},
	}
	identity := section{"cert": cert, "key": key, "ca": r.ca.file}
	switch p.Role {
	case "broker":
		config["broker"] = identity.with("data", p.Data).with("listen", p.local("link")).with("systree_tenant", r.anonymous)
	case "gateway":
		r.gateway(config, p, identity)
	case "tenancy":
		r.tenancy(config, p, identity)
	}
	text, err := yaml.Marshal(config)
	if err != nil {
		return "", nil, err
	}
	file := filepath.Join(p.Data, p.Role+"d.yaml")
	text = append([]byte("# Written by manor dev at each start; changes are lost.\n"), text...)
	return program, []string{"--config", file}, os.WriteFile(file, text, 0o600)
}

// section is a section of a configuration file.
type section map[string]any

// with adds a key to s.
func (s section) with(key string, value any) section {
	s[key] = value
	return s
}

func (r *region) gateway(config section, p *process, identity section) {
	certFile, keyFile := r.ca.certFile("listeners"), r.ca.keyFile("listeners")
	config.with("data", p.Data).with("region", regionName).with("domain", devDomain).with("nats", r.nats()).
		with("broker", identity.with("address", r.first("broker").local("link")))
	if r.anonymous != "" {
		config["anonymous"] = r.anonymous
	}
	var all []section
	for _, l := range listeners(r.options, p, certFile, keyFile, r.ca.hosts) {
		s := section{"name": l.Name, "kind": l.Kind, "address": l.Address}
		if l.TLS() {
			s.with("cert_file", l.CertFile).with("key_file", l.KeyFile).with("cert_dir", l.CertDir)
		}
		all = append(all, s)
	}
	config["listeners"] = all
}

// tenancy names the first gateway in what sign-ups are told.
func (r *region) tenancy(config section, p *process, identity section) {
	gateway := r.first("gateway")
	endpoints := section{}
	for _, kind := range []string{"mqtt", "mqtts", "ws", "wss"} {
		endpoints[kind] = gateway.Ports[kind]
	}
	config.with("listen", p.addr(r.bind, "api")).with("region", regionName).with("domain", devDomain).
		with("default_plan", tenancy.PlanDev).with("endpoints", endpoints).with("nats", r.nats()).
		with("broker", identity.with("address", r.first("broker").local("link")))
}

func (r *region) nats() section {
	return section{"urls": []string{r.natsURL()}, "token_file": r.token}
}

func (r *region) natsURL() string { return "nats://" + r.first("nats").local("nats") }

// first is the first process of that role.
func (r *region) first(role string) *process {
	for i := range r.all {
		if r.all[i].Role == role {
			return &r.all[i]
		}
	}
	return nil
}
