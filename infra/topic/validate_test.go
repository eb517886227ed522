// SPDX-License-Identifier: Apache-2.0

package topic_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
)

func TestValidateName(t *testing.T) {
	for _, c := range []struct {
		name string
		want error
	}{
		{"a", nil},
		{"/", nil},
		{"a//b/", nil},
		{"$SYS/x", nil},
		{"\ufeffa", nil}, // [MQTT-1.5.4-3]
		{strings.Repeat("x", 65535), nil},
		{"", mqtt.TopicNameInvalid},
		{strings.Repeat("x", 65536), mqtt.TopicNameInvalid},
		{"a/+", mqtt.TopicNameInvalid},
		{"a#", mqtt.TopicNameInvalid},
		{"a\x00b", mqtt.MalformedPacket},
		{"\xed\xa0\x80", mqtt.MalformedPacket}, // a surrogate
		{"\xc0\x80", mqtt.MalformedPacket},     // U+0000 overlong
		{"\xff", mqtt.MalformedPacket},
	} {
		if err := topic.ValidateName([]byte(c.name)); !errors.Is(err, c.want) {
			t.Errorf("ValidateName(%.20q) = %v, want %v", c.name, err, c.want)
		}
	}
}

func TestParseShare(t *testing.T) {
	for _, c := range []struct {
		filter, share, rest string
		shared              bool
		want                error
	}{
		{"#", "", "#", false, nil},
		{"a/+/b", "", "a/+/b", false, nil},
		{"+", "", "+", false, nil},
		{"/+/", "", "/+/", false, nil},
		{"$share/g/a/#", "g", "a/#", true, nil},
		{"$share/g//", "g", "/", true, nil},
		{"$share/g/$SYS/x", "g", "$SYS/x", true, nil},
		{"$shared/g", "", "$shared/g", false, nil},
		{"", "", "", false, mqtt.TopicFilterInvalid},
		{"a/#/b", "", "", false, mqtt.TopicFilterInvalid},
		{"a#", "", "", false, mqtt.TopicFilterInvalid},
		{"a+/b", "", "", false, mqtt.TopicFilterInvalid},
		{"a/+b", "", "", false, mqtt.TopicFilterInvalid},
		{"$share", "", "", false, mqtt.TopicFilterInvalid},
		{"$share/", "", "", false, mqtt.TopicFilterInvalid},
		{"$share/g", "", "", false, mqtt.TopicFilterInvalid},
		{"$share/g/", "", "", false, mqtt.TopicFilterInvalid},
		{"$share//a", "", "", false, mqtt.TopicFilterInvalid},
		{"$share/g+/a", "", "", false, mqtt.TopicFilterInvalid},
		{"$share/#/a", "", "", false, mqtt.TopicFilterInvalid},
		{"$share/g/a#", "", "", false, mqtt.TopicFilterInvalid},
		{strings.Repeat("x", 65536), "", "", false, mqtt.TopicFilterInvalid},
		{"a\x00", "", "", false, mqtt.MalformedPacket},
		{"\xed\xa0\x80", "", "", false, mqtt.MalformedPacket},
	} {
		share, rest, shared, err := topic.ParseShare(c.filter)
		if !errors.Is(err, c.want) || share != c.share || rest != c.rest || shared != c.shared {
			t.Errorf("ParseShare(%.20q) = %q, %q, %v, %v", c.filter, share, rest, shared, err)
		}
		if share, rest, shared := topic.CutShare(c.filter); err == nil && (share != c.share || rest != c.rest || shared != c.shared) {
			t.Errorf("CutShare(%.20q) = %q, %q, %v", c.filter, share, rest, shared)
		}
	}
}

// Every filter of up to six characters is valid if its levels are
// [MQTT-4.7.1-1, MQTT-4.7.1-2].
func TestValidateFilterAgainstNaive(t *testing.T) {
	var each func(filter string)
	each = func(filter string) {
		valid, levels := filter != "", strings.Split(filter, "/")
		for i, l := range levels {
			if l == "#" && i < len(levels)-1 || l != "#" && l != "+" && strings.ContainsAny(l, "+#") {
				valid = false
			}
		}
		if err := topic.ValidateFilter(filter); (err == nil) != valid {
			t.Errorf("ValidateFilter(%q) = %v", filter, err)
		}
		if len(filter) < 6 {
			for _, c := range "a/+#" {
				each(filter + string(c))
			}
		}
	}
	each("")
}

// What is missing after a share name is said [MQTT-4.8.2-2].
func TestParseShare_SaysWhatIsMissing(t *testing.T) {
	for _, filter := range []string{"$share/g", "$share/g/"} {
		if _, _, _, err := topic.ParseShare(filter); err == nil || !strings.Contains(err.Error(), "no topic filter after the share name") {
			t.Errorf("ParseShare(%q): %v", filter, err)
		}
	}
}
