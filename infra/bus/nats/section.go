// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/manormq/manor/infra/errs"
)

// Section is the section of a configuration that says where the control plane is.
type Section struct {
	URLs      []string `yaml:"urls" doc:"NATS servers of the control plane; any one will do, and all let a node go on when one is lost"`
	TokenFile string   `yaml:"token_file" doc:"file with the secret that the servers ask for; empty shows none"`
	Replicas  int      `yaml:"replicas" doc:"how many of the servers keep each bucket: 1, 3 or 5; 0 is 3 where urls has three or more, else 1; takes effect for buckets that are made"`
}

// DefaultSection returns the defaults: one server, on this machine.
func DefaultSection() Section { return Section{URLs: []string{"nats://127.0.0.1:4222"}} }

// Validate says what is wrong with s. The error is Invalid.
func (s *Section) Validate() error {
	if len(s.URLs) == 0 || slices.Contains(s.URLs, "") {
		return errs.New(errs.Invalid, "urls: expected at least one, such as nats://127.0.0.1:4222")
	}
	if !slices.Contains([]int{0, 1, 3, 5}, s.Replicas) {
		return errs.New(errs.Invalid, "replicas: expected 0, 1, 3 or 5, found %d", s.Replicas)
	}
	return nil
}

// Connect reads the secret and is Connect with what s says. name is what the servers
// show for this node. The error is Invalid.
func (s *Section) Connect(name string, log *slog.Logger) (*Bus, error) {
	var token []byte
	if s.TokenFile != "" {
		var err error
		if token, err = os.ReadFile(s.TokenFile); err != nil {
			return nil, errs.New(errs.Invalid, "nats.token_file: %w", err)
		}
	}
	return Connect(Config{URLs: s.URLs, Name: name, Token: strings.TrimSpace(string(token)), Replicas: s.Replicas, Log: log})
}
