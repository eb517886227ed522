// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/wire"
)

var rewrite = flag.Bool("rewrite", false, "write the bytes of docs/wire/link.md again")

// TestDocument holds the bytes in docs/wire/link.md to those on the wire.
func TestDocument(t *testing.T) {
	const file = "../../docs/wire/link.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	golden := map[string][]byte{
		"preface": recordPreface(t),
		"up": batch(link.AppendUp(nil, &link.Up{Frames: []link.UpFrame{
			{Kind: link.UpPublish, Channel: 1, PacketID: 7, Message: mqtt.Message{Topic: []byte("a/b"), Payload: []byte("hi"), QoS: mqtt.AtLeastOnce}},
			{Kind: link.UpAck, Channel: 1, Ack: mqtt.Puback, PacketID: 3},
			{Kind: link.UpAck, Channel: 2, Ack: mqtt.Pubrec, PacketID: 9},
			{Kind: link.UpClose, Channel: 2, Close: &link.Close{Cause: link.CloseNormal}},
		}}, 0)),
		"down": batch(new(link.DownEncoder).Append(nil, &link.Down{
			Messages: []mqtt.Message{{Topic: []byte("a/b"), Payload: []byte("hi")}},
			Frames: []link.DownFrame{
				{Kind: link.DownDeliver, Channel: 1}, {Kind: link.DownDeliver, Channel: 2}, {Kind: link.DownDeliver, Channel: 3},
			},
		}, 0)),
	}
	section := regexp.MustCompile(`(?m)^<!-- golden (\w+) -->\n(\n(    [0-9a-f ]+.*\n)+)?`)
	seen := 0
	want := section.ReplaceAllStringFunc(string(text), func(s string) string {
		name := section.FindStringSubmatch(s)[1]
		seen++
		return fmt.Sprintf("<!-- golden %s -->\n\n%s", name, dump(golden[name]))
	})
	if seen != len(golden) {
		t.Errorf("%s has %d golden sections, want %d", file, seen, len(golden))
	}
	if want == string(text) {
		return
	}
	if !*rewrite {
		t.Fatalf("%s does not show what is on the wire; run go test ./infra/link -run TestDocument -rewrite, and see whether the change is one", file)
	}
	if err := os.WriteFile(file, []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
}

// batch puts the header before frames, as infra/wire does.
func batch(frames []byte, count, _ int) []byte {
	n := len(frames)
	return append([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), byte(count >> 8), byte(count), 0, 0}, frames...)
}

// recordPreface returns what a node writes first.
func recordPreface(t *testing.T) []byte {
	t.Helper()
	a, b := net.Pipe()
	go func() { _, _ = wire.New(context.Background(), a, wire.Config{Node: "gateway-1"}) }()
	_ = b.SetDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 64)
	n, err := b.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
	return buf[:n]
}

// dump writes bytes as a block of Markdown, with what of them is text.
func dump(data []byte) string {
	var out strings.Builder
	for len(data) > 0 {
		line := data[:min(16, len(data))]
		data = data[len(line):]
		printable := strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return '.'
			}
			return r
		}, string(latin(line)))
		fmt.Fprintf(&out, "    %-48s%s\n", spaced(hex.EncodeToString(line)), printable)
	}
	return out.String()
}

// latin makes a rune of each byte.
func latin(b []byte) []rune {
	out := make([]rune, len(b))
	for i, c := range b {
		out[i] = rune(c)
	}
	return out
}

func spaced(s string) string {
	var out []string
	for ; s != ""; s = s[2:] {
		out = append(out, s[:2])
	}
	return strings.Join(out, " ")
}
