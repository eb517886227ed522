// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// bound refuses arguments, whose size is s, of which a builtin would make too much.
type bound func(a *allowance, s size, args []*ast.Term) error

// bounds are of the builtins that make something of the size of their arguments, or
// larger, or take time for each part of them. Those that are not here look at their
// arguments once at most, and give back a part of them or a word.
var bounds = makeBounds()

func makeBounds() map[string]bound {
	m := map[string]bound{
		"array.flatten": linear, "array.concat": linear, "array.reverse": linear, "array.slice": linear,
		"concat": boundConcat, "format_int": linear, "glob.match": boundGlob, "indexof_n": boundIndexes,
		"net.cidr_contains_matches": boundPairs, "product": boundProduct,
		"regex.find_all_string_submatch_n": boundRegex, "regex.find_n": boundRegex, "regex.match": boundRegex,
		"re_match": boundRegex, "regex.replace": boundRegexReplace, "regex.split": boundRegex, "regex.is_valid": boundPattern,
		"regex.template_match": boundRegex, "replace": boundReplace, "strings.replace_n": boundReplaceN, "split": boundSplit,
		"strings.split_n": boundSplit, "sprintf": boundSprintf, "strings.any_prefix_match": boundAny, "strings.any_suffix_match": boundAny,
		"walk": boundWalk,
	}
	for _, name := range []string{
		"abs", "and", "base64.decode", "base64.encode", "base64url.decode", "base64url.encode", "base64url.encode_no_pad", "ceil", "div", "floor", "glob.quote_meta",
		"gt", "gte", "hex.decode", "hex.encode", "internal.print", "internal.template_string", "intersection", "json.filter", "json.is_valid", "json.marshal", "json.remove", "json.unmarshal", "lower", "lt", "lte", "max", "min",
		"minus", "mul", "net.cidr_merge", "neq", "object.filter", "object.remove", "object.subset", "object.union", "object.union_n", "or", "plus", "rem", "round",
		"semver.compare", "sort", "strings.count", "strings.reverse", "substring", "sum", "time.add_date", "time.clock", "time.date",
		"time.diff", "time.format", "time.parse_duration_ns", "time.parse_ns", "time.parse_rfc3339_ns", "time.weekday", "to_number", "trim", "trim_left", "trim_prefix", "trim_right",
		"trim_space", "trim_suffix", "union", "units.parse", "units.parse_bytes", "upper", "uri.is_valid", "uri.parse", "urlquery.decode", "urlquery.decode_object", "urlquery.encode",
		"urlquery.encode_object", "cast_set", "cast_array", "cast_string", "cast_object",
	} {
		m[name] = linear
	}
	return m
}

// linear is for what makes a few times its arguments at most.
func linear(*allowance, size, []*ast.Term) error { return nil }

// textOf is an argument that is to be a text; another one the builtin itself refuses.
func textOf(args []*ast.Term, i int) string {
	if i < len(args) {
		if s, ok := args[i].Value.(ast.String); ok {
			return string(s)
		}
	}
	return ""
}

// elements is how many elements an argument has itself.
func elements(args []*ast.Term, i int) int {
	switch v := args[i].Value.(type) {
	case *ast.Array:
		return v.Len()
	case ast.Set:
		return v.Len()
	case ast.Object:
		return v.Len()
	}
	return 1
}

const result = "a result"

// boundConcat is of concat(delimiter, texts).
func boundConcat(a *allowance, s size, args []*ast.Term) error {
	return a.take(result, s.bytes+len(textOf(args, 0))*elements(args, 1), 0)
}

// boundReplace is of replace(text, old, new).
func boundReplace(a *allowance, _ size, args []*ast.Term) error {
	t := textOf(args, 0)
	return a.take(result, len(t)+strings.Count(t, textOf(args, 1))*len(textOf(args, 2)), 0)
}

// boundReplaceN is of strings.replace_n(patterns, text): each byte may become the longest of
// what comes instead.
func boundReplaceN(a *allowance, _ size, args []*ast.Term) error {
	longest := 1
	patterns, ok := args[0].Value.(ast.Object)
	if !ok {
		return nil
	}
	patterns.Foreach(func(_, v *ast.Term) {
		if t, ok := v.Value.(ast.String); ok {
			longest = max(longest, len(t))
		}
	})
	return a.take(result, (len(textOf(args, 1))+1)*longest, 0)
}

// boundSplit is of split(text, delimiter).
func boundSplit(a *allowance, _ size, args []*ast.Term) error {
	return a.take(result, 0, strings.Count(textOf(args, 0), textOf(args, 1)))
}

