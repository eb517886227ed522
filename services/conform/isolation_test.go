// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

// TestIsolation_OneProcess and TestIsolation_Processes: two tenants that use
// equal client ids, topics, groups, retained topics and wills at the same time
// never see each other, and each sees exactly what it sees alone.
func TestIsolation_OneProcess(t *testing.T) {
	isolation(t, "--data", t.TempDir(), "--listen-offset", Offset(t))
}

func TestIsolation_Processes(t *testing.T) {
	isolation(t, "--data", t.TempDir(), "--listen-offset", Offset(t), "--brokers", "1", "--gateways", "2")
}

func isolation(t *testing.T, args ...string) {
	if testing.Short() {
		t.Skip("starts the product; not in short runs")
	}
	p := Start(t, Programs(t, built), args...)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	one, two := randomOps(seed, 250), randomOps(seed+1, 250)
	aloneOne := newTenant(t, p, "alone-one").play(one)
	aloneTwo := newTenant(t, p, "alone-two").play(two)
	a, b := newTenant(t, p, "both-one"), newTenant(t, p, "both-two")
	var seenOne, seenTwo map[string][]string
	var wg sync.WaitGroup
	wg.Go(func() { seenOne = a.play(one) })
	wg.Go(func() { seenTwo = b.play(two) })
	wg.Wait()
	if t.Failed() {
		return
	}
	compare(t, aloneOne, seenOne)
	compare(t, aloneTwo, seenTwo)
}

func compare(t *testing.T, alone, both map[string][]string) {
	t.Helper()
	total := 0
	for client, want := range alone {
		got := both[client]
		total += len(want)
		if !slices.Equal(want, got) {
			t.Errorf("%s: alone it saw %d messages, beside another tenant %d; only alone: %v; only beside: %v",
				client, len(want), len(got), without(want, got), without(got, want))
		}
	}
	if total < 60 {
		t.Errorf("only %d messages were seen: the script tests too little", total)
	}
}

func without(a, b []string) (out []string) {
	count := map[string]int{}
	for _, x := range b {
		count[x]++
	}
	for _, x := range a {
		if count[x]--; count[x] < 0 {
			out = append(out, x)
		}
	}
	return out
}

// op is one step of a script.
type op struct {
	kind    string // connect, leave, kill, subscribe, unsubscribe, publish
	client  int
	target  string
	payload string
	qos     mqtt.QoS
	retain  bool
	clean   bool
}

const isolationClients = 4

// randomOps makes n random steps over few clients, topics and groups, so that two
// scripts use the same ones all the time.
func randomOps(seed uint64, n int) (ops []op) {
	r := rand.New(rand.NewPCG(seed, 1))
	filters := []string{"a/b", "a/+", "#", "will/#", "$share/g/a/#", "$share/h/a/b", "ret/#"}
	topics := []string{"a/b", "a/c", "ret/1", "ret/2", "b"}
	online := [isolationClients]bool{}
	for i := range n {
		o := op{client: r.IntN(isolationClients), qos: mqtt.QoS(r.IntN(3)), payload: fmt.Sprint("m", i)}
		switch k := r.IntN(12); {
		case !online[o.client]:
			o.kind, o.clean = "connect", r.IntN(4) == 0
			online[o.client] = true
		case k == 0:
			o.kind = "leave"
			online[o.client] = false
		case k == 1:
			o.kind = "kill"
			online[o.client] = false
		case k < 5:
			o.kind, o.target = "subscribe", filters[r.IntN(len(filters))]
		case k == 5:
			o.kind, o.target = "unsubscribe", filters[r.IntN(len(filters))]
		default:
			o.kind, o.target = "publish", topics[r.IntN(len(topics))]
			o.retain = strings.HasPrefix(o.target, "ret/")
			if o.retain && r.IntN(4) == 0 {
				o.payload = ""
			}
		}
		ops = append(ops, o)
	}
	return ops
}

