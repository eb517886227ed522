// SPDX-License-Identifier: Apache-2.0

package script

import (
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/manormq/manor/services/conform/statements"
	"github.com/manormq/manor/services/conform/wire"
)

// Script is a conversation. It is immutable after Parse.
type Script struct {
	Name     string // of its file and its own, as retain/empty-removes
	Title    string // what the broker does if it passes
	File     string
	Line     int
	Versions []wire.Version
	// Needs is what a broker must have, or must not have: one of needs; "" is
	// nothing.
	Needs string

	cites []cite
	steps []step
}

// cite is a line that cites statements, or sections where the specification
// numbers none.
type cite struct {
	line     int
	all      []statements.Citation
	sections []string
}

// step is a line that is carried out.
type step struct {
	line     int
	text     string
	versions []wire.Version
	client   string
	verb     verb
	kind     wire.Kind // of the packet; 0 with raw bytes, and with end
	args     []arg
	raw      []atom
	last     time.Duration // how long it goes on, or may take; 0 is the default
	after    time.Duration // how long it takes at the least
	orEnd    bool          // the end of the connection will do, too
}

// verb is what a client does.
type verb string

// The verbs. The first five are packets, the others are steps of several.
const (
	send     verb = ">"
	expect   verb = "<"
	perhaps  verb = "<?"
	anyOrder verb = "<~"
	later    verb = "<+"

	connect     verb = "connect"
	subscribe   verb = "subscribe"
	unsubscribe verb = "unsubscribe"
	publish     verb = "publish"
	receive     verb = "receive"
	copies      verb = "copies"
	disconnect  verb = "disconnect"
	ping        verb = "ping"
	drop        verb = "drop"
	quiet       verb = "quiet"
	framing     verb = "ws"
	wait        verb = "wait"
)

// macros are the verbs of several packets, with the packet whose fields they
// take.
var macros = map[verb]wire.Kind{
	connect: wire.Connect, subscribe: wire.Subscribe, unsubscribe: wire.Unsubscribe, publish: wire.Publish, receive: wire.Publish,
	copies:     wire.Publish,
	disconnect: wire.Disconnect,
}

//go:embed scripts/*.txt
var folder embed.FS

// Load returns the scripts of this package by name.
func Load() ([]*Script, error) {
	files, err := fs.Glob(folder, "scripts/*.txt")
	if err != nil {
		return nil, err
	}
	var all []*Script
	for _, name := range files {
		text, err := fs.ReadFile(folder, name)
		if err != nil {
			return nil, err
		}
		some, err := Parse(path.Base(name), string(text))
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// Parse reads the scripts of a file. Its errors name the line and what was
// expected in it.
func Parse(file, text string) ([]*Script, error) {
	p := &parser{file: file}
	for line := range strings.Lines(text) {
		p.line++
		if err := p.read(strings.TrimSpace(line)); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, p.line, err)
		}
	}
	if err := p.end(); err != nil {
		return nil, fmt.Errorf("%s:%d: %w", file, p.line, err)
	}
	return p.scripts, nil
}

type parser struct {
	file    string
	line    int
	scripts []*Script
	s       *Script // the one that is being read
}

var (
	title    = regexp.MustCompile(`^script ([a-z0-9-]+): (.+)$`)
	section  = regexp.MustCompile(`section \d+(\.\d+)*`)
	named    = regexp.MustCompile(`^[a-z][a-z0-9]*$`)
	byName   = map[string]wire.Version{"3.1": wire.V31, "3.1.1": wire.V311, "5": wire.V5}
	prefixed = regexp.MustCompile(`^\[([^\]]*)\]\s+(.*)$`)
)

// read takes one line.
func (p *parser) read(line string) error {
	word, rest, _ := strings.Cut(line, " ")
	switch {
	case line == "":
		return nil
	case word == "script":
		if err := p.end(); err != nil {
			return err
		}
		m := title.FindStringSubmatch(line)
		if m == nil {
			return fmt.Errorf("%q: expected \"script NAME: TITLE\", the name in small letters, digits and -", line)
		}
		name := strings.TrimSuffix(p.file, ".txt") + "/" + m[1]
		if slices.ContainsFunc(p.scripts, func(s *Script) bool { return s.Name == name }) {
			return fmt.Errorf("the name %s stands twice", m[1])
		}
		p.s = &Script{Name: name, Title: m[2], File: p.file, Line: p.line}
		p.scripts = append(p.scripts, p.s)
		return nil
	case strings.HasPrefix(line, "#"):
		if p.s != nil {
			p.cite(line)
		}
		return nil
	case p.s == nil:
		return fmt.Errorf("%q: expected a script, \"script NAME: TITLE\"", line)
	case word == "on":
		return p.on(rest)
	case word == "cites":
		if !p.cite(rest) {
			return fmt.Errorf("%q: expected statements, as MQTT-3.3.1-2, or sections, as section 4.8.2", rest)
		}
		return nil
	case word == "needs":
		if _, ok := needs[rest]; !ok || p.s.Needs != "" {
			return fmt.Errorf("%q: expected one of %s, once", rest, strings.Join(slices.Sorted(maps.Keys(needs)), ", "))
		}
		p.s.Needs = rest
		return nil
	}
	if len(p.s.Versions) == 0 {
		return fmt.Errorf("expected the versions of the script before its steps, as \"on 3.1.1 5\"")
	}
	st, err := p.step(line)
	if err != nil {
		return err
	}
	p.s.steps = append(p.s.steps, st)
	return nil
}

