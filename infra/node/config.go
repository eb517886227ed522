// SPDX-License-Identifier: Apache-2.0

package node

import (
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/maps"
	kyaml "github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/manormq/manor/infra/errs"
)

// Sources are where a configuration comes from, besides the defaults that it
// holds. The zero value means: nowhere.
type Sources struct {
	// File is the path of a YAML file; empty means none.
	File string
	// Environ is "NAME=value" of which those that begin with MANOR_ are read.
	Environ []string
	// Flags are those made by RegisterFlags, after parsing.
	Flags *pflag.FlagSet
	// Warn, if not nil, hears of environment variables that begin with MANOR_
	// and mean nothing to this role.
	Warn func(text string)
}

// Validator is a configuration that checks itself.
type Validator interface {
	// Validate returns an error that says which key is wrong and what was
	// expected.
	Validate() error
}

// LoadConfig fills cfg, a pointer to a struct that holds the defaults: a flag
// wins over the environment, that over the file, that over the default. An
// unknown key is an error that names the nearest known one; so is an
// environment variable that is nearly the name of a known one, while other
// variables are only told to Warn, because roles share an environment. At the
// end Validate is called if cfg has it. Every error is Invalid.
func LoadConfig(cfg any, src Sources) error {
	fields := fieldsOf(cfg)
	k := koanf.New(".")
	if src.File != "" {
		if err := k.Load(file.Provider(src.File), kyaml.Parser()); err != nil {
			return errs.New(errs.Invalid, "configuration file %s: %w", src.File, err)
		}
		known := keySet(fields)
		if err := unknownKeys(known, "", k.Raw()); err != nil {
			return errs.New(errs.Invalid, "configuration file %s: %w", src.File, err)
		}
	}
	if err := k.Load(rawMap(fromEnviron(fields, src.Environ)), nil); err != nil {
		return errs.New(errs.Invalid, "environment: %w", err)
	}
	if err := strayEnviron(fields, src); err != nil {
		return err
	}
	if src.Flags != nil {
		if err := k.Load(rawMap(fromFlags(fields, src.Flags)), nil); err != nil {
			return errs.New(errs.Invalid, "flags: %w", err)
		}
	}
	dec := &mapstructure.DecoderConfig{
		Result:           cfg,
		TagName:          "yaml",
		Squash:           true,
		WeaklyTypedInput: true,
		DecodeHook: mapstructure.ComposeDecodeHookFunc(
			parseTextOf(),
			mapstructure.StringToTimeDurationHookFunc(),
			mapstructure.TextUnmarshallerHookFunc(),
		),
	}
	for _, f := range fields {
		if f.typ.Kind() == reflect.Slice && f.value.IsValid() && k.Exists(f.key) {
			f.value.SetZero() // a list is set as a whole, and its entries have no defaults
		}
	}
	if err := k.UnmarshalWithConf("", cfg, koanf.UnmarshalConf{Tag: "yaml", DecoderConfig: dec}); err != nil {
		return errs.New(errs.Invalid, "configuration: %w", err)
	}
	if v, ok := cfg.(Validator); ok {
		if err := v.Validate(); err != nil {
			return errs.New(errs.Invalid, "configuration: %w", err)
		}
	}
	return nil
}

// RegisterFlags adds one flag for every key of cfg outside lists:
// operator.listen becomes --operator-listen.
func RegisterFlags(fs *pflag.FlagSet, cfg any) {
	for _, f := range fieldsOf(cfg) {
		if f.inList() {
			continue
		}
		def := defaultText(f.value)
		if f.typ.Kind() == reflect.Bool {
			fs.Bool(f.flag(), f.value.Bool(), f.doc)
			continue
		}
		fs.String(f.flag(), def, f.doc)
	}
}

// rawMap is a koanf.Provider of a nested map.
type rawMap map[string]any

func (m rawMap) ReadBytes() ([]byte, error) {
	return nil, errs.New(errs.Internal, "a map has no bytes")
}

func (m rawMap) Read() (map[string]any, error) { return maps.Unflatten(m, "."), nil }

func fromEnviron(fields []field, environ []string) map[string]any {
	values := map[string]string{}
	for _, e := range environ {
		if name, v, ok := strings.Cut(e, "="); ok {
			values[name] = v
		}
	}
	out := map[string]any{}
	for _, f := range fields {
		if v, ok := values[f.env()]; ok && !f.inList() {
			out[f.key] = v
		}
	}
	return out
}

