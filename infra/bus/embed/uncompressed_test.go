// SPDX-License-Identifier: Apache-2.0

package embed_test

import (
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/embed"
)

// TestStream_Uncompressed holds that a stream which an older version has made with compression goes on
// without, with what it has.
func TestStream_Uncompressed(t *testing.T) {
	s := start(t, embed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Token: "secret"})
	c, err := natsgo.Connect(s.URL(), natsgo.Token("secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	js, err := jetstream.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "EV_old", Subjects: []string{"$EV.old.>"}, Storage: jetstream.FileStorage, MaxAge: time.Hour, Compression: jetstream.S2Compression,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "$EV.old.a", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	records, err := connect(t, s, "secret").Stream(t.Context(), bus.StreamConfig{Name: "old", Age: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	now, err := js.Stream(t.Context(), "EV_old")
	if err != nil {
		t.Fatal(err)
	}
	if got := now.CachedInfo().Config; got.Compression != jetstream.NoCompression || got.MaxAge != time.Hour {
		t.Errorf("%+v, expected no compression and else as it was", got)
	}
	all, err := records.Read(t.Context(), bus.Read{Filter: "a", Most: 10})
	if err != nil || len(all) != 1 || string(all[0].Body) != "kept" {
		t.Errorf("read %v, %v", all, err)
	}
}
