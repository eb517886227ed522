// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

const (
	// widthMost is the largest width and precision of a verb.
	widthMost = 1000
	// quoteFactor is how many bytes one byte of a value may become when it is quoted, or
	// written in another base.
	quoteFactor = 6
	// verbBytes is for what a verb writes around a value, such as %!d(string=…).
	verbBytes = 32
)

// boundSprintf is of sprintf(format, values): what its verbs write is added up before any
// is written.
func boundSprintf(a *allowance, s size, args []*ast.Term) error {
	values, ok := args[1].Value.(*ast.Array)
	if !ok {
		return nil
	}
	sizes := make([]int, values.Len())
	for i := range sizes {
		v, err := sizeOf(a, values.Elem(i))
		if err != nil {
			return err
		}
		sizes[i] = v.bytes
		if v.elements > 0 {
			sizes[i] = quoteFactor * (v.bytes + v.elements)
		}
	}
	format := textOf(args, 0)
	// What no verb names comes at the end, with its type.
	total := len(format) + s.bytes + quoteFactor*s.elements
	for next := 0; ; {
		var found bool
		if _, format, found = strings.Cut(format, "%"); !found {
			return a.take(result, total, 0)
		}
		v, rest, err := readVerb(format, next)
		if err != nil {
			return err
		}
		format, next = rest, v.arg
		if v.kind == '%' {
			continue
		}
		next++
		total += verbBytes + v.width
		if v.arg < len(sizes) {
			total += v.factor * sizes[v.arg]
		}
		if total > a.text {
			return a.take(result, total, 0)
		}
	}
}

// verb is one of a format.
type verb struct {
	kind byte
	// arg is the value that it writes, width what it may fill up, factor how many bytes it
	// makes of one.
	arg, width, factor int
}

// readVerb reads what comes after a %; next is the value that it writes if it names none.
func readVerb(format string, next int) (v verb, rest string, err error) {
	v = verb{kind: '%', arg: next, factor: 1}
	for i := 0; i < len(format); i++ {
		switch c := format[i]; {
		case c == '*':
			return v, "", errors.New("expected widths and precisions in the format itself, found *")
		case c == '[':
			j := strings.IndexByte(format[i:], ']')
			if j < 0 {
				continue // not an index: written as it is
			}
			if n, err := strconv.Atoi(format[i+1 : i+j]); err == nil && n > 0 {
				v.arg = n - 1
			}
			i += j
		case c >= '0' && c <= '9':
			j := i
			for j < len(format) && format[j] >= '0' && format[j] <= '9' {
				j++
			}
			n, err := strconv.Atoi(format[i:j])
			if err != nil || n > widthMost {
				return v, "", fmt.Errorf("expected widths and precisions of at most %d, found %.20s", widthMost, format[i:j])
			}
			v.width += n * 4 // a width counts letters
			i = j - 1
		case c == '+' || c == '#' || c == ' ':
			v.factor = quoteFactor
		case c == '-' || c == '.':
		default:
			v.kind = c
			if !strings.ContainsRune("svdt", rune(c)) {
				v.factor = quoteFactor
			}
			return v, format[i+1:], nil
		}
	}
	return v, "", nil
}
