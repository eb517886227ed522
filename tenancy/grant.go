// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"strings"

	"github.com/manormq/manor/infra/errs"
)

// Grant is what a connection may publish and subscribe to: two lists of topic
// filters. What no filter allows is denied. It is immutable and may be used
// concurrently; its checks do not allocate.
type Grant struct {
	// Revision names the policy that the grant was made from.
	Revision  uint64
	publish   []string
	subscribe []string
	// everything says that the lists are {"#"} each, the common case.
	everything bool
}

// defaultGrant is shared: a grant has no state.
var defaultGrant = &Grant{Revision: 1, publish: []string{"#"}, subscribe: []string{"#"}, everything: true}

// DefaultGrant allows everything inside the tenant except topics that begin
// with $, which are the server's [MQTT-4.7.2-1]; of those, $SYS/… may be
// subscribed.
func DefaultGrant() *Grant { return defaultGrant }

// NewGrant compiles the filters that may be published to and subscribed. The
// error is Invalid and names the filter that is not one.
func NewGrant(revision uint64, publish, subscribe []string) (*Grant, error) {
	g := &Grant{Revision: revision, publish: clone(publish), subscribe: clone(subscribe)}
	for _, f := range append(clone(publish), subscribe...) {
		if !validFilter(f) || strings.HasPrefix(f, sharePrefix) {
			return nil, errs.Coded(errs.Invalid, "filter_invalid", "expected a topic filter, found %q", f)
		}
	}
	g.everything = len(g.publish) == 1 && g.publish[0] == "#" && len(g.subscribe) == 1 && g.subscribe[0] == "#"
	return g, nil
}

func clone(s []string) []string { return append([]string(nil), s...) }

// MayPublish reports whether a message may be published to the topic name,
// which must be valid.
func (g *Grant) MayPublish(topic []byte) bool {
	if len(topic) == 0 {
		return false
	}
	if g.everything {
		return topic[0] != '$'
	}
	for _, f := range g.publish {
		if matches(f, topic) {
			return true
		}
	}
	return false
}

const (
	sharePrefix = "$share/"
	// sysPrefix begins what the server says of a tenant, to that tenant.
	sysPrefix = "$SYS/"
)

// MaySubscribe reports whether the topic filter, which must be valid, may be
// subscribed: one filter of the grant allows everything that it can match. For
// $share/NAME/FILTER that is asked of FILTER [MQTT-4.8.2].
func (g *Grant) MaySubscribe(filter string) bool {
	if rest, ok := strings.CutPrefix(filter, sharePrefix); ok {
		_, shared, ok := strings.Cut(rest, "/")
		if !ok {
			return false
		}
		filter = shared
	}
	if filter == "" {
		return false
	}
	if g.everything {
		return filter[0] != '$' || strings.HasPrefix(filter, sysPrefix)
	}
	for _, f := range g.subscribe {
		if covers(f, filter) {
			return true
		}
	}
	return false
}

// matches reports whether the topic filter matches the topic name
// [MQTT-4.7.1-1, -2, MQTT-4.7.2-1].
func matches(filter string, topic []byte) bool {
	if topic[0] == '$' && (filter[0] == '#' || filter[0] == '+') {
		return false
	}
	t, more := 0, true // topic[t:] is what is left, if more
	for f := 0; ; {
		level, next, last := nextLevel(filter, f)
		if level == "#" {
			return true
		}
		if !more {
			return false
		}
		end := t
		for end < len(topic) && topic[end] != '/' {
			end++
		}
		if level != "+" && level != string(topic[t:end]) {
			return false
		}
		more = end < len(topic)
		t = end + 1
		if last {
			return !more
		}
		f = next
	}
}

// covers reports whether every topic name that filter matches is matched by
// allow.
func covers(allow, filter string) bool {
	if filter[0] == '$' && (allow[0] == '#' || allow[0] == '+') {
		return false
	}
	f, more := 0, true // filter[f:] is what is left, if more
	for a := 0; ; {
		level, next, last := nextLevel(allow, a)
		if level == "#" {
			return true
		}
		if !more {
			return false
		}
		have, fnext, flast := nextLevel(filter, f)
		if have == "#" || level != "+" && level != have {
			return false
		}
		more, f = !flast, fnext
		if last {
			return !more
		}
		a = next
	}
}

// nextLevel returns the level of s that begins at i, where the following one
// begins, and whether there is none.
func nextLevel(s string, i int) (level string, next int, last bool) {
	if j := strings.IndexByte(s[i:], '/'); j >= 0 {
		return s[i : i+j], i + j + 1, false
	}
	return s[i:], len(s), true
}

// validFilter reports whether s is a topic filter: wildcards stand alone in
// their level, # only in the last [MQTT-4.7.1-1, MQTT-4.7.1-2].
func validFilter(s string) bool {
	if s == "" || len(s) > 65535 || strings.ContainsRune(s, 0) {
		return false
	}
	for i := 0; ; {
		level, next, last := nextLevel(s, i)
		if len(level) > 1 && strings.ContainsAny(level, "#+") || level == "#" && !last {
			return false
		}
		if last {
			return true
		}
		i = next
	}
}
