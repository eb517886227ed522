// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// origins is a tracer that notes which rule has made which value of mqtt.grants.
type origins struct {
	at    map[string]string // file:line by the value in JSON
	whole string            // of a rule that makes all of them
}

// Enabled implements topdown.QueryTracer.
func (*origins) Enabled() bool { return true }

// Config implements topdown.QueryTracer.
func (*origins) Config() topdown.TraceConfig { return topdown.TraceConfig{} }

var grantsRef = ast.MustParseRef(grantsRule)

// TraceEvent implements topdown.QueryTracer.
func (o *origins) TraceEvent(e topdown.Event) {
	rule, ok := e.Node.(*ast.Rule)
	if !ok || e.Op != topdown.ExitOp || rule.Location == nil || !rule.Ref().Equal(grantsRef) {
		return
	}
	where := fmt.Sprintf("%s:%d", rule.Location.File, rule.Location.Row)
	if rule.Head.Key == nil {
		o.whole = where
		return
	}
	v, err := ast.JSON(e.Plug(rule.Head.Key).Value)
	if err != nil {
		return
	}
	if b, err := json.Marshal(v); err == nil && o.at[string(b)] == "" {
		o.at[string(b)] = where
	}
}

// of is where a value was made, empty if that is not known.
func (o *origins) of(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	if at := o.at[string(b)]; at != "" {
		return at
	}
	return o.whole
}

// located is a fault at file:line.
func located(where, message string) error {
	f := Fault{Message: strings.TrimPrefix(message, where+": ")}
	if file, line, ok := strings.Cut(where, ":"); ok {
		f.File, f.Column = file, 1
		f.Line, _ = strconv.Atoi(line)
	}
	return &FaultsError{[]Fault{f}}
}

func errsAs[E error](err error) (e E, ok bool) {
	ok = errors.As(err, &e)
	return e, ok
}
