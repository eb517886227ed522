// SPDX-License-Identifier: Apache-2.0

package statements

import (
	_ "embed"
	"fmt"
	"regexp"
	"strings"
)

// Version is a version of MQTT that numbers its statements. 3.1 does not.
type Version string

// The versions.
const (
	V311 Version = "3.1.1"
	V5   Version = "5.0"
)

// Party is who a statement binds.
type Party string

// The parties. A form that a sender must keep and a receiver must check binds
// both.
const (
	Server    Party = "server"
	Client    Party = "client"
	Both      Party = "both"
	Transport Party = "transport"
)

// Statement is a normative statement of one version.
type Statement struct {
	ID      string // MQTT-3.3.1-2
	Version Version
	Party   Party
	// Same is the statement of 5.0 that asks the same of 3.1.1's, "" if none.
	Same string
	Text string
	// NotApplicable says why a server cannot break it, "" if it can.
	NotApplicable string
}

// Set is the statements of both versions in the order of the specifications,
// immutable after Parse.
type Set struct {
	statements []Statement
	at         map[key]int
}

type key struct {
	version Version
	id      string
}

var (
	//go:embed mqtt311.tsv
	mqtt311 string
	//go:embed mqtt5.tsv
	mqtt5 string
	//go:embed na.tsv
	na string
)

var identifier = regexp.MustCompile(`^MQTT-\d+\.\d+\.\d+-\d+$`)

// Load returns the statements that this package holds.
func Load() (*Set, error) { return Parse(mqtt311, mqtt5, na) }

// Parse reads three tables of tab separated columns: the statements of 3.1.1
// (identifier, party, that of 5.0 which asks the same, text), those of 5.0
// (identifier, party, text), and those that do not apply (identifier, version,
// reason). Lines that begin with # are comments.
func Parse(mqtt311, mqtt5, na string) (*Set, error) {
	s := &Set{at: map[key]int{}}
	err := rows("mqtt311.tsv", mqtt311, 4, func(c []string) error {
		same := c[2]
		if same == "-" {
			same = ""
		}
		return s.add(Statement{ID: c[0], Version: V311, Party: Party(c[1]), Same: same, Text: c[3]})
	})
	if err != nil {
		return nil, err
	}
	err = rows("mqtt5.tsv", mqtt5, 3, func(c []string) error {
		return s.add(Statement{ID: c[0], Version: V5, Party: Party(c[1]), Text: c[2]})
	})
	if err != nil {
		return nil, err
	}
	for _, st := range s.statements {
		if _, ok := s.at[key{V5, st.Same}]; st.Same != "" && !ok {
			return nil, fmt.Errorf("mqtt311.tsv: %s names %s, expected a statement of 5.0", st.ID, st.Same)
		}
	}
	return s, rows("na.tsv", na, 3, func(c []string) error {
		i, ok := s.at[key{Version(c[1]), c[0]}]
		if !ok {
			return fmt.Errorf("%s of %s is not a statement", c[0], c[1])
		}
		s.statements[i].NotApplicable = c[2]
		return nil
	})
}

func (s *Set) add(st Statement) error {
	k := key{st.Version, st.ID}
	_, twice := s.at[k]
	switch {
	case !identifier.MatchString(st.ID):
		return fmt.Errorf("%q, expected an identifier as MQTT-1.5.4-1", st.ID)
	case twice:
		return fmt.Errorf("%s stands twice", st.ID)
	case st.Party != Server && st.Party != Client && st.Party != Both && st.Party != Transport:
		return fmt.Errorf("%s has the party %q, expected server, client, both or transport", st.ID, st.Party)
	}
	s.at[k] = len(s.statements)
	s.statements = append(s.statements, st)
	return nil
}

// rows calls each with the columns of every line of a table.
func rows(name, text string, columns int, each func([]string) error) error {
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		c := strings.Split(line, "\t")
		if len(c) != columns {
			return fmt.Errorf("%s:%d has %d columns, expected %d", name, n, len(c), columns)
		}
		for _, text := range c {
			if strings.TrimSpace(text) != text || text == "" {
				return fmt.Errorf("%s:%d: a column is empty or padded", name, n)
			}
		}
		if err := each(c); err != nil {
			return fmt.Errorf("%s:%d: %w", name, n, err)
		}
	}
	return nil
}

// Resolve returns the statements that a citation means, none if it means
// nothing. The package comment says how a number without a version is read.
func (s *Set) Resolve(c Citation) []Statement {
	if c.Version != "" {
		if i, ok := s.at[key{c.Version, c.ID}]; ok {
			return s.statements[i : i+1]
		}
		return nil
	}
	var out []Statement
	newer, has5 := s.at[key{V5, c.ID}]
	if has5 {
		out = append(out, s.statements[newer])
	}
	if older, ok := s.at[key{V311, c.ID}]; ok && (!has5 || s.statements[older].Same == c.ID) {
		out = append(out, s.statements[older])
	}
	return out
}
