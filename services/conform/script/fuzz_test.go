// SPDX-License-Identifier: Apache-2.0

package script

import (
	"testing"

	"github.com/manormq/manor/services/conform/wire"
)

// FuzzParse: no text makes the parser fail in another way than by an error, and
// what it takes can be carried out.
func FuzzParse(f *testing.F) {
	for _, steps := range []string{
		"a connect keep will.topic=@/w will.user=b:1\na > raw 10 (HEAD 03 003C <> ~\"@a\")\na < end 0x81|0x82 within=1s",
		"[5] a < publish @/t \"x\"*3 qos=0..1 id=$x expiry=* user=-\na > puback id=$x\nwait 1s\na quiet 2s",
		"a subscribe filter=@/a qos=1 filter=@/b\na <~ suback 0 0x80..0xFF or end\n# [MQTT-3.3.1-2 of 5.0]\na ws split=3",
	} {
		f.Add("script a: A.\non 3.1.1 5\ncites MQTT-3.12.4-1, section 4.8.2\n" + steps)
	}
	f.Fuzz(func(t *testing.T, text string) {
		scripts, err := Parse("fuzz.txt", text)
		if err != nil {
			return
		}
		for _, s := range scripts {
			if len(s.steps) == 0 || len(s.Versions) == 0 {
				t.Errorf("a script without steps or versions was taken: %q", text)
			}
			for _, st := range s.steps {
				c := &client{run: &run{names: names{"p", map[string]string{}}, o: &Options{}, v: st.versions[0]}}
				if st.verb == send && st.raw == nil {
					if p, err := c.build(st.kind, st.args); err == nil {
						_, _ = wire.Append(nil, st.versions[0], p)
					}
				}
				c.raw(nil, st.raw)
			}
		}
	})
}
