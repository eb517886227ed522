// SPDX-License-Identifier: Apache-2.0

package embed

import (
	"net/url"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/manormq/manor/infra/errs"
)

// routeUser is the name that the servers of a cluster show each other with the token.
const routeUser = "route"

// cluster sets what makes the server one of a cluster. The error is Invalid.
func (c *Config) cluster(opts *server.Options) error {
	host, port, err := splitAddress(c.ClusterListen)
	if err != nil {
		return err
	}
	if c.Listen == "" {
		return errs.New(errs.Invalid, "embedded bus: expected an address for clients, which a cluster sends from one server to another")
	}
	if len(c.Routes) == 0 {
		return errs.New(errs.Invalid, "embedded bus: expected the addresses of the cluster %s, for routes", c.Cluster)
	}
	opts.Cluster = server.ClusterOpts{Name: c.Cluster, Host: host, Port: port}
	if c.Token != "" {
		opts.Cluster.Username, opts.Cluster.Password = routeUser, c.Token
	}
	for _, r := range c.Routes {
		if _, _, err := splitAddress(r); err != nil {
			return err
		}
		u := &url.URL{Scheme: "nats-route", Host: r}
		if c.Token != "" {
			u.User = url.UserPassword(routeUser, c.Token)
		}
		opts.Routes = append(opts.Routes, u)
	}
	return nil
}

// ClusterAddress is where the other servers of the cluster connect; empty without one.
func (s *Server) ClusterAddress() string {
	if a := s.srv.ClusterAddr(); a != nil {
		return a.String()
	}
	return ""
}
