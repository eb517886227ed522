// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/member"
	"github.com/manormq/manor/services/broker/operate"
	"github.com/manormq/manor/services/broker/partition"
)

// command has a broker carry out a command of its operator listener.
func (h *house) command(method, path string) (int, []operate.Element) {
	h.town.t.Helper()
	r := httptest.NewRequestWithContext(h.town.t.Context(), method, "http://127.0.0.1:8888"+operate.Prefix+"/"+path, nil)
	r.RemoteAddr = "127.0.0.1:5555"
	w := httptest.NewRecorder()
	operate.Handler(h.desk).ServeHTTP(w, r)
	all, err := operate.Read(w.Body.Bytes())
	if err != nil {
		h.town.t.Fatalf("%s: %v in %s", path, err, w.Body)
	}
	return w.Code, all
}

// must is a command that is carried out.
func (h *house) must(method, path string) []operate.Element {
	h.town.t.Helper()
	code, all := h.command(method, path)
	if err := operate.Err(code, all); err != nil {
		h.town.t.Fatalf("%s at %s: %v", path, h.name, err)
	}
	return all
}

// column is the values of a column of a table, by those of the first one.
func column(e operate.Element, name string) map[string]string {
	out := map[string]string{}
	for _, row := range e.Table {
		out[operate.String(row[0].Value)] = operate.String(row.Get(name))
	}
	return out
}

// balanced waits until each partition is where it should be.
func (w *town) balanced() {
	w.t.Helper()
	w.eventually("balanced", func() string {
		for _, h := range w.brokers {
			if h.up {
				if got := h.must(http.MethodGet, "cluster/rebalance")[0].Text; !strings.HasPrefix(got, "16 of 16 ") {
					return h.name + ": " + got
				}
			}
		}
		return ""
	})
}

// Each broker answers for all of them, and no request that changes anything is taken
// from elsewhere.
func TestOperate_Shows(t *testing.T) {
	t.Parallel()
	w := newTown(t, 3)
	var clients []*resident
	for i := range 6 {
		c := w.connect(fmt.Sprintf("c-%d", i), 3600)
		c.subscribe(fmt.Sprintf("t/%d", i), mqtt.AtLeastOnce)
		clients = append(clients, c)
	}
	_ = clients[0].link.Close()
	h := w.brokers[0]
	w.eventually("all running", func() string {
		show := h.must(http.MethodGet, "cluster/show")[0]
		owned := 0
		for _, row := range show.Table {
			var n int
			_, _ = fmt.Sscan(operate.String(row.Get("Owned")), &n)
			owned += n
		}
		if got := column(show, "State"); len(got) != 3 || got["b1"] != "alive" || got["b2"] != "alive" || got["b3"] != "alive" || owned != 16 {
			return fmt.Sprint(got, owned)
		}
		return ""
	})
	for _, h := range w.brokers {
		partitions := h.must(http.MethodGet, "partition/show")[0]
		states := column(partitions, "State")
		if len(states) != 16 {
			t.Errorf("%s shows %d partitions", h.name, len(states))
		}
		w.eventually(h.name+" shows all sessions", func() string {
			sessions := h.must(http.MethodGet, "session/show?--client_id&--node&--is_online&--topic&--limit=50")[0]
			nodes, topics := map[string]bool{}, map[string]string{}
			online := 0
			for _, row := range sessions.Table {
				nodes[operate.String(row.Get("node"))] = true
				topics[operate.String(row.Get("client_id"))] = operate.String(row.Get("topic"))
				if row.Get("is_online") == true {
					online++
				}
			}
			if len(topics) != 6 || online != 5 || topics["c-3"] != "t/3" || len(nodes) < 2 {
				return fmt.Sprint(topics, nodes, online)
			}
			return ""
		})
		if got := h.must(http.MethodGet, "session/show?--client_id=c-4")[0]; len(got.Table) != 1 || len(got.Table[0]) != 1 {
			t.Errorf("one client is shown as %v", got.Table)
		}
		if got := h.must(http.MethodGet, "session/show?--is_online=false&--client_id=~^c-.&--mountpoint=acme")[0]; len(got.Table) != 1 {
			t.Errorf("those off line are %v", got.Table)
		}
		nodes := h.desk.Nodes(t.Context())
		online, offline := int64(0), int64(0)
		for _, n := range nodes {
			online += n.NumOnline
			offline += n.NumOffline
		}
		if len(nodes) != 3 || online != 5 || offline != 1 {
			t.Errorf("%s counts %d nodes, %d clients on line, %d off line", h.name, len(nodes), online, offline)
		}
	}
	if err := operate.Complete(t.Context(), h.desk); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]int{
		"POST cluster/drain?node=b9":               http.StatusNotFound,
		"POST cluster/drain":                       http.StatusBadRequest,
		"GET cluster/drain?node=b2":                http.StatusMethodNotAllowed,
		"POST cluster/leave?node=b2":               http.StatusConflict,
		"POST cluster/leave?node=b2&--force":       http.StatusConflict,
		"POST partition/abandon?partition=3&--yes": http.StatusConflict,
		"GET partition/show?partition=99":          http.StatusNotFound,
		"GET session/show?--nonsense":              http.StatusBadRequest,
		"GET session/show?--client_id=~(":          http.StatusBadRequest,
		"GET nonsense":                             http.StatusBadRequest,
	} {
		method, path, _ := strings.Cut(path, " ")
		if code, all := h.command(method, path); code != want || len(all) != 1 || all[0].Type != operate.TypeAlert {
			t.Errorf("%s %s is answered %d %v, expected %d", method, path, code, all, want)
		}
	}
}

