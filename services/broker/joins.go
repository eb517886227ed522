// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/services/broker/join"
	"github.com/manormq/manor/services/broker/member"
)

// joinsBucket has a key for each join token that was used, until none of its age is good
// any more.
const joinsBucket = "joins"

// joins admits new brokers, and has this broker's own certificate renewed if it came by a
// join. The zero of what it does is to do neither.
type joins struct {
	region    *region
	authority *join.Authority // nil without the CA's key
	server    *join.Server    // nil without a listener
	listener  net.Listener
	renewer   *join.Renewer // nil if the certificate is the operator's
	used      bus.Bucket
}

func newJoins(c *Config, r *region, tlsConf *tls.Config) (*joins, error) {
	j := &joins{region: r}
	if files := (join.Files{Dir: c.JoinDir()}); c.Cluster.Join != "" && c.Cert == files.Cert() {
		j.renewer = &join.Renewer{Files: files, Address: c.Cluster.Join, Node: r.name, Log: r.log}
	}
	if c.Cluster.CAKey == "" {
		return j, nil
	}
	var err error
	if j.authority, err = join.OpenAuthority(c.CA, c.Cluster.CAKey); err != nil {
		return nil, fmt.Errorf("cluster.ca_key: %w", err)
	}
	if c.Cluster.JoinListen == "" {
		return j, nil
	}
	j.used = &lateBucket{bus: c.Bus, config: bus.BucketConfig{Name: joinsBucket, TTL: join.MostTTL + time.Hour}}
	told := c.Joins
	told.Partitions, told.Replicas = c.Partitions, c.Cluster.Replicas
	j.server = join.NewServer(join.ServerConfig{Authority: j.authority, TLS: tlsConf, Cluster: told, Admit: j.admit, Use: j.use, Log: r.log})
	if j.listener, err = node.Listen(context.Background(), c.Cluster.JoinListen, "broker.cluster.join_listen", node.PortPatience); err != nil {
		return nil, fmt.Errorf("listen for joins: %w", err)
	}
	return j, nil
}

func (j *joins) close() {
	if j != nil && j.listener != nil {
		_ = j.listener.Close()
	}
}

func (j *joins) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if j.server != nil {
		g.Go(func() error { return j.server.Serve(ctx, j.listener) })
	}
	if j.renewer != nil {
		g.Go(func() error {
			j.renewer.Run(ctx)
			return nil
		})
	}
	return g.Wait()
}

// admit says who may have a certificate: a new one nobody whose name a member has, so that
// no token makes its owner another broker; a renewed one who was not given up.
func (j *joins) admit(ctx context.Context, name string, renew bool) error {
	known := slices.ContainsFunc(j.region.members.Snapshot().Members, func(m member.Member) bool { return m.Name == name })
	switch {
	case known && !renew, name == j.region.name && !renew:
		return errs.New(errs.Conflict, "there is a broker called %q already: choose another name or, if it is lost, give it up first: manor admin cluster leave --node %s --force", name, name)
	case !known && renew:
		t, err := member.Left(ctx, j.region.beats, name)
		if err != nil {
			return err
		}
		if t != nil {
			return errs.New(errs.Denied, "%q has left the cluster, or was given up", name)
		}
	}
	return nil
}

// use notes that a token was used. One certificate request may use it again.
func (j *joins) use(ctx context.Context, id, who string) error {
	_, err := j.used.Put(ctx, id, []byte(who), bus.Absent)
	if !errs.Is(err, errs.Conflict) {
		return err
	}
	e, err := j.used.Get(ctx, id)
	if err != nil {
		return err
	}
	if !bytes.Equal(e.Value, []byte(who)) {
		return errs.New(errs.Conflict, "the join token was used before: make another with manor admin cluster token create")
	}
	return nil
}

// Token implements operate.Cluster.
func (d *desk) Token(_ context.Context, ttl time.Duration, node string) (string, error) {
	if d.region == nil {
		return "", d.errAlone()
	}
	j := d.region.joins
	if j.authority == nil {
		return "", errs.New(errs.Conflict, "%s has not the key of the CA (broker.cluster.ca_key): ask a broker that has it", d.name)
	}
	t, err := j.authority.Token(time.Now(), ttl, node)
	if err == nil {
		d.log.Warn("an operator made a join token", slog.Duration("ttl", ttl), slog.String("for", node))
	}
	return t, err
}
