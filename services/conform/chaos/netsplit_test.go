// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/services/conform"
)

var netsplit = flag.Bool("netsplit", false, "run TestNetsplit, where network namespaces are allowed")

// splitter is a tenant that goes on in a netsplit, if on.
type splitter struct {
	t              *testing.T
	r              *Region
	name, password string
}

// signUp makes a tenant, with the four settings or without.
func (r *Region) signUp(t *testing.T, name string, on bool) *splitter {
	t.Helper()
	api := "http://" + r.Of("tenancy")[0].Addr("api")
	do := func(method, path, key, body string, out any) {
		req, err := http.NewRequestWithContext(t.Context(), method, api+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if key != "" {
			req.Header.Set("Authorization", "Bearer "+key)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err != nil || resp.StatusCode/100 != 2 {
			t.Fatalf("%s %s: %s: %s: %v", method, path, resp.Status, b, err)
		}
		if out != nil {
			if err := json.Unmarshal(b, out); err != nil {
				t.Fatal(err)
			}
		}
	}
	var a struct {
		APIKey     struct{ Secret string } `json:"api_key"`
		Credential struct{ Password string }
	}
	do("POST", "/v1/signup", "", fmt.Sprintf(`{"organization":%q,"email":"ops@acme.example","password":"correct horse","tenant":%q}`, name, name), &a)
	if on {
		do("PUT", "/v1/tenants/"+name+"/settings", a.APIKey.Secret,
			`{"allow_register_during_netsplit":true,"allow_publish_during_netsplit":true,"allow_subscribe_during_netsplit":true,"allow_unsubscribe_during_netsplit":true}`, nil)
	}
	return &splitter{t: t, r: r, name: name, password: a.Credential.Password}
}

// device is a client with a session, at a gateway.
func (x *splitter) device(gateway int, id string) *conform.Device {
	return &conform.Device{
		Address: x.r.Addrs()[gateway], Timeout: 30 * time.Second,
		Options: packet.Connect{
			Version: packet.V5, ClientID: id, SessionExpiry: 3600, HasSessionExpiry: true, KeepAlive: 60,
			Username: x.name + ":default", HasUsername: true, Password: []byte(x.password), HasPassword: true,
		},
	}
}

func (x *splitter) connect(d *conform.Device) *packet.Connack {
	x.t.Helper()
	k, err := d.Connect()
	if err != nil {
		x.t.Fatalf("%s: %v", d.Options.ClientID, err)
	}
	return k
}

// inbox counts what came, by payload.
type inbox struct {
	mu  sync.Mutex
	got map[string]int
	all []string
}

func (b *inbox) take(m conform.Delivered) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got[string(m.Payload)]++
	b.all = append(b.all, string(m.Payload))
}

// TestNetsplit cuts two brokers apart, then a gateway from a broker, for two tenants: one
// goes on, one waits. After each everything that was acknowledged comes, in order, at
// QoS 2 once, and guests are at home again.
func TestNetsplit(t *testing.T) {
	if !*netsplit {
		t.Skip("runs with -netsplit")
	}
	r := region(t)
	if r.network == nil {
		t.Skip("no network namespaces here")
	}
	r.Settled(time.Minute)
	on, off := r.signUp(t, "goes-on", true), r.signUp(t, "waits", false)
	const n = 12
	publishApart(t, r, on, true, n)
	publishApart(t, r, off, false, n)
	r.Settled(2 * time.Minute)
	guests := registerApart(t, r, on, n)
	refused := registerApart(t, r, off, n)
	if guests == 0 || refused == 0 {
		t.Errorf("%d guests, %d refused", guests, refused)
	}
}

// publishApart has clients publish to each other while two brokers are apart.
func publishApart(t *testing.T, r *Region, x *splitter, on bool, n int) {
	var boxes []*inbox
	var all []*conform.Device
	for i := range n {
		b := &inbox{got: map[string]int{}}
		d := x.device(i%2, fmt.Sprint("pub-", i))
		d.OnMessage = b.take
		x.connect(d)
		if _, err := d.Subscribe(mqtt.Subscription{Filter: "t/#", QoS: 2}); err != nil {
			t.Fatal(err)
		}
		boxes, all = append(boxes, b), append(all, d)
	}
	brokers := r.Of("broker")
	to, back := r.network.Cut(brokers[:1], brokers[1:2]), r.network.Cut(brokers[1:2], brokers[:1])
	var longest atomic.Int64
	var acked atomic.Int64
	var wg sync.WaitGroup
	const each = 40
	begun := time.Now()
	for i, d := range all {
		wg.Go(func() {
			for k := range each {
				at := time.Now()
				p, err := d.Publish(mqtt.Message{Topic: []byte(fmt.Sprint("t/", i)), Payload: []byte(fmt.Sprintf("%d %d", i, k)), QoS: mqtt.QoS(1 + k%2)})
				if err != nil {
					t.Error(err)
					return
				}
				select {
				case <-p.Acked:
				case <-time.After(time.Minute):
					t.Errorf("publish %d of %d is not acknowledged", k, i)
					return
				}
				acked.Add(1)
				longest.Store(max(longest.Load(), int64(time.Since(at))))
			}
		})
	}
	time.Sleep(15 * time.Second)
	during := acked.Load()
	to()
	back()
	wg.Wait()
	say("%s: %d of %d acknowledged while two brokers were apart for %.0f s; one took %.1f s at most", x.name, during, n*each, time.Since(begun).Seconds(), time.Duration(longest.Load()).Seconds())
	if on && during < int64(n*each) {
		t.Errorf("%s: %d of %d were acknowledged in the netsplit", x.name, during, n*each)
	}
	if !on && during == int64(n*each) {
		t.Errorf("%s: everything was acknowledged in the netsplit", x.name)
	}
	end := time.Now().Add(30 * time.Second)
	for i, b := range boxes {
		for {
			b.mu.Lock()
			have := len(b.got)
			b.mu.Unlock()
			if have == n*each {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s: client %d has %d of %d messages", x.name, i, have, n*each)
			}
			time.Sleep(10 * time.Millisecond)
		}
		last := map[[2]int]int{}
		seen := map[string]bool{}
		for _, p := range b.all {
			var from, k int
			if _, err := fmt.Sscanf(p, "%d %d", &from, &k); err != nil {
				t.Fatal(err)
			}
			if !seen[p] && k < last[[2]int{from, k % 2}] {
				t.Errorf("%s: client %d got %q after %d", x.name, i, p, last[[2]int{from, k % 2}])
			}
			seen[p] = true
			last[[2]int{from, k % 2}] = max(last[[2]int{from, k % 2}], k)
			if k%2 == 1 && b.got[p] > 1 {
				t.Errorf("%s: client %d got %q %d times", x.name, i, p, b.got[p])
			}
		}
	}
	for _, d := range all {
		d.Disconnect()
	}
}

// registerApart has clients, each with a session, connect through a gateway that does not
// reach one of the brokers. It returns how many found their session away.
func registerApart(t *testing.T, r *Region, x *splitter, n int) (away int) {
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprint("reg-", i))
		d := x.device(1, ids[i])
		x.connect(d)
		if _, err := d.Subscribe(mqtt.Subscription{Filter: "own", QoS: 1}); err != nil {
			t.Fatal(err)
		}
		d.Disconnect()
	}
	gateway, broker := r.Of("gateway")[:1], r.Of("broker")[:1]
	to, back := r.network.Cut(gateway, broker), r.network.Cut(broker, gateway)
	time.Sleep(8 * time.Second) // its links notice within 6 s
	guests := make([]*conform.Device, n)
	var wg sync.WaitGroup
	var refused atomic.Int64
	begun := time.Now()
	for i := range n {
		wg.Go(func() {
			d := x.device(0, ids[i])
			k, err := d.Connect()
			switch {
			case err != nil:
				refused.Add(1)
			case !k.SessionPresent:
				guests[i] = d
				if k.ReasonString == "" || !k.HasSessionExpiry || k.SessionExpiry != 0 {
					t.Errorf("%s is not told that it is a guest: %+v", ids[i], k)
				}
				if c, err := d.Subscribe(mqtt.Subscription{Filter: "guests", QoS: 1}); err != nil || c[0].Failed() {
					t.Errorf("%s cannot subscribe: %v %v", ids[i], c, err)
				}
			default:
				d.Disconnect()
			}
		})
	}
	wg.Wait()
	took := time.Since(begun)
	to()
	back()
	healed := time.Now()
	for i, d := range guests {
		if d == nil {
			continue
		}
		away++
		select {
		case <-d.Done():
		case <-time.After(30 * time.Second):
			t.Fatalf("%s is a guest still", ids[i])
		}
		if e := d.Disconnected(); e == nil || e.Reason != mqtt.UseAnotherServer {
			t.Errorf("%s was told %+v", ids[i], e)
		}
	}
	say("%s: of %d clients %d became guests and %d were refused, in %.1f s; the guests were sent back within %.1f s",
		x.name, n, away, refused.Load(), took.Seconds(), time.Since(healed).Seconds())
	for _, id := range ids {
		d := x.device(0, id)
		for end := time.Now().Add(30 * time.Second); ; {
			k, err := d.Connect()
			if err == nil && k.SessionPresent {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s does not find its session again: %+v %v", id, k, err)
			}
			if err == nil {
				d.Disconnect()
			}
		}
		d.Disconnect()
	}
	return away + int(refused.Load())
}
