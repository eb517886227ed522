// SPDX-License-Identifier: Apache-2.0

package script

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// token is a word of a line: name=text, or text alone. A text in quotes means
// itself.
type token struct {
	name, text string
	quoted     bool
}

func (t token) bare(text string) bool { return t.name == "" && !t.quoted && t.text == text }

// tokens splits a line. It has one at the least.
func tokens(line string) (all []token, err error) {
	for rest := line; ; {
		rest = strings.TrimLeft(rest, " \t")
		if rest == "" {
			return all, nil
		}
		var t token
		if i := strings.IndexAny(rest, "= \t\""); i > 0 && rest[i] == '=' {
			t.name, rest = rest[:i], rest[i+1:]
		}
		if !strings.HasPrefix(rest, `"`) {
			i := strings.IndexAny(rest, " \t")
			if i < 0 {
				i = len(rest)
			}
			t.text, rest = rest[:i], rest[i:]
		} else if t.quoted = true; true {
			if t.text, rest, err = quoted(rest); err != nil {
				return nil, err
			}
			if rest != "" && !strings.ContainsAny(rest[:1], " \t") {
				return nil, fmt.Errorf("%q: expected a space after the quotes", rest)
			}
		}
		all = append(all, t)
	}
}

// quoted reads a text in quotes, which *NUMBER repeats, and returns what follows.
func quoted(s string) (text, rest string, err error) {
	q, err := strconv.QuotedPrefix(s)
	if err != nil {
		return "", "", fmt.Errorf("%s: expected a text in quotes", s)
	}
	if text, err = strconv.Unquote(q); err != nil {
		return "", "", fmt.Errorf("%s: expected a text in quotes", s)
	}
	rest = s[len(q):]
	if times, ok := strings.CutPrefix(rest, "*"); ok {
		end := strings.IndexFunc(times, func(r rune) bool { return r < '0' || r > '9' })
		if end < 0 {
			end = len(times)
		}
		n, err := strconv.Atoi(times[:end])
		if err != nil || n*len(text) > 1<<20 {
			return "", "", fmt.Errorf("%s: expected a number after *, for up to a MiB", times)
		}
		text, rest = strings.Repeat(text, n), times[end:]
	}
	return text, rest, nil
}

// atom is a part of raw bytes.
type atom struct {
	kind  atomKind
	bytes string // of literal and sized
	in    []atom // of group
}

type atomKind byte

const (
	literal  atomKind = iota // bytes as they are
	expanded                 // bytes in which @ is the script's prefix
	sized                    // a string with its length in two bytes, @ expanded
	group                    // ( … ): what it holds, behind its length as a variable byte integer
	nothing                  // <>: the length 0 of no properties, for 5.0 only
	head                     // HEAD: protocol name and level of the version
)

// atoms reads raw bytes: hexadecimal digits, "text", ~"string", ( … ), <> and
// HEAD.
func atoms(s string) ([]atom, error) {
	all, rest, err := atomsUntil(s, false)
	if err == nil && rest != "" {
		err = fmt.Errorf("%q: expected the end", rest)
	}
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("expected bytes after raw")
	}
	return all, err
}

func atomsUntil(s string, inner bool) (all []atom, rest string, err error) {
	for {
		s = strings.TrimLeft(s, " \t")
		var a atom
		switch {
		case s == "" && inner:
			return nil, "", fmt.Errorf("expected )")
		case s == "" || inner && s[0] == ')':
			return all, strings.TrimPrefix(s, ")"), nil
		case s[0] == '(':
			a.kind = group
			if a.in, s, err = atomsUntil(s[1:], true); err != nil {
				return nil, "", err
			}
		case strings.HasPrefix(s, `~"`), s[0] == '"':
			a.kind = expanded
			if s[0] == '~' {
				a.kind, s = sized, s[1:]
			}
			if a.bytes, s, err = quoted(s); err != nil {
				return nil, "", err
			}
		case strings.HasPrefix(s, "<>"):
			a.kind, s = nothing, s[2:]
		case strings.HasPrefix(s, "HEAD"):
			a.kind, s = head, s[4:]
		default:
			end := strings.IndexAny(s, " \t()\"~<")
			if end < 0 {
				end = len(s)
			}
			b, err := hex.DecodeString(s[:end])
			if err != nil || end == 0 {
				return nil, "", fmt.Errorf("%q: expected hexadecimal digits, \"text\", ~\"string\", ( ), <> or HEAD", s)
			}
			a.bytes, s = string(b), s[end:]
		}
		all = append(all, a)
	}
}
