// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"context"
	"net"
	"net/mail"
	"net/url"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/tenancy/domains/acme"
	"github.com/manormq/manor/tenancy/managedca"
)

// Section is how custom domains are configured.
type Section struct {
	KeyFile  string      `yaml:"key_file" doc:"file with 32 random bytes, the same at every tenancyd and, as domain_key_file, at every gateway of the region, with which keys of custom domains' certificates and the secrets of TLS session tickets are sealed; empty has no custom domains, and stores the latter in clear. It is another one than secrets_key_file, which gateways do not have"`
	Resolver string      `yaml:"resolver" doc:"host:port of the DNS server that is asked whether a domain is a tenant's; empty is the system's"`
	ACME     ACMESection `yaml:"acme"`
}

// ACMESection is how certificates are got.
type ACMESection struct {
	Enabled   bool   `yaml:"enabled" doc:"get certificates for custom domains from a certificate authority by ACME, which takes to its terms of service; needs key_file and secrets_key_file, and port 443 of the gateways' addresses to lead to a listener with TLS"`
	Directory string `yaml:"directory" doc:"URL of the authority's ACME directory"`
	Orders    int    `yaml:"orders" doc:"how many certificates all tenants order in 3 hours at most, 3 to 100000; a third is left to renewals. Let's Encrypt takes 300 of an account"`
	Email     string `yaml:"email" doc:"where the authority writes to about its account; empty is nowhere"`
	EABKeyID  string `yaml:"eab_key_id" doc:"key id of an external account binding (RFC 8555 §7.3.4), which some authorities give out to those who may use them; empty is none. It counts when the account is made"`
	EABFile   string `yaml:"eab_hmac_file" doc:"file with the HMAC key of that, in base64url"`
	CAFile    string `yaml:"ca_file" doc:"PEM file with the roots by which the authority's own server is known; empty is the system's"`
}

// DefaultSection has no custom domains.
func DefaultSection() Section {
	return Section{ACME: ACMESection{Directory: "https://acme-v02.api.letsencrypt.org/directory", Orders: DefaultOrders}}
}

// Validate says what is wrong; secrets says that there is a secrets_key_file. The error
// is Invalid.
func (c *Section) Validate(secrets bool) error {
	var p node.Problems
	if c.Resolver != "" {
		_, _, err := net.SplitHostPort(c.Resolver)
		p.Expect(err == nil, "resolver: expected host:port, found %q", c.Resolver)
	}
	u, err := url.Parse(c.ACME.Directory)
	p.Expect(!c.ACME.Enabled || err == nil && u.Scheme == "https" && u.Host != "", "acme.directory: expected an https URL, found %q", c.ACME.Directory)
	p.Expect(!c.ACME.Enabled || c.ACME.Orders >= 3 && c.ACME.Orders <= 100_000, "acme.orders: expected 3 to 100000, found %d", c.ACME.Orders)
	if c.ACME.Email != "" {
		a, err := mail.ParseAddress(c.ACME.Email)
		p.Expect(err == nil && a.Address == c.ACME.Email, "acme.email: expected an address such as ops@example.com, found %q", c.ACME.Email)
	}
	p.Expect((c.ACME.EABKeyID == "") == (c.ACME.EABFile == ""), "acme: expected both eab_key_id and eab_hmac_file, or neither")
	p.Expect(!c.ACME.Enabled || c.KeyFile != "" && secrets, "acme.enabled: expected key_file and secrets_key_file with it")
	return p.Err()
}

// CheckFiles reads the files of a section as Open does. The error is Invalid.
func (c *Section) CheckFiles() error {
	var p node.Problems
	if c.KeyFile != "" {
		_, err := managedca.LoadSealer(c.KeyFile)
		p.Add("key_file: ", err)
	}
	if !c.ACME.Enabled {
		return p.Err()
	}
	_, err := acme.LoadEAB(c.ACME.EABKeyID, c.ACME.EABFile)
	p.Add("acme.eab_hmac_file: ", err)
	if c.ACME.CAFile != "" {
		_, err = acme.LoadRoots(c.ACME.CAFile)
		p.Add("acme.ca_file: ", err)
	}
	return p.Err()
}

// Open returns the Service that a section describes; cfg says what else it stands on.
// secrets seals the account at the CA. The second result is to be called at the end.
func Open(ctx context.Context, section Section, secrets *managedca.Sealer, cfg Config) (*Service, func(), error) {
	cfg.Resolver, cfg.Orders = section.Resolver, section.ACME.Orders
	if section.KeyFile != "" {
		var err error
		if cfg.Sealer, err = managedca.LoadSealer(section.KeyFile); err != nil {
			return nil, nil, errs.New(errs.Invalid, "domains.key_file: %w", err)
		}
	}
	end := func() {}
	if section.ACME.Enabled {
		eab, err := acme.LoadEAB(section.ACME.EABKeyID, section.ACME.EABFile)
		if err != nil {
			return nil, nil, errs.New(errs.KindOf(err), "domains.acme.eab_hmac_file: %w", err)
		}
		a, err := acme.New(ctx, acme.Config{
			EAB: eab, LockLife: cfg.LockLife,
			Bus: cfg.Store.Bus(), Sealer: secrets, Challenges: Challenges{cfg.Store},
			Directory: section.ACME.Directory, Email: section.ACME.Email, CAFile: section.ACME.CAFile, Settle: cfg.Settle, Log: cfg.Log,
		})
		if err != nil {
			return nil, nil, errs.New(errs.KindOf(err), "domains.acme: %w", err)
		}
		cfg.Authority, end = a, a.Close
	}
	s, err := New(ctx, cfg)
	if err != nil {
		end()
		return nil, nil, err
	}
	return s, end, nil
}