// cite takes what a line cites, if anything.
func (p *parser) cite(line string) bool {
	c := cite{p.line, statements.Cited(line), section.FindAllString(line, -1)}
	if len(c.all)+len(c.sections) == 0 {
		return false
	}
	p.s.cites = append(p.s.cites, c)
	return true
}

// end looks at the script that was read.
func (p *parser) end() error {
	switch {
	case p.s == nil:
		return nil
	case len(p.s.Versions) == 0:
		return fmt.Errorf("script %s: expected its versions, as \"on 3.1.1 5\"", p.s.Name)
	case len(p.s.steps) == 0:
		return fmt.Errorf("script %s: expected steps", p.s.Name)
	case len(p.s.cites) == 0 && slices.ContainsFunc(p.s.Versions, func(v wire.Version) bool { return v != wire.V31 }):
		return fmt.Errorf("script %s: expected statements, as \"cites MQTT-3.3.1-2\"", p.s.Name)
	}
	return nil
}

func (p *parser) on(list string) (err error) {
	p.s.Versions, err = versions(list)
	return err
}

func versions(list string) (all []wire.Version, err error) {
	for name := range strings.FieldsSeq(list) {
		v, ok := byName[name]
		if name == "3" {
			all = append(all, wire.V31, wire.V311)
			continue
		}
		if !ok || slices.Contains(all, v) {
			return nil, fmt.Errorf("version %q: expected 3.1, 3.1.1 and 5, each once, or 3 for the first two", name)
		}
		all = append(all, v)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("expected versions, as 3.1.1 5")
	}
	return all, nil
}

// step reads "[VERSIONS] CLIENT VERB ARGUMENTS".
func (p *parser) step(line string) (step, error) {
	st := step{line: p.line, text: line, versions: p.s.Versions}
	if m := prefixed.FindStringSubmatch(line); m != nil {
		some, err := versions(m[1])
		if err != nil {
			return st, err
		}
		st.versions = slices.DeleteFunc(some, func(v wire.Version) bool { return !slices.Contains(p.s.Versions, v) })
		if len(st.versions) == 0 {
			return st, fmt.Errorf("[%s]: expected a version that the script is on", m[1])
		}
		line = m[2]
	}
	if words := strings.Fields(line); len(words) > 2 && words[1] == string(send) && words[2] == "raw" {
		_, bytes, _ := strings.Cut(line, " raw")
		st.client, st.verb = words[0], send
		var err error
		st.raw, err = atoms(bytes)
		return st, err
	}
	toks, err := tokens(line)
	if err != nil {
		return st, err
	}
	if toks[0].bare("wait") {
		st.verb = wait
		st.last, err = duration(toks[1:])
		return st, err
	}
	if len(toks) < 2 || !named.MatchString(toks[0].text) {
		return st, fmt.Errorf("%q: expected a client and what it does, as \"a connect\"", line)
	}
	st.client, st.verb = toks[0].text, verb(toks[1].text)
	return st, p.verb(&st, toks[2:])
}

func duration(toks []token) (time.Duration, error) {
	if len(toks) != 1 || toks[0].name != "" {
		return 0, fmt.Errorf("expected a time, as 300ms")
	}
	return length(toks[0].text)
}

func length(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q: expected a time, as 300ms", s)
	}
	return d, nil
}

// verb reads what follows the client.
func (p *parser) verb(st *step, toks []token) (err error) {
	switch st.verb {
	case send, expect, perhaps, anyOrder, later:
		return p.packet(st, toks)
	case connect, subscribe, unsubscribe, publish, receive, copies, disconnect:
		st.kind = macros[st.verb]
		return p.arguments(st, toks)
	case quiet:
		if len(toks) > 0 {
			st.last, err = duration(toks)
		}
		return err
	case framing:
		return p.arguments(st, toks)
	case drop, ping:
		if len(toks) > 0 {
			return fmt.Errorf("%q: expected nothing after %s", toks[0].text, st.verb)
		}
		return nil
	case wait:
	}
	return fmt.Errorf("%q: expected one of > < <? <~ <+ connect subscribe unsubscribe publish receive copies disconnect ping drop quiet ws", st.verb)
}

// packet reads what follows > and <.
func (p *parser) packet(st *step, toks []token) error {
	if len(toks) == 0 {
		return fmt.Errorf("expected a packet after %s", st.verb)
	}
	name := toks[0].text
	switch {
	case name == "end" && st.verb == expect:
		return p.arguments(st, toks[1:])
	}
	if st.kind = wire.KindOf(name); st.kind == 0 {
		return fmt.Errorf("%q: expected a packet, as publish, or \"> raw\" or \"< end\"", name)
	}
	return p.arguments(st, toks[1:])
}

// Version returns the version of that name: 3.1, 3.1.1 or 5.
func Version(name string) (wire.Version, error) {
	if v, ok := byName[name]; ok {
		return v, nil
	}
	return 0, fmt.Errorf("%q: expected 3.1, 3.1.1 or 5", name)
}
