// SPDX-License-Identifier: Apache-2.0

package files_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/manormq/manor/tenancy/files"
)

// Whatever stands in a name or a filter comes out of the policy as that, and as nothing else: no
// text of a file is ever Rego.
func TestPolicyOfACL_Text(t *testing.T) {
	alphabet := []rune("a\"\\`'{}[]()#:=,;$%\t \rnu0/\u007f\u0085\u00a0\u200b\u2028\u2029\ufeff\ufffd\U0001F600<>&+|")
	r := rand.New(rand.NewPCG(7, 7))
	word := func() string {
		var b strings.Builder
		for range 1 + r.IntN(12) {
			b.WriteRune(alphabet[r.IntN(len(alphabet))])
		}
		return b.String()
	}
	texts := []string{
		"user a\"}\ntopic x\n", "user a\", \"filter\": \"#\ntopic x\n", "topic x\"} # \ntopic y\n", "topic `\ntopic y`\n", "topic \\\"\n", "topic \\u0023\n",
		"user $\"{x}\"\ntopic {data.x}\n", "topic a\rallow := true\n", "topic a\u2028allow := true\n", "\ufefftopic a\n", "topic \ufeff\n", "topic a\u007f\n",
	}
	for range 400 {
		texts = append(texts, fmt.Sprintf("user %s\ntopic %s\n", word(), word()))
	}
	made := 0
	for _, text := range texts {
		rules, err := files.ParseACL(text)
		if err != nil {
			continue
		}
		want := map[string]bool{}
		for _, x := range rules {
			if !strings.HasPrefix(x.Filter, "$") {
				want[fmt.Sprintf("%q %q", x.User, strings.ReplaceAll(x.Filter, "%", "%%"))] = true
			}
		}
		set, p := grants(t, text)
		for i := range set.Entries {
			e := &set.Entries[i]
			user := ""
			if e.User != nil {
				user = *e.User
			}
			if !want[fmt.Sprintf("%q %q", user, e.Filter)] {
				t.Fatalf("%q grants %q %q, which no line does:\n%s", text, user, e.Filter, p.Rego)
			}
		}
		if len(set.Entries) != len(want) {
			t.Fatalf("%q grants %d entries, want %d:\n%s", text, len(set.Entries), len(want), p.Rego)
		}
		made += len(want)
	}
	if made < 50 {
		t.Errorf("only %d lines were good: that shows little", made)
	}
}

// What is said of a file does not grow with its lines.
func TestPolicyOfACL_Short(t *testing.T) {
	long := strings.Repeat("é", 30_000)
	for _, text := range []string{long + "\n", "topic a/#/" + long + "\n", "topic " + long + long + "\n", "topic x" + long + "#\n", "pattern read " + long + "+\n", "user " + long + "\n"} {
		if _, err := files.PolicyOfACL(text, "acme"); err == nil || len(err.Error()) > 400 || !utf8.ValidString(err.Error()) {
			t.Errorf("%.20q is refused with %d bytes", text, len(fmt.Sprint(err)))
		}
	}
	p, err := files.PolicyOfACL("topic read $share/g/"+long+"\n"+strings.Repeat("topic $x\n", 5000), "acme")
	if err != nil {
		t.Fatal(err)
	}
	last := p.Notes[len(p.Notes)-1]
	if len(p.Notes) != 1001 || len(p.Notes[0].Message) > 400 || last.Line != 1001 || last.Message != "this line and 4000 more mean something else here, or nothing, as well" {
		t.Errorf("%d notes, the first of %d bytes, the last %v", len(p.Notes), len(p.Notes[0].Message), last)
	}
}