// A broker is drained by another, leaves, and another one takes its name with an empty
// folder; with its old one it does not start.
func TestOperate_DrainLeaveReturn(t *testing.T) {
	t.Parallel()
	w := newTown(t, 3)
	h, other := w.brokers[1], w.brokers[0]
	disturb(t, w, func() {
		other.must(http.MethodPost, "cluster/drain?node=b2")
		w.eventually("drained", func() string {
			if got := column(other.must(http.MethodGet, "cluster/show")[0], "State")["b2"]; got != "drained" {
				return got
			}
			return ""
		})
	})
	other.must(http.MethodPost, "cluster/leave?node=b2")
	w.eventually("gone", func() string {
		for _, o := range []*house{other, w.brokers[2]} {
			if got := column(o.must(http.MethodGet, "cluster/show")[0], "State"); len(got) != 2 {
				return fmt.Sprint(got)
			}
		}
		return ""
	})
	select {
	case <-h.ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the broker that left goes on")
	}
	h.stop()
	w.settled()
	c := h.config
	c.Bus = other.bus
	if _, err := New(c, h.name, w.log, nil); err == nil {
		t.Error("it starts with what it had")
	}
	if err := os.RemoveAll(h.config.Data); err != nil {
		t.Fatal(err)
	}
	h.start()
	w.settled()
	w.eventually("it has its share", func() string {
		show := other.must(http.MethodGet, "cluster/show")[0]
		if got := column(show, "Owned")["b2"]; got == "" || got == "0" {
			return fmt.Sprint(column(show, "State"), got)
		}
		return ""
	})
	w.balanced()
}

