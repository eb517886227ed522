// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// queueOf asks what waits for a client.
func (w *world) queueOf(id string, most int, payloads bool) (st link.QueueState, found bool) {
	w.t.Helper()
	a := w.set.Ask(&link.Query{Kind: link.QueryQueue, Tenant: "acme", ClientID: mqtt.ClientID(id), Limit: most, Purge: payloads})
	if a.Error != "" {
		w.t.Fatal(a.Error)
	}
	if a.Found {
		if err := json.Unmarshal([]byte(a.Next), &st); err != nil {
			w.t.Fatal(err)
		}
	}
	return st, a.Found
}

// What waits for a client is shown in order, from memory and from the store, and stays.
func TestLook_Queue(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		if _, found := w.queueOf("c", 5, false); found {
			t.Error("a client that never came is there")
		}
		c := w.connect("c", persistent)
		c.subscribe("a/#", 1)
		c.close(link.CloseLost)
		p := w.connect("p")
		large := strings.Repeat("x", 20<<10) // four fill what is in memory
		for i := range 12 {
			m := message(fmt.Sprint("a/", i), large, 1, false)
			if i == 1 {
				m.HasExpiry, m.Expiry = true, 60
			}
			p.send(link.UpFrame{Kind: link.UpPublish, PacketID: uint16(i + 1), Message: m})
			p.wantAck(mqtt.Puback, uint16(i+1))
		}
		w.settle()
		for range 2 {
			st, _ := w.queueOf("c", 10, false)
			if st.Messages != 12 || st.Bytes < 12*20<<10 || len(st.First) != 10 {
				t.Fatalf("%d messages, %d bytes, %d shown", st.Messages, st.Bytes, len(st.First))
			}
			for i, m := range st.First {
				if m.Topic != fmt.Sprint("a/", i) || m.QoS != 1 || m.Size != len(large) || m.Payload != nil || (m.ExpireAt != 0) != (i == 1) {
					t.Errorf("message %d is %s at %d with %d bytes, until %d", i, m.Topic, m.QoS, m.Size, m.ExpireAt)
				}
			}
		}
		if st, _ := w.queueOf("c", 3, true); len(st.First) != 3 || string(st.First[2].Payload) != large {
			t.Error("the payloads were asked for, and are not there")
		}
		if st, _ := w.queueOf("c", 0, false); st.Messages != 12 || len(st.First) != 0 {
			t.Error("none were asked for")
		}
		c = w.connect("c", persistent)
		for i := range 12 {
			if got := c.want(link.DownDeliver); string(got.msg.Topic) != fmt.Sprint("a/", i) {
				t.Fatalf("delivery %d is of %s", i, got.msg.Topic)
			}
		}
		if st, _ := w.queueOf("c", 3, false); st.Messages != 0 || st.Inflight != 12 {
			t.Errorf("%d wait, %d are in flight", st.Messages, st.Inflight)
		}
	})
}

// matchOf asks who has subscribed what matches, a page after the other.
func matchOf(t *testing.T, set *Set, name string, most int) (out []string) {
	t.Helper()
	for cursor := ""; ; {
		a := set.Ask(&link.Query{Kind: link.QueryMatch, Tenant: "acme", Filter: name, Cursor: cursor, Limit: most})
		if a.Error != "" || len(a.Clients) > most {
			t.Fatalf("%d clients, %q", len(a.Clients), a.Error)
		}
		for _, c := range a.Clients {
			var filters []string
			for _, s := range c.Subscriptions {
				filters = append(filters, s.Filter)
			}
			slices.Sort(filters)
			out = append(out, c.ClientID+" "+strings.Join(filters, " "))
		}
		if cursor = a.Next; cursor == "" {
			return out
		}
	}
}

