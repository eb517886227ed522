// SPDX-License-Identifier: Apache-2.0

package script

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/manormq/manor/services/conform/wire"
)

// arg is a field that is sent, or what is expected of one.
type arg struct {
	name   string
	text   string
	quoted bool
}

// variable is the name of the variable that a stands for, "" if it stands for
// itself.
func (a arg) variable() string {
	if m := variable.FindStringSubmatch(a.text); m != nil && !a.quoted {
		return m[1]
	}
	return ""
}

// variable is how one is written; $SYS/x and $share/a/b are not.
var variable = regexp.MustCompile(`^\$([a-z][a-z0-9]*)$`)

// places are the fields that words without a name go to, in their order; … is
// the one before it again.
var places = map[wire.Kind][]string{
	wire.Publish: {"topic", "payload"}, wire.Subscribe: {"filter"}, wire.Unsubscribe: {"filter", "…"}, wire.Connack: {"code"},
	wire.Suback: {"code", "…"}, wire.Unsuback: {"code", "…"}, wire.Disconnect: {"code"}, wire.Auth: {"code"},
	wire.Puback: {"code"}, wire.Pubrec: {"code"}, wire.Pubrel: {"code"}, wire.Pubcomp: {"code"},
}

// flags are the words that set a field to 1.
var flags = []string{"clean", "present", "retain", "dup", "nolocal", "rap", "will.retain"}

// arguments reads the fields of a step and holds them to those that its packet
// has on all versions that it runs on.
func (p *parser) arguments(st *step, toks []token) error {
	place := 0
	if n := len(toks); st.verb == expect && st.kind != 0 && n >= 2 && toks[n-2].bare("or") && toks[n-1].bare("end") {
		st.orEnd, toks = true, toks[:n-2]
	}
	for _, t := range toks {
		a := arg(t)
		switch {
		case st.receives() && (t.name == "within" || t.name == "after"):
			d, err := length(t.text)
			if err != nil {
				return err
			}
			if t.name == "within" {
				st.last = d
			} else {
				st.after = d
			}
			continue
		case st.verb == framing:
			if !slices.Contains([]string{"split", "text", "protocol"}, t.name) {
				return fmt.Errorf("%q: expected split=BYTES, text=1 or protocol=NAME", t.text)
			}
			st.args = append(st.args, a)
			continue
		case st.kind == 0: // end
			a.name = "code"
			if t.name != "" || len(st.args) > 0 {
				return fmt.Errorf("%s=%s: expected codes, as 0x81|0x82, within= or after=", t.name, t.text)
			}
		case t.name == "" && !t.quoted && slices.Contains(flags, t.text):
			a = arg{t.text, "1", false}
		case t.bare("keep") && st.kind == wire.Connect:
			a = arg{"keep", "1", false}
		case t.name == "":
			names := places[st.kind]
			if place < len(names) && names[place] == "…" {
				place--
			}
			if place >= len(names) {
				return fmt.Errorf("%q: expected a field of %s, as name=value", t.text, st.kind)
			}
			a.name = names[place]
			place++
		}
		if err := st.holds(a); err != nil {
			return err
		}
		st.args = append(st.args, a)
	}
	return nil
}

// receives reports whether st waits for packets.
func (st *step) receives() bool {
	return slices.Contains([]verb{expect, perhaps, anyOrder, later, receive, copies}, st.verb)
}

// holds checks that the packet of st has the field of a.
func (st *step) holds(a arg) error {
	if st.kind == 0 {
		_, err := numbers(a.text)
		return err
	}
	if a.name == "keep" || st.verb == connect && a.name == "present" {
		return nil
	}
	t, only5, ok := wire.Of(st.kind, a.name)
	switch {
	case !ok:
		return fmt.Errorf("%q: expected a field of %s", a.name, st.kind)
	case only5 && (len(st.versions) != 1 || st.versions[0] != wire.V5):
		return fmt.Errorf("%s: %s has it in 5.0 only; expected [5] before the line", a.name, st.kind)
	case a.text == "" && !a.quoted:
		return fmt.Errorf("%s: expected a value", a.name)
	case !t.Numeric() || a.variable() != "":
		return nil
	}
	if st.receives() {
		_, err := numbers(a.text)
		return err
	}
	if a.text == "-" {
		return nil
	}
	if _, err := wire.Number(a.text); err != nil {
		return fmt.Errorf("%s=%s: expected a number", a.name, a.text)
	}
	return nil
}
