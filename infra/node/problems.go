// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"

	"github.com/manormq/manor/infra/errs"
)

// Problems gathers what is wrong with a configuration, so that its author sees
// all of it at once. The zero Problems has none. It is not for concurrent use.
type Problems []error

// Expect notes what was expected, in the words of fmt.Errorf, unless ok.
func (p *Problems) Expect(ok bool, format string, args ...any) {
	if !ok {
		*p = append(*p, errs.New(errs.Invalid, format, args...))
	}
}

// Add notes err unless it is nil, as a problem of a section.
func (p *Problems) Add(section string, err error) {
	if err != nil {
		*p = append(*p, errs.New(errs.Invalid, "%s%w", section, err))
	}
}

// Err returns nil or an Invalid error with a line for each problem.
func (p *Problems) Err() error {
	switch len(*p) {
	case 0:
		return nil
	case 1:
		return (*p)[0]
	}
	return errs.New(errs.Invalid, "%d problems\n%w", len(*p), errors.Join(*p...))
}