// Those who would get a message are found with the subscriptions that match, those of shared
// ones and those without a connection among them, and no others.
func TestLook_Match(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for i := range 5 {
			c := w.connect(fmt.Sprint("c", i), persistent)
			c.subscribe("a/+", 1)
			c.subscribe("other/#", 0)
			if i%2 == 0 {
				c.subscribe("$share/g/a/#", 0)
			}
			if i == 3 {
				c.close(link.CloseLost)
			}
		}
		w.connect("d").subscribe("#", 0)
		w.connect("foreign", inTenant("beta")).subscribe("#", 0)
		w.settle()
		want := []string{"c0 $share/g/a/# a/+", "c1 a/+", "c2 $share/g/a/# a/+", "c3 a/+", "c4 $share/g/a/# a/+", "d #"}
		for _, most := range []int{1, 2, 100} {
			if got := matchOf(t, w.set, "a/b", most); !slices.Equal(got, want) {
				t.Errorf("by %d: got %q, expected %q", most, got, want)
			}
		}
		if got := matchOf(t, w.set, "$SYS/x", 10); len(got) != 0 {
			t.Errorf("$SYS/x matches %q", got)
		}
		if a := w.set.Ask(&link.Query{Kind: link.QueryMatch, Tenant: "acme", Filter: "a/#"}); a.Error == "" {
			t.Error("a filter was taken for a topic")
		}
	})
}

// However many pages there are, subscriptions are walked once for as many clients as a walk
// keeps; who leaves between two pages is not listed, and nobody twice or left out.
func TestLook_MatchPages(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const clients = 120
		var all []*client
		var want []string
		for i := range clients {
			c := w.connect(fmt.Sprintf("c%03d", i))
			c.subscribe("a/+", 1)
			if i%3 == 0 {
				c.subscribe("$share/g/a/#", 0)
			}
			all = append(all, c)
			want = append(want, fmt.Sprintf("c%03d", i))
		}
		w.settle()
		const subscriptions = clients + clients/3
		for _, c := range []struct{ most, page, walks int }{{walkMost, 7, 1}, {50, 7, 3}, {50, 50, 3}, {40, 3, 3}, {1, 40, clients}, {walkMost, 1000, 1}} {
			w.set.walks = walks{most: c.most}
			var got []string
			for _, x := range matchOf(t, w.set, "a/b", c.page) {
				id, _, _ := strings.Cut(x, " ")
				got = append(got, id)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%+v: got %q", c, got)
			}
			if n := w.set.walks.steps; n > c.walks*subscriptions {
				t.Errorf("%+v: %d subscriptions were looked at for %d pages, expected %d at most", c, n, clients/c.page+1, c.walks*subscriptions)
			}
		}
		a := w.set.Ask(&link.Query{Kind: link.QueryMatch, Tenant: "acme", Filter: "a/b", Limit: 100})
		all[101].close(link.CloseNormal)
		w.connect("c1015").subscribe("a/b", 0)
		w.settle()
		b := w.set.Ask(&link.Query{Kind: link.QueryMatch, Tenant: "acme", Filter: "a/b", Cursor: a.Next, Limit: 100})
		if len(b.Clients) != clients-101 || b.Clients[0].ClientID != "c100" || b.Clients[1].ClientID != "c102" {
			t.Errorf("the second page has %d clients", len(b.Clients))
		}
		if got := matchOf(t, w.set, "a/b", 1000); len(got) != clients || !slices.Contains(got, "c1015 a/b") {
			t.Errorf("a new listing has %d clients", len(got))
		}
	})
}

// All brokers of a region are asked, whichever has the client.
func TestLook_Region(t *testing.T) {
	w := newWide(t, 1, 3)
	var lives sync.WaitGroup
	var all []*wideClient
	for i := range 9 {
		c := w.client(fmt.Sprint("c", i), []string{"t/#", "$share/g/t/+"}, 0)
		all = append(all, c)
		lives.Go(c.live)
	}
	for end := time.Now().Add(10 * time.Second); slices.ContainsFunc(all, func(c *wideClient) bool { return !c.isReady() }); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the clients have not subscribed")
		}
	}
	for _, n := range w.nodes {
		for _, most := range []int{2, 100} {
			got := matchOf(t, n.set, "t/x", most)
			for i := range all {
				if want := fmt.Sprintf("c%d $share/g/t/+ t/#", i); len(got) != len(all) || got[i] != want {
					t.Fatalf("%s by %d: got %q", n.name, most, got)
				}
			}
		}
		for _, c := range all {
			if a := n.set.Ask(&link.Query{Kind: link.QueryQueue, Tenant: "acme", ClientID: c.id, Limit: 1}); a.Error != "" || !a.Found || a.Next == "" {
				t.Errorf("%s does not know what waits for %s: %+v", n.name, c.id, a)
			}
		}
	}
	for _, c := range all {
		c.mu.Lock()
		c.quit = true
		c.mu.Unlock()
	}
	lives.Wait()
}
