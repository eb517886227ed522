// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/manormq/manor/infra/bus/nats"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/services/api/mail"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/decide"
	"github.com/manormq/manor/tenancy/domains"
	"github.com/manormq/manor/tenancy/jwks"
	"github.com/manormq/manor/tenancy/managedca"
)

// config is tenancyd's configuration.
type config struct {
	node.Config    `yaml:",inline"`
	Listen         string          `yaml:"listen" doc:"address of the public API and the console"`
	TLS            tlsConfig       `yaml:"tls"`
	Region         string          `yaml:"region" doc:"the region in which sign-ups make tenants"`
	Domain         string          `yaml:"domain" doc:"tenants are served at TENANT.DOMAIN"`
	DefaultPlan    string          `yaml:"default_plan" doc:"the plan of a sign-up that names none: dev, free, starter or pro"`
	Plans          []string        `yaml:"plans" doc:"the plans that sign-ups, and owners for their tenants, may choose beside default_plan, of dev, free, starter and pro; others are given by the operator (manor admin tenant plan)"`
	BeyondPlan     bool            `yaml:"overrides_beyond_plan" doc:"whether owners may override quotas beyond what the plan has; else the operator does (manor admin tenant quota)"`
	Endpoints      api.Endpoints   `yaml:"endpoints"`
	Broker         brokerConfig    `yaml:"broker"`
	Rates          api.Rates       `yaml:"rates"`
	Proxies        []string        `yaml:"trusted_proxies" doc:"networks (10.0.0.0/8) and addresses of proxies in front of the API: the true address of a request is the last of X-Forwarded-For that is none of them"`
	SecretsKeyFile string          `yaml:"secrets_key_file" doc:"file with 32 random bytes, the same at every tenancyd of the region, with which keys of managed CAs are sealed; empty has no managed CAs. Without the file those keys are lost: keep it, apart from the backups of NATS"`
	JWKSNetworks   []string        `yaml:"jwks_networks" doc:"networks (10.0.0.0/8) and addresses from which key sets of tenants' issuers are fetched though they are not on the public internet, also over plain HTTP if the URL has the address; empty is none, which keeps tenants from reaching into the operator's network"`
	SourcesDir     string          `yaml:"sources_dir" doc:"folder with a folder for each tenant, called by its id, whose files vmq.passwd and vmq.acl say what credentials and policy the tenant has, and are applied when they change; empty is none. The same at every tenancyd that has it"`
	PolicyDir      string          `yaml:"policy_dir" doc:"folder with the installation's own policy, files *.rego with package quota (limits) or admission (deny), the same at every tenancyd of the region; looked at each second; empty has none"`
	DeletionGrace  time.Duration   `yaml:"deletion_grace" doc:"for how long a deleted tenant is kept and can be restored; then all that it had is removed. The same at every tenancyd of the region"`
	Domains        domains.Section `yaml:"domains"`
	SMTP           mail.Config     `yaml:"smtp"`
	NATS           nats.Section    `yaml:"nats"`
}

type tlsConfig struct {
	Cert string `yaml:"cert" doc:"PEM file with the API's certificate chain; empty serves plain HTTP"`
	Key  string `yaml:"key" doc:"PEM file with its key"`
}

type brokerConfig struct {
	Address   string   `yaml:"address" doc:"host:port of the broker's listener for links"`
	Addresses []string `yaml:"addresses" doc:"the same of several brokers, of which the first that answers is taken; empty is address alone"`
	Cert      string   `yaml:"cert" doc:"PEM file with this node's certificate"`
	Key       string   `yaml:"key" doc:"PEM file with its key"`
	CA        string   `yaml:"ca" doc:"PEM file with the region's CA: the broker must have a certificate of it"`
}

func defaults() *config {
	return &config{
		Config: node.DefaultConfig("127.0.0.1:8890"), Listen: "127.0.0.1:8080",
		Region: "local", Domain: "localhost", DefaultPlan: tenancy.PlanFree, Plans: tenancy.OwnPlans(), Endpoints: api.DefaultEndpoints(),
		Broker: brokerConfig{Address: "127.0.0.1:44054"}, DeletionGrace: tenancy.DefaultDeletionGrace,
		Rates: api.DefaultRates(), SMTP: mail.DefaultConfig(), Domains: domains.DefaultSection(),
		NATS: nats.DefaultSection(),
	}
}

// Validate is called once the configuration is loaded.
func (c *config) Validate() error {
	var p node.Problems
	p.Add("", c.Config.Validate())
	_, err := tenancy.PlanByName(c.DefaultPlan)
	p.Add("default_plan: ", err)
	p.Add("", api.ValidatePlans(c.Plans))
	p.Expect(c.Listen != "", "listen: expected host:port")
	p.Expect((c.TLS.Cert == "") == (c.TLS.Key == ""), "tls: expected both cert and key, or neither")
	p.Expect(c.Region != "" && c.Domain != "", "region and domain: expected both")
	p.Expect((c.Broker.Address != "" || len(c.Broker.Addresses) > 0) && c.Broker.Cert != "" && c.Broker.Key != "" && c.Broker.CA != "",
		"broker: expected address or addresses, cert, key and ca, which links need")
	p.Add("rates: ", c.Rates.Validate())
	p.Expect(c.DeletionGrace > 0, "deletion_grace: expected more than 0s, found %v", c.DeletionGrace)
	p.Add("", api.ValidateProxies(c.Proxies))
	p.Add("", jwks.Validate(c.JWKSNetworks))
	if c.PolicyDir != "" {
		_, err := decide.OpenInstallation(context.Background(), decide.InstallationConfig{Dir: c.PolicyDir})
		p.Add("policy_dir: ", err)
	}
	if c.SecretsKeyFile != "" {
		_, err := managedca.LoadSealer(c.SecretsKeyFile)
		p.Add("secrets_key_file: ", err)
	}
	p.Add("domains.", c.Domains.Validate(c.SecretsKeyFile != ""))
	p.Add("domains.", c.Domains.CheckFiles())
	p.Add("smtp.", c.SMTP.Validate())
	p.Add("nats.", c.NATS.Validate())
	return p.Err()
}

// mailer returns who sends mails; nil for nobody.
func (c *config) mailer() (api.Mailer, error) {
	if c.SMTP.Address == "" {
		return nil, nil
	}
	return mail.New(c.SMTP)
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
