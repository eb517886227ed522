// SPDX-License-Identifier: Apache-2.0

package script

import (
	"strings"
	"testing"

	"github.com/manormq/manor/services/conform/wire"
)

// TestParse_Refuses: a script with a typing error is refused, with its line and
// what was expected.
func TestParse_Refuses(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"a connect claen", `"claen": expected a field of connect, as name=value`},
		{"a connect clean=yes", "clean=yes: expected a number"},
		{"a connect expiry=1", `"expiry": expected a field of connect`},
		{"a connect session=1", "session: connect has it in 5.0 only; expected [5] before the line"},
		{"a publish @/t x retian", `"retian": expected a field of publish`},
		{"a publish @/t \"x", "expected a text in quotes"},
		{"a publish @/t \"x\"y", "expected a space after the quotes"},
		{"a publish @/t \"x\"*", "expected a number after *"},
		{"a publish @/t topic=", "topic: expected a value"},
		{"a pbulish @/t x", `"pbulish": expected one of > < <? <~ <+ connect`},
		{"a > pbulish @/t x", `"pbulish": expected a packet`},
		{"a >", "expected a packet after >"},
		{"[5] a < puback 1..x", "expected a number, 0|0x10, 1..5, * or -"},
		{"a < puback 0x80", "puback has it in 5.0 only"},
		{"a < end soon", `"soon": expected a number, 0|0x10`},
		{"a < end 1 2", "expected codes"},
		{"a < pingresp within=5", `"5": expected a time, as 300ms`},
		{"a quiet long", `"long": expected a time`},
		{"a ping now", `"now": expected nothing after ping`},
		{"a ws mask=0", "expected split=BYTES, text=1 or protocol=NAME"},
		{"wait", "expected a time, as 300ms"},
		{"A connect", "expected a client and what it does"},
		{"connect", "expected a client and what it does"},
		{"[3.1] a connect", "[3.1]: expected a version that the script is on"},
		{"[4] a connect", `version "4": expected 3.1, 3.1.1 and 5`},
		{"a > raw 1", "expected hexadecimal digits"},
		{"a > raw (00", "expected )"},
		{"a > raw 00)", "expected hexadecimal digits"},
		{"a > raw", "expected bytes after raw"},
		{"script Bad Name", "expected \"script NAME: TITLE\""},
		{"script one: Again.", "the name one stands twice"},
		{"cites 3.1.2-1", "expected statements, as MQTT-3.3.1-2"},
		{"needs luck", "expected one of alias, login, maxqos, noretain, shared, silent, subids, websocket, once"},
		{"on 3.1.1 3.1.1", "each once"},
	} {
		text := "script one: One.\non 3.1.1 5\ncites MQTT-3.12.4-1\na connect\n" + c.line + "\n"
		_, err := Parse("test.txt", text)
		if err == nil || !strings.HasPrefix(err.Error(), "test.txt:5: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error at test.txt:5 with %q", c.line, err, c.want)
		}
	}
	for _, c := range []struct{ text, want string }{
		{"a connect", "test.txt:1: \"a connect\": expected a script"},
		{"script a: A.\na connect", "test.txt:2: expected the versions of the script before its steps"},
		{"script a: A.\non 5\na connect", "test.txt:3: script test/a: expected statements"},
		{"script a: A.\non 5\ncites MQTT-3.1.0-1", "test.txt:3: script test/a: expected steps"},
		{"script a: A.\n\nscript b: B.", "test.txt:3: script test/a: expected its versions"},
	} {
		if _, err := Parse("test.txt", c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
}

// TestRun_Variable: a variable that nothing has set is an error of the script.
func TestRun_Variable(t *testing.T) {
	c := &client{run: &run{names: names{vars: map[string]string{}}, o: &Options{}}}
	if _, err := c.build(wire.Pubrel, []arg{{"id", "$nothing", false}}); err == nil || !strings.Contains(err.Error(), "$nothing: expected a variable") {
		t.Error(err)
	}
}
