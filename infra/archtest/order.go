// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Order is the import policy of order.txt.
type Order struct {
	rooms map[string]bool
	below map[string]map[string]bool // below[a][b]: a may import b
	never [][2]string
}

// ParseOrder reads the text of an order.
func ParseOrder(text string) (*Order, error) {
	o := &Order{rooms: map[string]bool{}, below: map[string]map[string]bool{}}
	for _, rule := range rules(text) {
		if from, to, ok := strings.Cut(rule, "!~"); ok {
			o.never = append(o.never, [2]string{full(from), full(to)})
			continue
		}
		var lower []string
		for list := range strings.SplitSeq(rule, "<") {
			var names []string
			for name := range strings.SplitSeq(list, ",") {
				if strings.TrimSpace(name) == "" {
					return nil, fmt.Errorf("order: empty name in %q", rule)
				}
				name = full(name)
				names = append(names, name)
				o.rooms[name] = true
				if o.below[name] == nil {
					o.below[name] = map[string]bool{}
				}
				for _, l := range lower {
					o.below[name][l] = true
				}
			}
			lower = names
		}
	}
	o.close()
	for room := range o.rooms {
		if o.below[room][room] {
			return nil, fmt.Errorf("order: %s is below itself", room)
		}
	}
	return o, nil
}

// rules joins indented lines to the line that they continue and drops comments.
func rules(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimRight(line, " \t\n")
		switch {
		case strings.TrimSpace(line) == "":
		case strings.HasPrefix(line, " ") && len(out) > 0:
			out[len(out)-1] += line
		default:
			out = append(out, line)
		}
	}
	return out
}

// full spells a name of order.txt as a path of the module.
func full(name string) string {
	name = strings.TrimSpace(name)
	if strings.HasPrefix(name, "broker/") {
		return "services/" + name
	}
	return name
}

// close makes below transitive.
func (o *Order) close() {
	for middle := range o.rooms {
		for upper := range o.rooms {
			if !o.below[upper][middle] {
				continue
			}
			for lower := range o.below[middle] {
				o.below[upper][lower] = true
			}
		}
	}
}

// room is the name in the order that pkg belongs to, "" if none.
func (o *Order) room(pkg string) string {
	for p := pkg; p != "."; p = path.Dir(p) {
		if o.rooms[p] {
			return p
		}
	}
	return ""
}

// testOnly reports whether pkg is made for tests, by its name.
func testOnly(pkg string) bool {
	if pkg == "infra/archtest" || pkg == "infra/simnet" {
		return true
	}
	parent, last := path.Dir(pkg), path.Base(pkg)
	return strings.HasSuffix(last, "test") && (strings.HasPrefix(last, path.Base(parent)) || slices.Contains(strings.Split(parent, "/"), strings.TrimSuffix(last, "test")))
}

// Check judges that pkg imports dep, both as paths within the module. It
// returns nil if that is in order.
func (o *Order) Check(pkg, dep string) error {
	switch {
	case testOnly(pkg):
		return nil
	case testOnly(dep):
		return fmt.Errorf("%s imports %s, which is for tests", pkg, dep)
	}
	for _, n := range o.never {
		if within(pkg, n[0]) && within(dep, n[1]) {
			return fmt.Errorf("%s imports %s, against %q", pkg, dep, n[0]+" !~ "+n[1])
		}
	}
	from, to := o.room(pkg), o.room(dep)
	switch {
	case from == "":
		return fmt.Errorf("%s has no place in order.txt", pkg)
	case to == "":
		return fmt.Errorf("%s imports %s, which has no place in order.txt", pkg, dep)
	case from != to && !o.below[from][to]:
		return fmt.Errorf("%s imports %s, which is not below it in order.txt", pkg, dep)
	}
	return nil
}

// within reports whether pkg is root or below it.
func within(pkg, root string) bool { return pkg == root || strings.HasPrefix(pkg, root+"/") }
