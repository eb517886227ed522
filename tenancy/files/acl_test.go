// SPDX-License-Identifier: Apache-2.0

package files_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/files"
	"github.com/manormq/manor/tenancy/policy"
)

var limits = policy.Limits{Bytes: 512 << 10, Grants: 10_000, Time: time.Second}

// grants imports a file into the tenant acme.
func grants(t *testing.T, acl string) (*tenancy.GrantSet, *files.ACLPolicy) {
	t.Helper()
	made, err := files.PolicyOfACL(acl, "acme")
	if err != nil {
		t.Fatalf("%v in\n%s", err, acl)
	}
	p, err := policy.Compile(t.Context(), policy.Source{"policy.rego": made.Rego}, limits)
	if err != nil {
		t.Fatalf("%v in\n%s", err, made.Rego)
	}
	set, err := p.Grants(t.Context(), policy.TenantInput{ID: "acme"}, tenancy.DefaultClass)
	if err != nil {
		t.Fatalf("%v in\n%s", err, made.Rego)
	}
	return set, made
}

func TestPolicyOfACL(t *testing.T) {
	set, made := grants(t, "# comment\r\ntopic read all/#\r\n\r\nuser alice\n topic  readwrite  home/%c/my room \ntopic write only/write\nuser bob: the \"second\"\ntopic both\n"+
		"pattern write d/%c/%u/%m/x%c\npattern read $SYS/#\ntopic read $share/g/jobs/+\npattern $SYS/x\ntopic $other/x\ntopic write $share/g/x\n")
	var notes []int
	for _, n := range made.Notes {
		notes = append(notes, n.Line)
	}
	if !slices.Equal(notes, []int{11, 12, 13, 14}) {
		t.Errorf("notes %v", made.Notes)
	}
	alice, bob := set.Bind(&tenancy.Subject{ClientID: "c1", Username: "alice"}), set.Bind(&tenancy.Subject{ClientID: "c2", Username: `bob: the "second"`})
	for _, c := range []struct {
		who    *tenancy.Grant
		action string
		topic  string
		want   bool
	}{
		{alice, "subscribe", "all/x", true},
		{bob, "subscribe", "all/#", true},
		{bob, "publish", "all/x", false},
		{alice, "publish", "home/%c/my room", true},
		{alice, "subscribe", "home/%c/my room", true},
		{alice, "publish", "home/c1/my room", false},
		{bob, "publish", "home/%c/my room", false},
		{alice, "publish", "only/write", true},
		{alice, "subscribe", "only/write", false},
		{bob, "publish", "both", true},
		{bob, "subscribe", "both", true},
		{alice, "publish", "both", false},
		{alice, "publish", "d/c1/alice/acme/x%c", true},
		{alice, "publish", "d/c2/alice/acme/x%c", false},
		{alice, "publish", "d/c1/alice/acme/xc1", false},
		{alice, "subscribe", "d/c1/alice/acme/x%c", false},
		{alice, "subscribe", "$SYS/#", true},
		{bob, "subscribe", "$share/any/jobs/+", true},
		{alice, "subscribe", "$share/any/jobs/+", false},
		{bob, "publish", "jobs/1", false},
		{bob, "publish", "x", false},
	} {
		x := c.who.Explain(tenancy.Question{Action: c.action, Topic: c.topic})
		if x.Allowed != c.want {
			t.Errorf("%s %q: %v, want %v: %s\n%s", c.action, c.topic, x.Allowed, c.want, x.Why, made.Rego)
		}
	}
	if x := alice.Explain(tenancy.Question{Action: "publish", Topic: "only/write"}); x.Entry == nil || !strings.HasPrefix(x.Entry.At, "policy.rego:") {
		t.Errorf("the entry has no place: %+v", x.Entry)
	}
	if set, _ := grants(t, "# nothing\n"); set.Bind(&tenancy.Subject{}).MayReceive([]byte("a")) {
		t.Error("an empty file allows something")
	}
}

// topics are n lines that differ.
func topics(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "topic t/%d\n", i)
	}
	return b.String()
}

func TestPolicyOfACL_Refused(t *testing.T) {
	for text, want := range map[string]string{
		"topic read":               "vmq.acl:1:1: expected topic [read|write|readwrite] FILTER, found no filter",
		"topic a\n\npattern":       "vmq.acl:3:1: expected pattern [read|write|readwrite] FILTER, found no filter",
		"user":                     "vmq.acl:1:1: expected user NAME",
		"topic deny a":             "deny is mosquitto's",
		"topic read a/#/b":         "vmq.acl:1:1: expected topic [read|write|readwrite] FILTER: ",
		"allow a":                  `vmq.acl:1:1: expected a line that begins with topic, pattern, user or #, found "allow"`,
		"topic a\x00":              "vmq.acl:1:1: expected topic",
		"x\ny":                     "(and 1 more)",
		strings.Repeat("x\n", 100): "(and 19 more)",
		topics(5001):               "vmq.acl:5001:1: expected at most 5000 lines",
	} {
		if _, err := files.PolicyOfACL(text, "acme"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %q", text, err, want)
		}
	}
}

