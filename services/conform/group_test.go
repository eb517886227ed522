// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

const (
	// groupTimeout is shared_member_timeout.
	groupTimeout = 2 * time.Second
	// groupSlack is what a message may come later on a machine that does much else.
	groupSlack = 2 * time.Second
	// groupLate is after how long the slow member acknowledges.
	groupLate = 300 * time.Millisecond
	// groupTogether is how early no message is given to another member, but from
	// one whose connection has ended: before that the order is kept.
	groupTogether = groupTimeout / 8
)

// TestGroup_OneProcess and TestGroup_Processes: a group has members that are slow,
// stuck, not read at all, and gone, under every policy. Each message of QoS 1
// comes to a member that acknowledges, in shared_member_timeout; each of QoS 2 to
// one session once, and what was in flight there waits for it [MQTT-4.8.2-4].
func TestGroup_OneProcess(t *testing.T) {
	group(t, "--data", t.TempDir(), "--listen-offset", Offset(t), "--log-level", "error")
}

func TestGroup_Processes(t *testing.T) {
	group(t, "--data", t.TempDir(), "--listen-offset", Offset(t), "--brokers", "1", "--gateways", "2", "--log-level", "error")
}

func group(t *testing.T, args ...string) {
	if testing.Short() {
		t.Skip("starts the product; not in short runs")
	}
	p := Start(t, Programs(t, built), args...)
	t.Run("policies", func(t *testing.T) {
		for i, policy := range []string{"round_robin", "random", "prefer_local", "local_only", "prefer_online_before_local", "sticky_publisher", "sticky_topic"} {
			t.Run(policy, func(t *testing.T) {
				t.Parallel()
				newWorks(t, p, fmt.Sprint("works-", i), policy).run(p)
			})
		}
	})
}

// works are a group, who gives it work, and what became of that.
type works struct {
	*slowTenant
	t     *testing.T
	turns int

	mu sync.Mutex // guards what follows
	// sent is when a message was published, done when it first came to a member
	// that acknowledges.
	sent, done map[string]time.Time
	// times is how often a message of QoS 2 came to an application.
	times map[string]int
	// order are the messages that came to one member from one publisher, early.
	order map[string][]int
}

func newWorks(t *testing.T, p *Product, id, policy string) *works {
	w := &works{
		slowTenant: slowSignUp(t, p, id), t: t,
		sent: map[string]time.Time{}, done: map[string]time.Time{}, times: map[string]int{}, order: map[string][]int{},
	}
	request(t, http.MethodPut, p.API+"/v1/tenants/"+id+"/settings", w.Key, strings.NewReader(fmt.Sprintf(
		`{"shared_member_timeout":%d,"shared_subscription_policy":%q,"response_information":"set"}`, int(groupTimeout.Seconds()), policy)), http.StatusOK, nil)
	for i := range w.addrs {
		waitFor(t, "the settings", func() bool {
			d := w.device(i, "asks")
			d.Options.RequestResponse = true
			ack, err := d.Connect()
			if err != nil {
				t.Fatal(err)
			}
			d.Disconnect()
			return ack.ResponseInformation == "set"
		})
	}
	return w
}

// gone waits until the brokers know that members have no connection.
func (w *works) gone(p *Product, members ...*worker) {
	w.t.Helper()
	waitFor(w.t, "the members known to be gone", func() bool {
		var list struct {
			Items []struct {
				ClientID  string `json:"client_id"`
				Connected bool   `json:"connected"`
			} `json:"items"`
		}
		Get(w.t, p.API+"/v1/tenants/"+w.ID+"/clients?limit=100", w.Key, &list)
		for _, c := range list.Items {
			if c.Connected && slices.ContainsFunc(members, func(m *worker) bool { return m.options.ClientID == c.ClientID }) {
				return false
			}
		}
		return len(list.Items) > 0
	})
}

