// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"os"
	"strings"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/tenancy"
)

// config is tenancyd's configuration.
type config struct {
	node.Config `yaml:",inline"`
	Listen      string        `yaml:"listen" doc:"address of the public API and the console"`
	TLS         tlsConfig     `yaml:"tls"`
	Region      string        `yaml:"region" doc:"the region in which sign-ups make tenants"`
	Domain      string        `yaml:"domain" doc:"tenants are served at TENANT.DOMAIN"`
	DefaultPlan string        `yaml:"default_plan" doc:"the plan of a sign-up that names none: dev, free, starter or pro"`
	Endpoints   api.Endpoints `yaml:"endpoints"`
	Broker      brokerConfig  `yaml:"broker"`
	NATS        natsConfig    `yaml:"nats"`
}

type tlsConfig struct {
	Cert string `yaml:"cert" doc:"PEM file with the API's certificate chain; empty serves plain HTTP"`
	Key  string `yaml:"key" doc:"PEM file with its key"`
}

type brokerConfig struct {
	Address string `yaml:"address" doc:"host:port of the broker's listener for links"`
	Cert    string `yaml:"cert" doc:"PEM file with this node's certificate"`
	Key     string `yaml:"key" doc:"PEM file with its key"`
	CA      string `yaml:"ca" doc:"PEM file with the region's CA: the broker must have a certificate of it"`
}

type natsConfig struct {
	URLs      []string `yaml:"urls" doc:"NATS servers of the control plane; any one will do"`
	TokenFile string   `yaml:"token_file" doc:"file with the secret that the servers ask for; empty shows none"`
	Replicas  int      `yaml:"replicas" doc:"how many of the servers keep each bucket: 1, 3 or 5; takes effect for buckets that are made"`
}

func defaults() *config {
	return &config{
		Config: node.DefaultConfig("127.0.0.1:8890"), Listen: "127.0.0.1:8080",
		Region: "local", Domain: "localhost", DefaultPlan: tenancy.PlanFree, Endpoints: api.DefaultEndpoints(),
		Broker: brokerConfig{Address: "127.0.0.1:44054"},
		NATS:   natsConfig{URLs: []string{"nats://127.0.0.1:4222"}, Replicas: 1},
	}
}

// Validate is called once the configuration is loaded.
func (c *config) Validate() error {
	var p node.Problems
	p.Add("", c.Config.Validate())
	_, err := tenancy.PlanByName(c.DefaultPlan)
	p.Add("default_plan: ", err)
	p.Expect(c.Listen != "", "listen: expected host:port")
	p.Expect((c.TLS.Cert == "") == (c.TLS.Key == ""), "tls: expected both cert and key, or neither")
	p.Expect(c.Region != "" && c.Domain != "", "region and domain: expected both")
	p.Expect(c.Broker.Address != "" && c.Broker.Cert != "" && c.Broker.Key != "" && c.Broker.CA != "",
		"broker: expected address, cert, key and ca, which links need")
	p.Expect(len(c.NATS.URLs) > 0, "nats.urls: expected at least one, such as nats://127.0.0.1:4222")
	p.Expect(c.NATS.Replicas == 1 || c.NATS.Replicas == 3 || c.NATS.Replicas == 5, "nats.replicas: expected 1, 3 or 5, found %d", c.NATS.Replicas)
	return p.Err()
}

// token reads what the NATS servers ask for.
func (c *natsConfig) token() (string, error) {
	if c.TokenFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(c.TokenFile)
	if err != nil {
		return "", errs.New(errs.Invalid, "nats.token_file: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// load returns how the API's listener speaks TLS; nil without a certificate.
// The files are read again for each handshake, so that a new certificate needs
// no restart.
func (c *tlsConfig) load() (*tls.Config, error) {
	if c.Cert == "" {
		return nil, nil
	}
	read := func() (*tls.Certificate, error) {
		cert, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		return &cert, err
	}
	if _, err := read(); err != nil {
		return nil, errs.New(errs.Invalid, "tls: %w", err)
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return read() },
	}, nil
}
