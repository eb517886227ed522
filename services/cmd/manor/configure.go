// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/manormq/manor/tenancy"
)

// command returns the program and arguments of a process, whose configuration
// it writes into the process's folder.
func (r *region) command(p *process) (program string, args []string, err error) {
	if err := os.MkdirAll(p.Data, 0o700); err != nil {
		return "", nil, err
	}
	if p.Role == "nats" {
		self, err := os.Executable()
		return self, r.natsArgs(p), err
	}
	program, err = sibling(p.Role + "d")
	if err != nil {
		return "", nil, err
	}
	file, err := r.configure(p)
	return program, []string{"--config", file}, err
}

// configure writes the configuration of a process into its folder.
func (r *region) configure(p *process) (file string, err error) {
	cert, key, err := r.ca.node(p.Name)
	if err != nil {
		return "", err
	}
	config := section{
		"name":     p.Name,
		"log":      section{"level": r.logLevel},
		"operator": section{"listen": p.local("operator")},
	}
	if err := makeKeys(r.ca.dir); err != nil {
		return "", err
	}
	identity := section{"cert": cert, "key": key, "ca": r.ca.file}
	switch p.Role {
	case "broker":
		r.broker(config, p, identity)
	case "gateway":
		r.gateway(config, p, identity)
	case "tenancy":
		r.tenancy(config, p, identity)
	}
	text, err := yaml.Marshal(config)
	if err != nil {
		return "", err
	}
	file = filepath.Join(p.Data, p.Role+"d.yaml")
	text = append([]byte("# Written by manor dev at each start; changes are lost.\n"), text...)
	return file, os.WriteFile(file, text, 0o600)
}

// section is a section of a configuration file.
type section map[string]any

// with adds a key to s.
func (s section) with(key string, value any) section {
	s[key] = value
	return s
}

func (r *region) natsArgs(p *process) []string {
	args := []string{
		"nats", "--name", p.Name, "--data", p.Data, "--listen", p.local("nats"),
		"--token-file", r.token, "--log-level", r.logLevel,
	}
	if p.Ports["cluster"] != 0 {
		args = append(args, "--cluster", regionName, "--cluster-listen", p.local("cluster"), "--routes", strings.Join(r.local("nats", "cluster"), ","))
	}
	return args
}

func (r *region) broker(config section, p *process, identity section) {
	config["broker"] = identity.with("data", p.Data).with("listen", p.local("link")).with("systree_tenant", r.anonymous)
	if r.clustered() {
		identity["cluster"] = section{
			"listen": p.local("cluster"), "advertise": "", "advertise_links": "",
			"join": "", "token": "", "join_listen": p.local("join"), "ca_key": r.ca.keyFile("ca"),
			"compress_links": "auto", "zone": p.zone, "labels": []string{}, "replicas": cmp.Or(r.replicas, 2),
		}
		config["nats"] = r.natsSection()
	}
}

// links says where the brokers are.
func (r *region) links(identity section) section {
	all := r.local("broker", "link")
	identity["address"] = all[0]
	if len(all) > 1 {
		identity["addresses"] = all
	}
	return identity
}

func (r *region) gateway(config section, p *process, identity section) {
	certFile, keyFile := r.ca.certFile("listeners"), r.ca.keyFile("listeners")
	config.with("data", p.Data).with("region", regionName).with("domain", devDomain).with("nats", r.natsSection()).
		with("broker", r.links(identity)).with("domain_key_file", domainKey(r.ca.dir))
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
	custom := r.domains(r.ca.dir)
	config.with("listen", p.addr(r.bind, "api")).with("region", regionName).with("domain", devDomain).
		with("default_plan", tenancy.PlanDev).with("plans", tenancy.PlanNames()).with("overrides_beyond_plan", true).with("endpoints", endpoints).with("nats", r.natsSection()).
		with("broker", r.links(identity)).
		with("jwks_networks", loopback()).with("secrets_key_file", secretsKey(r.ca.dir)).with("sources_dir", r.sources).
		with("domains", section{
			"key_file": custom.KeyFile, "resolver": custom.Resolver,
			"acme": section{"enabled": custom.ACME.Enabled, "directory": custom.ACME.Directory, "ca_file": custom.ACME.CAFile},
		}).
		with("policy_dir", r.policies).with("deletion_grace", cmp.Or(r.grace, tenancy.DefaultDeletionGrace).String()).
		with("rates", section{"sign_ups_address": 0, "sign_ups": 0, "sign_ins_address": 0, "wrong_keys_address": 0}) // nobody is a stranger at home
}

func (r *region) natsSection() section {
	return section{"urls": r.natsURLs(), "token_file": r.token}
}

func (r *region) natsURLs() []string {
	urls := r.local("nats", "nats")
	for i := range urls {
		urls[i] = "nats://" + urls[i]
	}
	return urls
}

// local are the addresses of a port of all processes of that role.
func (r *region) local(role, port string) (all []string) {
	for i := range r.all {
		if r.all[i].Role == role {
			all = append(all, r.all[i].local(port))
		}
	}
	return all
}

// first is the first process of that role.
func (r *region) first(role string) *process {
	for i := range r.all {
		if r.all[i].Role == role {
			return &r.all[i]
		}
	}
	return nil
}
