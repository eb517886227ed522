// SPDX-License-Identifier: Apache-2.0

package sources

import "github.com/manormq/manor/tenancy"

// linesKept is of how many files the lines are kept.
const linesKept = 1000

// lines are the users of a file with their hashes. A user whose line is as it was needs no look at
// the stored hash, which takes as long as a CONNECT.
type lines struct {
	// mark is the record's when they were applied: as long as it is the same, no other process
	// has applied anything else.
	mark  string
	users map[string]string
}

// remember keeps the lines of a file that was applied, by whichever process.
func (s *Service) remember(c *change, mark string) {
	if c.kind != tenancy.SourcePasswd {
		return
	}
	if l, ok := s.lines.Get(c.lock()); ok && l.mark == mark {
		return
	}
	users, err := parse(c.text)
	if err != nil {
		return // it was applied by a version that takes it
	}
	s.lines.Add(c.lock(), lines{mark, users})
}

// applied returns the lines of what was applied last, whose mark is the record's; nil if they are
// not known.
func (s *Service) applied(c *change, mark string) map[string]string {
	if l, ok := s.lines.Get(c.lock()); ok && l.mark == mark && mark != "" {
		return l.users
	}
	return nil
}
