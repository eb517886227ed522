// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"slices"
	"strings"

	"github.com/manormq/manor/infra/errs"
)

// Subject is who connects, as policies and placeholders see it. It is a plain
// value.
type Subject struct {
	ClientID string `json:"id"`
	Username string `json:"user"`
	// CommonName is that of the client's certificate, or empty.
	CommonName string `json:"cn,omitempty"`
	// Groups are those of the device.
	Groups []string `json:"groups,omitempty"`
	// Claims are those of the token with which it was authenticated.
	Claims map[string]string `json:"claims,omitempty"`
}

// pattern is a level of a grant's filter that has placeholders.
type pattern struct {
	text  string
	parts []part
}

// part is text, or a placeholder if kind is not 0: one of c, u, n (%cn), l
// (%claim.) and g.
type part struct {
	kind byte
	text string // or the name of the claim
}

// placeholders are the names after %, the longer ones first.
var placeholders = []struct {
	name string
	kind byte
}{{"claim.", 'l'}, {"cn", 'n'}, {"c", 'c'}, {"u", 'u'}, {"group", 'g'}}

// parseLevel returns the pattern of a level, nil if it has no placeholder; then
// literal is the level without its escapes. It must be a validLevel.
func parseLevel(level string) (p *pattern, literal string) {
	if !strings.Contains(level, "%") {
		return nil, level
	}
	p = &pattern{text: level}
	for rest := level; rest != ""; {
		before, after, found := strings.Cut(rest, "%")
		literal += before
		if !found {
			break
		}
		if tail, ok := strings.CutPrefix(after, "%"); ok {
			literal, rest = literal+"%", tail
			continue
		}
		kind, name, tail := cutPlaceholder(after)
		if literal != "" {
			p.parts = append(p.parts, part{text: literal})
			literal = ""
		}
		p.parts = append(p.parts, part{kind, name})
		rest = tail
	}
	if len(p.parts) == 0 {
		return nil, literal
	}
	if literal != "" {
		p.parts = append(p.parts, part{text: literal})
	}
	return p, ""
}

// cutPlaceholder reads the placeholder at the front of s, after its %. The kind is
// 0 if there is none.
func cutPlaceholder(s string) (kind byte, name, tail string) {
	for _, p := range placeholders {
		tail, ok := strings.CutPrefix(s, p.name)
		if !ok {
			continue
		}
		n := 0
		if p.kind == 'l' {
			for n < len(tail) && claimCharacter(tail[n]) {
				n++
			}
			if n == 0 {
				break
			}
		}
		return p.kind, tail[:n], tail[n:]
	}
	return 0, "", s
}

func claimCharacter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// validLevel checks the placeholders of a level.
func validLevel(level string) error {
	groups := 0
	for rest := level; ; {
		_, after, found := strings.Cut(rest, "%")
		if !found {
			break
		}
		if tail, ok := strings.CutPrefix(after, "%"); ok {
			rest = tail
			continue
		}
		kind, _, tail := cutPlaceholder(after)
		if kind == 0 {
			return errs.Coded(errs.Invalid, "grant_invalid", "expected one of the placeholders %%c, %%u, %%cn, %%claim.NAME and %%group, or %%%% for a per cent sign, found %q", "%"+after)
		}
		if kind == 'g' {
			groups++
		}
		rest = tail
	}
	if groups > 1 {
		return errs.Coded(errs.Invalid, "grant_invalid", "expected at most one %%group in a level, found %q", level)
	}
	return nil
}

// expansion is what a level with placeholders stands for, for one client: any of
// the texts. unsafe says that a value was missing, or had what could make a filter
// wider: then an allow does not apply, and a deny applies to all that begins there.
type expansion struct {
	texts  []string
	unsafe bool
}

func (x *expansion) has(level []byte) bool {
	return slices.ContainsFunc(x.texts, func(t string) bool { return t == string(level) })
}

// expand says what the level stands for.
func (p *pattern) expand(who *Subject) (x expansion) {
	groups := []string{""}
	if slices.ContainsFunc(p.parts, func(q part) bool { return q.kind == 'g' }) {
		groups = who.Groups
	}
	for _, group := range groups {
		text, ok := p.text1(who, group)
		if !ok {
			x.unsafe = true
		} else if !slices.Contains(x.texts, text) {
			x.texts = append(x.texts, text)
		}
	}
	return x
}

// text1 is the level for one group; ok says that every value is safe.
func (p *pattern) text1(who *Subject, group string) (text string, ok bool) {
	for _, q := range p.parts {
		v := q.text
		switch q.kind {
		case 'c':
			v = who.ClientID
		case 'u':
			v = who.Username
		case 'n':
			v = who.CommonName
		case 'l':
			v = who.Claims[q.text]
		case 'g':
			v = group
		}
		if q.kind != 0 && !safeValue(v) {
			return "", false
		}
		text += v
	}
	return text, true
}

// safeValue reports whether a value can stand in a level: it is there, and has
// nothing that ends the level, makes it a wildcard, or begins a topic of the
// server's.
func safeValue(v string) bool { return v != "" && !strings.ContainsAny(v, "+#/$\x00") }
