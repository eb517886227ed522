// SPDX-License-Identifier: Apache-2.0

package topic

import "bytes"

// A node stands for the levels on the way to it. The wildcards have fields of
// their own, so that a match looks up one literal level a step.
type node[T any] struct {
	kids *table[T]
	plus *node[T]
	hash *node[T]
	v    T
	set  bool
}

func (n *node[T]) empty() bool {
	return !n.set && n.kids == nil && n.plus == nil && n.hash == nil
}

// find returns the node of filter, or nil.
func (n *node[T]) find(filter string) *node[T] {
	for more, level := true, ""; more && n != nil; {
		level, filter, more = cut(filter)
		n = n.kid(level)
	}
	return n
}

func (n *node[T]) kid(level string) *node[T] {
	switch level {
	case "+":
		return n.plus
	case "#":
		return n.hash
	}
	return n.kids.getString(level)
}

// withKid returns n with another node (nil: none) at level.
func (n *node[T]) withKid(level string, kid *node[T], inPlace bool) *node[T] {
	if !inPlace {
		c := *n
		n = &c
	}
	switch {
	case level == "+":
		n.plus = kid
	case level == "#":
		n.hash = kid
	case kid == nil:
		n.kids = n.kids.without(level, inPlace)
	default:
		n.kids = n.kids.with(level, kid, inPlace)
	}
	return n
}

// put returns n with v at filter. Nodes that existed are changed only if
// inPlace.
func (n *node[T]) put(filter string, more bool, v T, inPlace bool) *node[T] {
	if n == nil {
		n = &node[T]{}
		inPlace = true
	}
	if !more {
		if !inPlace {
			c := *n
			n = &c
		}
		n.v, n.set = v, true
		return n
	}
	level, tail, more := cut(filter)
	old := n.kid(level)
	kid := old.put(tail, more, v, inPlace)
	if kid == old {
		return n
	}
	return n.withKid(level, kid, inPlace)
}

// drop returns n without a value at filter, which is there; nil if that leaves
// nothing.
func (n *node[T]) drop(filter string, more, inPlace bool) *node[T] {
	if !more {
		if !inPlace {
			c := *n
			n = &c
		}
		var zero T
		n.v, n.set = zero, false
	} else {
		level, tail, more := cut(filter)
		old := n.kid(level)
		kid := old.drop(tail, more, inPlace)
		if kid == old {
			return n
		}
		n = n.withKid(level, kid, inPlace)
	}
	if n.empty() {
		return nil
	}
	return n
}

// match visits the values of all filters that match name below n.
func (n *node[T]) match(name []byte, visit func(v T)) {
	for {
		if n.hash != nil {
			visit(n.hash.v)
		}
		level, tail, more := bytes.Cut(name, slash)
		if n.plus != nil {
			if more {
				n.plus.match(tail, visit)
			} else {
				n.plus.end(visit)
			}
		}
		n = n.kids.get(level)
		if n == nil {
			return
		}
		if !more {
			n.end(visit)
			return
		}
		name = tail
	}
}

// end visits what matches when the name has no further level: the node itself
// and # below it [MQTT-4.7.1-2].
func (n *node[T]) end(visit func(v T)) {
	if n.set {
		visit(n.v)
	}
	if n.hash != nil {
		visit(n.hash.v)
	}
}

// appendMatches is match into a slice.
func (n *node[T]) appendMatches(dst []T, name []byte) []T {
	for {
		if n.hash != nil {
			dst = append(dst, n.hash.v)
		}
		level, tail, more := bytes.Cut(name, slash)
		if n.plus != nil {
			if more {
				dst = n.plus.appendMatches(dst, tail)
			} else {
				dst = n.plus.appendEnd(dst)
			}
		}
		n = n.kids.get(level)
		if n == nil {
			return dst
		}
		if !more {
			return n.appendEnd(dst)
		}
		name = tail
	}
}

func (n *node[T]) appendEnd(dst []T) []T {
	if n.set {
		dst = append(dst, n.v)
	}
	if n.hash != nil {
		dst = append(dst, n.hash.v)
	}
	return dst
}

// each visits all filters below n, whose own levels are path.
func (n *node[T]) each(path string, root bool, visit func(filter string, v T) bool) bool {
	if n == nil {
		return true
	}
	if n.set && !visit(path, n.v) {
		return false
	}
	join := func(level string) string {
		if root {
			return level
		}
		return path + "/" + level
	}
	return n.hash.each(join("#"), false, visit) &&
		n.plus.each(join("+"), false, visit) &&
		n.kids.each(func(level string, kid *node[T]) bool { return kid.each(join(level), false, visit) })
}

// matchRoot is match with the rule of [MQTT-4.7.2-1]: a filter that begins
// with a wildcard does not match a name that begins with $.
func (n *node[T]) matchRoot(name []byte, visit func(v T)) {
	if n == nil {
		return
	}
	if len(name) > 0 && name[0] == '$' {
		level, tail, more := bytes.Cut(name, slash)
		switch n = n.kids.get(level); {
		case n == nil:
		case more:
			n.match(tail, visit)
		default:
			n.end(visit)
		}
		return
	}
	n.match(name, visit)
}

// appendRoot is matchRoot into a slice.
func (n *node[T]) appendRoot(dst []T, name []byte) []T {
	if n == nil {
		return dst
	}
	if len(name) > 0 && name[0] == '$' {
		level, tail, more := bytes.Cut(name, slash)
		switch n = n.kids.get(level); {
		case n == nil:
			return dst
		case more:
			return n.appendMatches(dst, tail)
		default:
			return n.appendEnd(dst)
		}
	}
	return n.appendMatches(dst, name)
}
