// SPDX-License-Identifier: Apache-2.0

// Package wiretest holds documents to what is on the wire. It is for tests.
package wiretest

import (
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

var section = regexp.MustCompile(`(?m)^<!-- golden (\w+) -->\n(\n(    [0-9a-f ]+.*\n)+)?`)

// Document fails t if the Markdown file does not show the golden bytes, each behind
// the line <!-- golden NAME -->. With rewrite it writes them there instead.
func Document(t *testing.T, file string, golden map[string][]byte, rewrite bool) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	want := section.ReplaceAllStringFunc(string(text), func(s string) string {
		name := section.FindStringSubmatch(s)[1]
		if golden[name] != nil {
			seen++
		}
		return fmt.Sprintf("<!-- golden %s -->\n\n%s", name, dump(golden[name]))
	})
	if seen != len(golden) {
		t.Errorf("%s has %d of the %d golden sections", file, seen, len(golden))
	}
	if want == string(text) {
		return
	}
	if !rewrite {
		t.Fatalf("%s does not show what is on the wire; run go test -run %s -rewrite here, and see whether the change is one", file, t.Name())
	}
	if err := os.WriteFile(file, []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
}

// dump writes bytes as a block of Markdown, with what of them is text.
func dump(data []byte) string {
	var out strings.Builder
	for len(data) > 0 {
		line := data[:min(16, len(data))]
		data = data[len(line):]
		printable := strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return '.'
			}
			return r
		}, string(latin(line)))
		fmt.Fprintf(&out, "    %-48s%s\n", spaced(hex.EncodeToString(line)), printable)
	}
	return out.String()
}

// latin makes a rune of each byte.
func latin(b []byte) []rune {
	out := make([]rune, len(b))
	for i, c := range b {
		out[i] = rune(c)
	}
	return out
}

func spaced(s string) string {
	var out []string
	for ; s != ""; s = s[2:] {
		out = append(out, s[:2])
	}
	return strings.Join(out, " ")
}
