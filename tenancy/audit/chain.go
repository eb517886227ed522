// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bufio"
	"bytes"
	"crypto/subtle"
	"fmt"
	"io"

	"github.com/manormq/manor/infra/errs"
)

// Chain checks records in the order of their numbers. The zero value begins
// anywhere: what retention removed before the first record cannot be checked.
// It is a plain value.
type Chain struct {
	// First and Last are the numbers of the records so far, 0 for none.
	First, Last uint64
	// Head is the hash of the last one.
	Head         string
	organization string
}

// Add checks the next record. The error is Invalid and says which record is
// wrong and how; the chain stays as it was.
func (c *Chain) Add(r Record) error {
	sum, err := r.sum()
	if err != nil {
		return err
	}
	wrong := func(format string, args ...any) error {
		return errs.Coded(errs.Invalid, "audit_broken", "audit record %d: %s", r.N, fmt.Sprintf(format, args...))
	}
	switch {
	case subtle.ConstantTimeCompare([]byte(sum), []byte(r.Hash)) != 1:
		return wrong("its content does not have the hash that it says")
	case c.First == 0 && r.N == 0:
		return wrong("expected a number from 1")
	case c.First == 0 && (r.N == 1) != (r.Previous == ""):
		return wrong("expected the hash of the record before in all but the first")
	case c.First != 0 && r.N != c.Last+1:
		return wrong("expected record %d", c.Last+1)
	case c.First != 0 && r.Previous != c.Head:
		return wrong("it does not follow the record before")
	case c.First != 0 && r.Organization != c.organization:
		return wrong("it is of another organization")
	}
	if c.First == 0 {
		c.First, c.organization = r.N, r.Organization
	}
	c.Last, c.Head = r.N, r.Hash
	return nil
}

// lineMax is the longest line of an export, in bytes.
const lineMax = 1 << 20

// VerifyExport reads an export, one record in JSON a line, and checks its chain.
// The error is Invalid where the chain or the form is wrong, and else that of
// the reader.
func VerifyExport(r io.Reader) (Chain, error) {
	var c Chain
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, lineMax)
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		rec, err := Decode(lines.Bytes())
		if err != nil {
			return c, errs.New(errs.Invalid, "line %d: %w", n, err)
		}
		if err := c.Add(rec); err != nil {
			return c, err
		}
	}
	return c, lines.Err()
}