// tenant plays scripts in one tenant, and keeps what its clients see.
type tenant struct {
	t       *testing.T
	id      string
	api     string
	key     string
	addrs   []string
	user    string
	pass    string
	mu      sync.Mutex
	seen    map[string][]string // guarded by mu
	markers map[string]int      // guarded by mu: newest marker seen, by client
	retains map[string]int      // guarded by mu: times the retained marker came, by client
	// devices are the connected ones; all have a session each.
	devices, all [isolationClients]*Device
	control      *Device
	marker       int
}

func newTenant(t *testing.T, p *Product, id string) *tenant {
	t.Helper()
	n := &tenant{t: t, id: id, seen: map[string][]string{}, markers: map[string]int{}, retains: map[string]int{}}
	for _, g := range p.Of("gateway") {
		n.addrs = append(n.addrs, g.Addr("mqtt"))
	}
	n.api = p.API
	var answer struct {
		Key struct {
			Secret string `json:"secret"`
		} `json:"api_key"`
		Credential struct {
			UsernamePlain string `json:"username_plain"`
			Password      string `json:"password"`
		} `json:"credential"`
	}
	Post(t, p.API+"/v1/signup", "", map[string]any{
		"organization": id, "email": id + "@example.com", "password": "correct horse battery", "tenant": id,
	}, http.StatusCreated, &answer)
	n.key = answer.Key.Secret
	n.user, n.pass = answer.Credential.UsernamePlain, answer.Credential.Password
	n.control = n.device("control", 0, true)
	n.connect(n.control)
	if _, err := n.control.Subscribe(mqtt.Subscription{Filter: "will/#"}); err != nil {
		t.Fatal(err)
	}
	// The retained marker: whoever gets it on a new subscription has got every
	// retained message that he asked for before.
	n.publish(n.control, "sync/retained", "r", 1, true)
	return n
}

// Post sends a JSON request, checks the status and decodes the answer.
func Post(t testing.TB, url, key string, body any, status int, answer any) {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	request(t, http.MethodPost, url, key, bytes.NewReader(b), status, answer)
}

// Get asks, and decodes the answer.
func Get(t testing.TB, url, key string, answer any) {
	t.Helper()
	request(t, http.MethodGet, url, key, nil, http.StatusOK, answer)
}

func request(t testing.TB, method, url, key string, body io.Reader, status int, answer any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
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
	text, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != status {
		t.Fatalf("%s %s: %s, expected %d: %s", method, url, resp.Status, status, text)
	}
	if answer != nil {
		if err := json.Unmarshal(text, answer); err != nil {
			t.Fatalf("%s %s: %v: %s", method, url, err, text)
		}
	}
}

func (n *tenant) device(name string, i int, clean bool) *Device {
	d := &Device{Address: n.addrs[i%len(n.addrs)]}
	d.Options = packet.Connect{
		Version: packet.V5, ClientID: name, CleanStart: clean, KeepAlive: 60, SessionExpiry: 300, HasSessionExpiry: true,
		Username: n.user, HasUsername: true, Password: []byte(n.pass), HasPassword: true,
	}
	d.OnMessage = func(m Delivered) { n.note(name, m) }
	return d
}

func (n *tenant) note(name string, m Delivered) {
	n.mu.Lock()
	defer n.mu.Unlock()
	topic, text := string(m.Topic), string(m.Payload)
	switch {
	case topic == "sync/retained":
		n.retains[name]++
		return
	case topic == "sync/marker":
		var k int
		_, _ = fmt.Sscan(text, &k)
		n.markers[name] = max(n.markers[name], k)
		return
	case text != "" && !strings.HasPrefix(text, n.id+"/"):
		n.t.Errorf("%s of %s received %q on %s: it is another tenant's", name, n.id, text, topic)
	}
	n.seen[name] = append(n.seen[name], fmt.Sprint(topic, " ", strings.TrimPrefix(text, n.id), " ", m.QoS, " ", m.Retain))
}

func (n *tenant) connect(d *Device) {
	n.t.Helper()
	if _, err := d.Connect(); err != nil {
		n.t.Fatalf("%s: %v", n.id, err)
	}
}

