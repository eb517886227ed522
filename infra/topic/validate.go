// SPDX-License-Identifier: Apache-2.0

package topic

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/manormq/manor/infra/mqtt"
)

// MaxLength is the most bytes that a name or filter can have [MQTT-4.7.3-3].
const MaxLength = 65535

// SharePrefix begins the filter of a shared subscription [MQTT-4.8.2-1].
const SharePrefix = "$share/"

// ValidUTF8 reports whether s may stand in an MQTT packet as a UTF-8 encoded
// string: well-formed, no surrogates [MQTT-1.5.4-1] and no U+0000
// [MQTT-1.5.4-2].
func ValidUTF8(s []byte) bool {
	return bytes.IndexByte(s, 0) < 0 && utf8.Valid(s)
}

// ValidateName reports what forbids name as a Topic Name. The error wraps the
// mqtt.ReasonCode: TopicNameInvalid, or MalformedPacket where the bytes are
// not UTF-8. It allocates only to refuse.
func ValidateName(name []byte) error {
	switch {
	case len(name) == 0: // [MQTT-4.7.3-1]
		return fmt.Errorf("the topic name is empty: %w", mqtt.TopicNameInvalid)
	case len(name) > MaxLength: // [MQTT-4.7.3-3]
		return fmt.Errorf("the topic name has %d bytes, at most %d are allowed: %w", len(name), MaxLength, mqtt.TopicNameInvalid)
	case !ValidUTF8(name): // [MQTT-1.5.4-1] [MQTT-4.7.3-2]
		return fmt.Errorf("the topic name is not UTF-8 without U+0000: %w", mqtt.MalformedPacket)
	}
	for _, c := range name {
		if c == '+' || c == '#' { // [MQTT-3.3.2-2] [MQTT-4.7.0-1]
			return fmt.Errorf("the topic name contains the wildcard %q: %w", c, mqtt.TopicNameInvalid)
		}
	}
	return nil
}

// ValidateFilter reports what forbids filter as a Topic Filter, with or
// without a $share prefix. The error wraps the mqtt.ReasonCode:
// TopicFilterInvalid, or MalformedPacket where the bytes are not UTF-8.
func ValidateFilter(filter string) error {
	_, _, _, err := ParseShare(filter)
	return err
}

// ParseShare splits the filter of a shared subscription, $share/NAME/FILTER,
// and validates every part of it. For any other filter shared is false and
// rest is the filter. Errors are those of ValidateFilter.
func ParseShare(filter string) (share, rest string, shared bool, err error) {
	if len(filter) > MaxLength { // [MQTT-4.7.3-3]
		return "", "", false, fmt.Errorf("the topic filter has %d bytes, at most %d are allowed: %w", len(filter), MaxLength, mqtt.TopicFilterInvalid)
	}
	if strings.IndexByte(filter, 0) >= 0 || !utf8.ValidString(filter) { // [MQTT-1.5.4-1] [MQTT-4.7.3-2]
		return "", "", false, fmt.Errorf("the topic filter is not UTF-8 without U+0000: %w", mqtt.MalformedPacket)
	}
	rest = filter
	if filter == "$share" || strings.HasPrefix(filter, SharePrefix) {
		share, rest, shared = strings.Cut(strings.TrimPrefix(filter, SharePrefix), "/")
		switch {
		case share == "" || strings.ContainsAny(share, "+#"): // [MQTT-4.8.2-1]
			return "", "", false, fmt.Errorf("%q is not a share name: it needs at least one character and none of / + #: %w", share, mqtt.TopicFilterInvalid)
		case !shared || rest == "": // [MQTT-4.8.2-2]
			return "", "", false, fmt.Errorf("the shared subscription %q has no topic filter after the share name: %w", filter, mqtt.TopicFilterInvalid)
		}
	}
	if err := validateLevels(rest); err != nil {
		return "", "", false, err
	}
	return share, rest, shared, nil
}

func validateLevels(filter string) error {
	if filter == "" { // [MQTT-4.7.3-1]
		return fmt.Errorf("the topic filter is empty: %w", mqtt.TopicFilterInvalid)
	}
	for i := range len(filter) {
		switch filter[i] {
		case '+', '#':
			if i > 0 && filter[i-1] != '/' || i+1 < len(filter) && filter[i+1] != '/' { // [MQTT-4.7.1-1] [MQTT-4.7.1-2]
				return fmt.Errorf("the topic filter %q has a wildcard that is not a whole level: %w", filter, mqtt.TopicFilterInvalid)
			}
			if filter[i] == '#' && i+1 < len(filter) { // [MQTT-4.7.1-1]
				return fmt.Errorf("the topic filter %q has levels after #: %w", filter, mqtt.TopicFilterInvalid)
			}
		}
	}
	return nil
}

// CutShare is ParseShare for a filter that is known to be valid: it looks at no
// more than it has to.
func CutShare(filter string) (share, rest string, shared bool) {
	tail, shared := strings.CutPrefix(filter, SharePrefix)
	if !shared {
		return "", filter, false
	}
	share, rest, _ = cut(tail)
	return share, rest, true
}

// Levels counts the levels of a name or filter: one more than its slashes.
func Levels[S ~string | ~[]byte](s S) int {
	n := 1
	for i := range len(s) {
		if s[i] == '/' {
			n++
		}
	}
	return n
}

// HasWildcard reports whether a valid filter contains + or #.
func HasWildcard(filter string) bool { return strings.ContainsAny(filter, "+#") }

// cut splits s at its first slash.
func cut(s string) (level, tail string, more bool) { return strings.Cut(s, "/") }

// Match reports whether a valid filter, without $share prefix, matches a
// valid name. A filter that begins with a wildcard does not match a name that
// begins with $ [MQTT-4.7.2-1].
func Match(filter string, name []byte) bool {
	if len(name) > 0 && name[0] == '$' && len(filter) > 0 && (filter[0] == '+' || filter[0] == '#') {
		return false
	}
	for {
		if filter == "#" {
			return true
		}
		level, filterTail, filterMore := cut(filter)
		word, nameTail, nameMore := bytes.Cut(name, slash)
		if level != "+" && level != string(word) {
			return false
		}
		switch {
		case !nameMore:
			// sport/# matches sport too [MQTT-4.7.1-1].
			return !filterMore || filterTail == "#"
		case !filterMore:
			return false
		}
		filter, name = filterTail, nameTail
	}
}

var slash = []byte{'/'}