func (w *works) run(p *Product) {
	quick, stored := w.hire("quick"), w.hire("stored", hiredStored)
	slow := w.hire("slow", func(m *worker) { m.late, m.options.ReceiveMaximum = groupLate, 4 })
	stuck := w.hire("stuck", hiredStored, hiredStuck, func(m *worker) { m.options.ReceiveMaximum = 10 })
	deaf := w.hire("deaf", hiredStuck, func(m *worker) { m.deaf, m.options.Version = true, packet.V311 })
	leaves := w.hire("leaves", hiredStuck, func(m *worker) { m.once = true })
	rests := w.hire("rests", hiredStored, hiredStuck)
	dies := w.hire("dies", hiredStored, hiredStuck)

	w.work(0)
	for _, m := range []*worker{leaves, rests} {
		m.send(packet.AppendDisconnect(nil, m.options.Version, &packet.Disconnect{}, 0))
		m.close()
	}
	dies.close()
	w.gone(p, leaves, rests, dies) // else what they are sent meanwhile goes to others later
	w.work(1)
	w.all()

	if stuck.jobs.Load() == 0 { // one time in a thousand all that it may hold is of QoS 2, which waits for it
		w.t.Log("who was stuck got nothing that others may have")
	} else if end := stuck.ended(w.t); end != mqtt.AdministrativeAction {
		w.t.Errorf("who was stuck was told %v", end)
	}
	for _, m := range []*worker{quick, stored, slow} {
		if m.gone() {
			w.t.Errorf("%s acknowledges in time, and was disconnected", m.options.ClientID)
		}
	}
	deaf.close()
	// Now they work, and have what they held.
	for _, m := range []*worker{stuck, rests, dies} {
		m.close()
		m.stuck = false
		if present := m.connect(); !present {
			w.t.Errorf("the session of %s is gone", m.options.ClientID)
		}
	}
	waitFor(w.t, "each message of QoS 2", func() bool { return w.exact() == 0 })
	for _, m := range []*worker{quick, stored, slow, stuck, rests, dies} {
		m.close()
	}
	w.check()
}

const (
	groupPublishers = 4
	groupJobs       = 25 // of each publisher, each time, at QoS 1 and at QoS 2
)

// work publishes, from several publishers to a topic of each, and waits for the
// acknowledgements.
func (w *works) work(burst int) {
	var wg sync.WaitGroup
	for i := range groupPublishers {
		wg.Go(func() {
			d := w.device(i, fmt.Sprint("publisher-", i))
			if _, err := d.Connect(); err != nil {
				w.t.Error(err)
				return
			}
			defer d.Disconnect()
			for k := range 2 * groupJobs {
				m := mqtt.Message{Topic: fmt.Appendf(nil, "jobs/%d", i), Payload: fmt.Appendf(nil, "job %d %d %d", burst, i, k), QoS: 1}
				if k%2 == 1 {
					m.Topic, m.QoS = fmt.Appendf(nil, "exact/%d", i), 2
					m.Payload = fmt.Appendf(nil, "exact %d %d %d", burst, i, k)
				}
				w.mu.Lock()
				w.sent[string(m.Payload)] = time.Now()
				w.mu.Unlock()
				p, err := d.Publish(m)
				if err != nil {
					w.t.Error(err)
					return
				}
				select {
				case <-p.Acked:
				case <-time.After(10 * time.Second):
					w.t.Errorf("%s is not acknowledged", m.Payload)
					return
				}
			}
		})
	}
	wg.Wait()
}

// all waits until each message of QoS 1 has come to who acknowledges it.
func (w *works) all() {
	left := ""
	defer func() {
		if left != "" {
			w.t.Errorf("%s came to nobody who works", left)
		}
	}()
	for end := time.Now().Add(groupTimeout + groupSlack + 10*time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		left = ""
		w.mu.Lock()
		for job := range w.sent {
			if _, done := w.done[job]; !done && strings.HasPrefix(job, "job") {
				left = job
				break
			}
		}
		w.mu.Unlock()
		if left == "" {
			return
		}
	}
}

// exact counts the messages of QoS 2 that have come to nobody.
func (w *works) exact() (missing int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for job := range w.sent {
		if strings.HasPrefix(job, "exact") && w.times[job] == 0 {
			missing++
		}
	}
	return missing
}

func (w *works) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	var longest time.Duration
	for job, at := range w.done {
		longest = max(longest, at.Sub(w.sent[job]))
		if wait := at.Sub(w.sent[job]); wait > groupTimeout+groupSlack {
			w.t.Errorf("%s has waited %v", job, wait)
		}
	}
	for job, n := range w.times {
		if n != 1 {
			w.t.Errorf("%s came %d times at QoS 2", job, n)
		}
	}
	for who, jobs := range w.order {
		for i := range len(jobs) - 1 {
			if jobs[i] > jobs[i+1] {
				w.t.Errorf("%s: %d came before %d", who, jobs[i], jobs[i+1])
			}
		}
	}
	w.t.Logf("%d messages of QoS 1 done, the longest after %v; %d of QoS 2", len(w.done), longest.Round(time.Millisecond), len(w.times))
}

// came notes what came to a member.
func (w *works) came(m *worker, p *packet.Publish) {
	now, job := time.Now(), string(p.Message.Payload)
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.Message.QoS == mqtt.ExactlyOnce {
		w.times[job]++
		return
	}
	if m.stuck {
		return
	}
	if _, again := w.done[job]; !again {
		w.done[job] = now
	}
	if now.Sub(w.sent[job]) < groupTogether {
		var burst, publisher, k int
		_, _ = fmt.Sscanf(job, "job %d %d %d", &burst, &publisher, &k)
		if burst == 1 { // in the first one, members go
			who := fmt.Sprint(m.options.ClientID, " of publisher ", publisher)
			w.order[who] = append(w.order[who], k)
		}
	}
}