// plugin decides as vmq_acl does, without what its documentation and its source
// disagree about: + does not match # there, wildcards match no $ at the root, and a value that is empty or has a
// wildcard, a separator or $ fills no level.
type plugin struct{ acl string }

func (p plugin) allows(client, user, action, topic string) bool {
	section := ""
	for line := range strings.Lines(p.acl) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] == "#" {
			continue
		}
		if f[0] == "user" {
			section = f[1]
			continue
		}
		filter, access := f[len(f)-1], ""
		if len(f) == 3 {
			access = f[1]
		}
		applies := f[0] == "pattern" || section == "" || section == user
		right := access == "" || access == "read" && action == "subscribe" || access == "write" && action == "publish"
		if !applies || !right || action == "publish" && topic[0] == '$' {
			continue
		}
		words, safe := strings.Split(filter, "/"), true
		if f[0] == "pattern" {
			for i, w := range words {
				v, placeholder := map[string]string{"%c": client, "%u": user, "%m": "acme"}[w]
				if placeholder {
					words[i] = v
					safe = safe && v != "" && !strings.ContainsAny(v, "+#/$")
				}
			}
		}
		if safe && p.match(strings.Split(topic, "/"), words, true) {
			return true
		}
	}
	return false
}

func (p plugin) match(topic, acl []string, root bool) bool {
	dollar := root && len(topic) > 0 && strings.HasPrefix(topic[0], "$")
	switch {
	case len(acl) > 0 && acl[0] == "#":
		return !dollar
	case len(topic) == 0 || len(acl) == 0:
		return len(topic) == len(acl)
	case acl[0] == "+" && topic[0] != "#" && !dollar || acl[0] == topic[0]:
		return p.match(topic[1:], acl[1:], false)
	}
	return false
}

// What a file allows the policy allows, and nothing more: for random files, clients, names
// and filters the answers are the same.
func TestPolicyOfACL_Plugin(t *testing.T) {
	asked, allowed := 0, 0
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 3))
		pick := func(from ...string) string { return from[r.IntN(len(from))] }
		random := func(levels ...string) string {
			var all []string
			for range 1 + r.IntN(3) {
				all = append(all, pick(levels...))
			}
			if r.IntN(4) == 0 {
				all[len(all)-1] = "#"
			}
			return strings.Join(all, "/")
		}
		var b strings.Builder
		for range 1 + r.IntN(12) {
			switch r.IntN(4) {
			case 0:
				fmt.Fprintf(&b, "user %s\n", pick("u1", "u2"))
			case 1:
				fmt.Fprintf(&b, "topic %s%s\n", pick("", "read ", "write "), random("a", "b", "%c", "+"))
			default:
				fmt.Fprintf(&b, "pattern %s%s\n", pick("", "read ", "write "), random("a", "%c", "%u", "%m", "+", "x%c"))
			}
		}
		set, made := grants(t, b.String())
		for _, client := range []string{"c1", "a", "+", "#", "a/b", "$SYS", ""} {
			for _, user := range []string{"u1", "u2", "+", ""} {
				g := set.Bind(&tenancy.Subject{ClientID: client, Username: user})
				for range 60 {
					action := pick("publish", "subscribe")
					topic := random("a", "b", "c1", "u1", "acme", "%c", "x%c")
					if action == "subscribe" {
						topic = random("a", "c1", "u1", "acme", "+", "x%c")
					} else {
						topic = strings.ReplaceAll(topic, "#", "a")
					}
					ok := g.MayPublish([]byte(topic), 0, false)
					if action == "subscribe" {
						_, ok = g.MaySubscribe(topic)
					}
					asked++
					if ok {
						allowed++
					}
					if want := (plugin{b.String()}).allows(client, user, action, topic); ok != want {
						t.Fatalf("seed %d, client %q, user %q, %s %q: %v, want %v; the file\n%s\nthe policy\n%s", seed, client, user, action, topic, ok, want, b.String(), made.Rego)
					}
				}
			}
		}
	}
	if allowed < asked/50 || allowed > asked*49/50 {
		t.Errorf("%d of %d questions were allowed: that shows little", allowed, asked)
	}
}
