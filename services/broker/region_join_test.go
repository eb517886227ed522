// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"slices"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/broker/join"
	"github.com/manormq/manor/services/broker/member"
	"github.com/manormq/manor/services/broker/partition"
)

// A broker with nothing but a token becomes one of the cluster and gets its share; the
// token is good once, whichever broker is asked, and for no name that a member has.
func TestRegion_Joins(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a broker settles")
	}
	w := newTown(t, 3)
	token, err := w.brokers[0].desk.Token(t.Context(), time.Hour, "")
	if err != nil {
		t.Fatal(err)
	}
	f := join.Files{Dir: t.TempDir()}
	at := func(h *house) string { return h.region.joins.listener.Addr().String() }
	if _, err := join.Join(t.Context(), f, at(w.brokers[1]), token, "b2", w.log); !errs.Is(err, errs.Conflict) {
		t.Fatalf("the name of another broker: %v", err)
	}
	told, err := join.Join(t.Context(), f, at(w.brokers[1]), token, "b4", w.log)
	if err != nil {
		t.Fatal(err)
	}
	if told.Partitions != 16 || told.Replicas != 2 {
		t.Errorf("told %+v", told)
	}
	if _, err := join.Join(t.Context(), join.Files{Dir: t.TempDir()}, at(w.brokers[2]), token, "b5", w.log); !errs.Is(err, errs.Conflict) {
		t.Errorf("the token again, at another broker: %v", err)
	}
	c := w.brokers[0].config
	c.Data = t.TempDir()
	c.Cert, c.Key, c.CA, c.Cluster.CAKey, c.Cluster.JoinListen = f.Cert(), f.Key(), f.CA(), "", ""
	h := &house{town: w, name: "b4", config: c}
	h.start()
	w.brokers = append(w.brokers, h)
	w.eventually("b4 has its share", func() string {
		if owned, _ := w.brokers[0].region.host.Holds(partition.Broker("b4")); owned == 0 {
			return "it owns nothing"
		}
		return ""
	})
	if !slices.ContainsFunc(w.brokers[0].region.members.Snapshot().Members, func(m member.Member) bool { return m.Name == "b4" && m.State == member.Alive }) {
		t.Error("b4 is no member that is alive")
	}
	if _, err := h.desk.Token(t.Context(), time.Hour, ""); !errs.Is(err, errs.Conflict) {
		t.Errorf("a token without the CA's key: %v", err)
	}
}