// boundIndexes is of indexof_n(text, search).
func boundIndexes(a *allowance, _ size, args []*ast.Term) error {
	t, search := textOf(args, 0), textOf(args, 1)
	if err := steps(len(search), len(t)); err != nil {
		return err
	}
	return a.take(result, 0, strings.Count(t, search))
}

// boundPairs is of what compares each of one collection with each of another.
func boundPairs(a *allowance, _ size, args []*ast.Term) error {
	return a.take(result, 0, elements(args, 0)*elements(args, 1))
}

// boundAny is of strings.any_prefix_match(texts, prefixes).
func boundAny(_ *allowance, _ size, args []*ast.Term) error {
	return steps(elements(args, 0), elements(args, 1))
}

// boundProduct is of product(numbers).
func boundProduct(_ *allowance, _ size, args []*ast.Term) error {
	if n := elements(args, 0); n > numbersMost {
		return fmt.Errorf("expected at most %d numbers, found %d", numbersMost, n)
	}
	return nil
}

// boundWalk is of walk(value): each path is as long as the value is deep.
func boundWalk(a *allowance, s size, _ []*ast.Term) error {
	if s.depth > depthMost {
		return fmt.Errorf("expected a value of at most %d levels", depthMost)
	}
	return a.take("paths", 0, s.elements)
}

// steps bounds the work of what looks at each part of a text for each part of a pattern.
func steps(pattern, text int) error {
	if n := pattern * text; n > stepsMost {
		return fmt.Errorf("expected the pattern's length times the text's to be at most %d, found %d", stepsMost, n)
	}
	return nil
}

// boundGlob is of glob.match(pattern, delimiters, text).
func boundGlob(_ *allowance, _ size, args []*ast.Term) error {
	p, t := textOf(args, 0), textOf(args, 2)
	if len(p) > patternMost {
		return fmt.Errorf("expected a pattern of at most %d bytes, found %d", patternMost, len(p))
	}
	// Each wildcard, and each alternative, may begin anew at each place of the text.
	if strings.Count(p, "*")+strings.Count(p, "{") > globWildcards && len(t) > globTextMost {
		return fmt.Errorf("expected a text of at most %d bytes for a pattern of more than %d wildcards, found %d", globTextMost, globWildcards, len(t))
	}
	return nil
}

// globTextMost is the longest text that a glob of more than globWildcards is held against.
const (
	globTextMost  = 1024
	globWildcards = 2
)

// boundRegex is of what holds the regular expression of the first argument against the
// text of the second.
func boundRegex(a *allowance, _ size, args []*ast.Term) error {
	p, t := textOf(args, 0), textOf(args, 1)
	n, groups, err := program(p)
	if err != nil {
		return err
	}
	if err := steps(n, len(t)); err != nil {
		return err
	}
	each := groups + 1
	if each*(len(t)+1) <= a.elements {
		return nil
	}
	return a.take(result, 0, each*matches(p, t))
}

// boundRegexReplace is of regex.replace(text, pattern, value): each match may become the
// value, with the match itself as often as the value names it.
func boundRegexReplace(a *allowance, _ size, args []*ast.Term) error {
	t, p, v := textOf(args, 0), textOf(args, 1), textOf(args, 2)
	n, _, err := program(p)
	if err != nil {
		return err
	}
	if err := steps(n, len(t)); err != nil {
		return err
	}
	count := len(t) + 1
	if count*len(v) > a.text {
		count = matches(p, t)
	}
	return a.take(result, len(t)+count*len(v)+strings.Count(v, "$")*len(t), 0)
}

// boundPattern is of regex.is_valid(pattern).
func boundPattern(_ *allowance, _ size, args []*ast.Term) error {
	_, _, err := program(textOf(args, 0))
	return err
}

// matches is how often a regular expression is found in a text.
func matches(pattern, text string) int {
	r, err := regexp.Compile(pattern)
	if err != nil {
		return 0 // the builtin says what is wrong
	}
	return len(r.FindAllStringIndex(text, -1))
}

// program is about how long the program of a regular expression is, repetitions written
// out, and how many groups it has.
func program(pattern string) (n, groups int, err error) {
	if len(pattern) > patternMost {
		return 0, 0, fmt.Errorf("expected a regular expression of at most %d bytes, found %d", patternMost, len(pattern))
	}
	if !strings.ContainsAny(pattern, "{(") {
		return len(pattern), 0, nil
	}
	r, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return len(pattern), 0, nil //nolint:nilerr // the builtin says what is wrong
	}
	return written(r), r.MaxCap(), nil
}

// written is how long an expression is with its repetitions written out.
func written(r *syntax.Regexp) int {
	n := 1 + len(r.Rune)
	for _, sub := range r.Sub {
		n += written(sub)
	}
	if r.Op == syntax.OpRepeat {
		n *= max(r.Min, r.Max, 1)
	}
	return n
}