func (n *tenant) publish(d *Device, topic, payload string, qos mqtt.QoS, retain bool) {
	n.t.Helper()
	p, err := d.Publish(mqtt.Message{Topic: []byte(topic), Payload: []byte(payload), QoS: qos, Retain: retain})
	if err != nil {
		n.t.Fatal(err)
	}
	if qos > 0 {
		select {
		case <-p.Acked:
		case <-time.After(10 * time.Second):
			n.t.Fatalf("%s: publish to %s is not acknowledged", n.id, topic)
		}
	}
}

func (n *tenant) until(what string, done func() bool) {
	n.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		n.mu.Lock()
		ok := done()
		n.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(end) {
			n.t.Fatalf("%s: %s does not come", n.id, what)
		}
	}
}

// barrier returns when every connected client has what is on its way to it.
func (n *tenant) barrier() {
	n.t.Helper()
	for range 2 {
		n.marker++
		n.publish(n.control, "sync/marker", fmt.Sprint(n.marker), 1, false)
		for i, d := range n.devices {
			if d == nil {
				continue
			}
			name := fmt.Sprint("c", i)
			n.mu.Lock()
			had := n.retains[name]
			n.mu.Unlock()
			if _, err := d.Subscribe(mqtt.Subscription{Filter: "sync/retained", QoS: 1}); err != nil {
				n.t.Fatal(err)
			}
			n.until("the retained marker", func() bool { return n.retains[name] > had })
			n.until("the marker", func() bool { return n.markers[name] >= n.marker })
		}
	}
}

// play runs a script and returns what each client saw, sorted. The members of a
// group are taken together: which of them gets a message is not promised.
func (n *tenant) play(ops []op) map[string][]string {
	for _, o := range ops {
		n.step(o)
		if n.t.Failed() {
			return nil
		}
	}
	for i, d := range n.devices {
		if d == nil {
			n.step(op{kind: "connect", client: i})
		}
	}
	n.barrier()
	for _, d := range n.devices {
		d.Disconnect()
	}
	n.control.Disconnect()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, v := range n.seen {
		slices.Sort(v)
	}
	return n.seen
}

func (n *tenant) step(o op) {
	n.t.Helper()
	name := fmt.Sprint("c", o.client)
	d := n.devices[o.client]
	switch o.kind {
	case "connect":
		if d = n.all[o.client]; d == nil {
			d = n.device(name, o.client, o.clean)
			n.all[o.client] = d
		}
		d.Options.CleanStart = o.clean
		d.Options.Will = &mqtt.Will{Message: mqtt.Message{Topic: []byte("will/" + name), Payload: []byte(n.id + "/gone"), QoS: 1}}
		n.connect(d)
		n.devices[o.client] = d
		if _, err := d.Subscribe(mqtt.Subscription{Filter: "sync/marker", QoS: 1}); err != nil {
			n.t.Fatal(err)
		}
	case "leave":
		d.Disconnect()
		n.devices[o.client] = nil
		n.offline(name)
	case "kill":
		n.mu.Lock()
		had := len(n.seen["control"])
		n.mu.Unlock()
		d.Kill()
		n.devices[o.client] = nil
		n.until("the will", func() bool { return len(n.seen["control"]) > had })
	case "subscribe":
		if _, err := d.Subscribe(mqtt.Subscription{Filter: o.target, QoS: o.qos}); err != nil {
			n.t.Fatal(err)
		}
	case "unsubscribe":
		if _, err := d.Unsubscribe(o.target); err != nil {
			n.t.Fatal(err)
		}
	case "publish":
		payload := o.payload
		if payload != "" {
			payload = n.id + "/" + payload
		}
		n.publish(d, o.target, payload, o.qos, o.retain)
	}
	n.barrier()
}

// offline returns when the broker has seen that a client left: its connection
// would take the messages of a group otherwise.
func (n *tenant) offline(name string) {
	n.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		var c struct {
			Connected bool `json:"connected"`
		}
		Get(n.t, n.api+"/v1/tenants/"+n.id+"/clients/"+name, n.key, &c)
		if !c.Connected {
			return
		}
		if time.Now().After(end) {
			n.t.Fatalf("%s of %s does not go", name, n.id)
		}
	}
}