// One that is dead is forced out; what it alone had is abandoned by name, and the rest
// goes on.
func TestOperate_ForceAndAbandon(t *testing.T) {
	t.Parallel()
	w := newTown(t, 3)
	w.balanced()
	dead, other := w.brokers[2], w.brokers[0]
	// Partitions that the dead one alone has.
	var alone []int
	for p := range partition.ID(16) {
		e := dead.region.host.Entry(p).Table.Entry
		if e.Owner == "b3" && len(alone) < 2 {
			alone = append(alone, int(p))
		}
	}
	if len(alone) < 2 {
		t.Fatal("b3 owns too few partitions")
	}
	dead.stop()
	for _, p := range alone {
		// As if its followers had fallen out before it died.
		w.eventually("its entry is made so", func() string {
			table := other.region.host.Entry(partition.ID(p)).Table
			e := partition.Entry{Epoch: table.Epoch + 1, Owner: "b3", InSync: []partition.Broker{"b3"}}
			if _, err := later(other.bus, tableBucket).Put(t.Context(), fmt.Sprintf("partition.%d", p), e.Append(nil), bus.Revision(table.Revision)); err != nil {
				return err.Error()
			}
			return ""
		})
	}
	w.eventually("it is down", func() string {
		if got := column(other.must(http.MethodGet, "cluster/show")[0], "State")["b3"]; got != "down" {
			return got
		}
		return ""
	})
	if err := operate.Complete(t.Context(), other.desk); !errs.Is(err, errs.Unavailable) {
		t.Errorf("the cluster is complete without b3: %v", err)
	}
	for _, p := range alone {
		if code, all := other.command(http.MethodPost, fmt.Sprintf("partition/abandon?partition=%d", p)); code != http.StatusBadRequest {
			t.Errorf("without --yes: %d %v", code, all)
		}
	}
	out := other.must(http.MethodPost, "cluster/leave?node=b3&--force")
	if len(out) != 2 || !strings.Contains(out[1].Text, "2 partitions have no other replica") {
		t.Errorf("forcing it out says %v", out)
	}
	for _, p := range alone {
		out := other.must(http.MethodPost, fmt.Sprintf("partition/abandon?partition=%d&--yes", p))
		t.Log(out[0].Text)
	}
	w.settled()
	all, err := w.brokers[1].desk.Partitions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.State != operate.InSync || slices.Contains(append(p.InSync, p.Others...), "b3") {
			t.Errorf("%+v", p)
		}
	}
	c := w.connect("after", 0)
	c.subscribe("t", mqtt.AtLeastOnce)
}

// A broker that ends hands over what it owns, and stays a follower.
func TestOperate_StopHandsOver(t *testing.T) {
	t.Parallel()
	w := newTown(t, 3)
	w.balanced()
	h := w.brokers[0]
	before := map[partition.ID]partition.Entry{}
	for p := range partition.ID(16) {
		before[p] = h.region.host.Entry(p).Table.Entry
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := h.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	for p, was := range before {
		w.eventually("another broker sees it handed over", func() string {
			now := w.brokers[1].region.host.Entry(p).Table.Entry
			switch {
			case now.Owner == "b1":
				return fmt.Sprintf("partition %d is not handed over", p)
			case was.Holds("b1") != now.Holds("b1"):
				return fmt.Sprintf("the replicas of partition %d were %v %v, are %v %v", p, was.InSync, was.Others, now.InSync, now.Others)
			}
			return ""
		})
	}
	// When all end, nobody waits for anybody.
	done := make(chan error, 2)
	begun := time.Now()
	for _, o := range w.brokers[1:] {
		go func() { done <- o.Drain(ctx) }()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Logf("the last two drained in %v", time.Since(begun))
}

func TestNetsplits(t *testing.T) {
	var n netsplits
	alive, down := member.Member{State: member.Alive}, member.Member{State: member.Down}
	for i, step := range []struct {
		members            []member.Member
		detected, resolved uint64
	}{
		{[]member.Member{alive, {State: member.Suspected}}, 0, 0}, // as it starts
		{[]member.Member{alive, alive}, 0, 0},
		{[]member.Member{alive, down}, 1, 0},
		{[]member.Member{alive, down}, 1, 0},
		{[]member.Member{alive, alive}, 1, 1},
		{[]member.Member{alive}, 1, 1},
	} {
		n.look(step.members)
		if d, r := n.counts(); d != step.detected || r != step.resolved {
			t.Errorf("step %d: %d detected, %d resolved", i, d, r)
		}
	}
}

// A broker that is alone is a cluster of one.
func TestOperate_Alone(t *testing.T) {
	t.Parallel()
	c := DefaultConfig()
	c.Data, c.Partitions = filepath.Join(t.TempDir(), "b"), 8
	b, err := New(c, "solo", slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	text, err := json.Marshal(operate.Status(t.Context(), b.desk))
	if err != nil || !bytes.HasPrefix(text, []byte(`[{"solo":{"num_online":0,`)) {
		t.Errorf("%s, %v", text, err)
	}
	parts, err := b.desk.Partitions(t.Context())
	if err != nil || len(parts) != 8 || parts[7].State != operate.InSync {
		t.Errorf("%v, %v", parts, err)
	}
	if err := b.desk.Drain(t.Context(), "solo", false); !errs.Is(err, errs.Conflict) {
		t.Errorf("draining it: %v", err)
	}
	if _, err := b.store.Get(newKey); err == nil {
		t.Error("a broker that is alone is noted as a new one of a cluster")
	}
}
