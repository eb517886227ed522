// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// Redacted stands where a secret was.
const Redacted = "[redacted]"

// valueMax bounds what a record holds of one value, in bytes of JSON: larger
// ones are told by their length and digest.
const valueMax = 16 << 10

// value writes v as JSON, without what is of type tenancy.Secret: it is the type
// that tells a secret, never the name of a field. nil stays nil.
func value(v any) (json.RawMessage, error) {
	if v = Redact(v); v == nil {
		return nil, nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, errs.New(errs.Internal, "encode for the audit log: %w", err)
	}
	if len(b) > valueMax {
		sum := sha256.Sum256(b)
		b, err = json.Marshal(map[string]any{"bytes": len(b), "sha256": hex.EncodeToString(sum[:])})
	}
	return b, err
}

// Redact returns a copy of v in which every tenancy.Secret is replaced; nil, also a nil
// pointer, is nil.
func Redact(v any) any {
	if v == nil {
		return nil
	}
	if r := reflect.ValueOf(v); r.Kind() == reflect.Pointer && r.IsNil() {
		return nil
	}
	return redact(reflect.ValueOf(v)).Interface()
}

var secretType = reflect.TypeFor[tenancy.Secret]()

// redact returns a copy of v in which every secret is replaced. What holds none
// may be shared with v. Fields that are not exported stay: JSON has none of
// them.
func redact(v reflect.Value) reflect.Value {
	switch v.Kind() {
	case reflect.String:
		if v.Type() == secretType && v.Len() > 0 {
			return reflect.ValueOf(tenancy.Secret(Redacted))
		}
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return v
		}
		in := redact(v.Elem())
		if v.Kind() == reflect.Interface {
			out := reflect.New(v.Type()).Elem()
			out.Set(in)
			return out
		}
		out := reflect.New(v.Type().Elem())
		out.Elem().Set(in)
		return out
	case reflect.Struct:
		out := reflect.New(v.Type()).Elem()
		out.Set(v)
		for i := range v.NumField() {
			if f := out.Field(i); f.CanSet() {
				f.Set(redact(v.Field(i)))
			}
		}
		return out
	case reflect.Slice:
		if v.IsNil() || v.Type().Elem().Kind() == reflect.Uint8 {
			return v
		}
		out := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			out.Index(i).Set(redact(v.Index(i)))
		}
		return out
	case reflect.Array:
		out := reflect.New(v.Type()).Elem()
		for i := range v.Len() {
			out.Index(i).Set(redact(v.Index(i)))
		}
		return out
	case reflect.Map:
		if v.IsNil() {
			return v
		}
		out := reflect.MakeMapWithSize(v.Type(), v.Len())
		for it := v.MapRange(); it.Next(); {
			out.SetMapIndex(redact(it.Key()), redact(it.Value()))
		}
		return out
	default: // holds nothing else
	}
	return v
}