func fromFlags(fields []field, fs *pflag.FlagSet) map[string]any {
	out := map[string]any{}
	for _, f := range fields {
		if f.inList() {
			continue
		}
		if fl := fs.Lookup(f.flag()); fl != nil && fl.Changed {
			out[f.key] = fl.Value.String()
		}
	}
	return out
}

// ofCommands are the variables of manor's commands, which people export where roles start too.
var ofCommands = map[string]bool{"MANOR_API": true, "MANOR_API_KEY": true, "MANOR_OPERATOR": true}

// strayEnviron looks at variables that begin with MANOR_ and name no key.
func strayEnviron(fields []field, src Sources) error {
	known := map[string]bool{}
	var names []string
	for _, f := range fields {
		if !f.inList() {
			known[f.env()] = true
			names = append(names, f.env())
		}
	}
	for _, e := range src.Environ {
		name, _, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, "MANOR_") || known[name] || ofCommands[name] {
			continue
		}
		if best, d := Nearest(name, names); d <= 2 {
			return errs.New(errs.Invalid, "environment: %s is not known; did you mean %s?", name, best)
		}
		if src.Warn != nil {
			src.Warn("the environment variable " + name + " means nothing to this role")
		}
	}
	return nil
}

// parseTextOf reads a list or a map out of the text of a flag or a variable:
// YAML if it begins like a YAML list or map, else, for lists, the parts between
// commas.
func parseTextOf() mapstructure.DecodeHookFuncType {
	return func(from, to reflect.Type, v any) (any, error) {
		s, ok := v.(string)
		if !ok || from.Kind() != reflect.String || to.Kind() != reflect.Slice && to.Kind() != reflect.Map || to == reflect.TypeFor[[]byte]() {
			return v, nil
		}
		s = strings.TrimSpace(s)
		switch {
		case s == "":
			return reflect.Zero(to).Interface(), nil
		case s[0] == '[' || s[0] == '{' || s[0] == '-':
			var out any
			if err := yaml.Unmarshal([]byte(s), &out); err != nil {
				return nil, errs.New(errs.Invalid, "expected a YAML list or map, found %q: %w", s, err)
			}
			return out, nil
		case to.Kind() == reflect.Slice:
			parts := strings.Split(s, ",")
			for i := range parts {
				parts[i] = strings.TrimSpace(parts[i])
			}
			return parts, nil
		}
		return nil, errs.New(errs.Invalid, "expected a YAML map like {a: 1}, found %q", s)
	}
}

// keySet returns every key and every section of the fields; below a map
// anything goes, which the value true says.
func keySet(fields []field) map[string]bool {
	known := map[string]bool{}
	for _, f := range fields {
		known[f.key] = f.typ.Kind() == reflect.Map
		for i := range len(f.key) {
			if f.key[i] == '.' {
				known[f.key[:i]] = false
			}
		}
	}
	return known
}

// unknownKeys returns an error for the first key below prefix, in alphabetical
// order, that is not known.
func unknownKeys(known map[string]bool, prefix string, m map[string]any) error {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		key := prefix + name
		free, ok := known[key]
		if !ok {
			all := make([]string, 0, len(known))
			for k := range known {
				all = append(all, k)
			}
			slices.Sort(all)
			best, _ := Nearest(key, all)
			return errs.New(errs.Invalid, "the key %q is not known; did you mean %q?", key, best)
		}
		if free {
			continue
		}
		switch v := m[name].(type) {
		case map[string]any:
			if err := unknownKeys(known, key+".", v); err != nil {
				return err
			}
		case []any:
			for _, e := range v {
				entry, ok := e.(map[string]any)
				if !ok {
					continue
				}
				if err := unknownKeys(known, key+"[].", entry); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Nearest returns the candidate with the smallest edit distance to s; the first
// of several.
func Nearest(s string, candidates []string) (best string, distance int) {
	distance = 1 << 30
	for _, c := range candidates {
		if d := editDistance(s, c); d < distance {
			best, distance = c, d
		}
	}
	return best, distance
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// Environ is the environment of this process.
func Environ() []string { return os.Environ() }
