// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/embed"
)

// secret is a text that nobody may find, but where it is handed out.
type secret struct {
	kind string // what it is, for people
	text string
	// at are the beginnings of the names of places that hand it out, or are where the
	// operator keeps it.
	at []string
}

// place is somewhere that a secret could have come to.
type place struct {
	// kind is log, file, leveldb, jetstream, audit, events, metrics, status or answer.
	kind string
	name string
	text []byte
}

// form is one way in which a secret may be written.
type form struct {
	of   *secret
	name string
	text []byte
}

// leastForm is how many bytes the shortest form has: shorter ones would be found by
// chance, or slowly.
const leastForm = 9

// finder looks for all forms of many secrets in one pass.
type finder struct {
	forms []form
	begin map[uint64][]int // forms by their first 8 bytes
	maybe [1 << 16]bool    // by their first 2
}

func newFinder(t testing.TB, all []*secret) *finder {
	t.Helper()
	f := &finder{begin: map[uint64][]int{}}
	for _, s := range all {
		for name, text := range formsOf(s.text) {
			if len(text) < leastForm {
				t.Fatalf("%s is too short to look for: %q", s.kind, text)
			}
			first := binary.LittleEndian.Uint64([]byte(text))
			f.begin[first] = append(f.begin[first], len(f.forms))
			f.maybe[uint16(first)] = true
			f.forms = append(f.forms, form{s, name, []byte(text)})
		}
	}
	return f
}

// formsOf are the ways to write a text, without those that are equal to others. The forms
// in base64 are those at each of the three places where it may begin, without the letters
// that depend on what is beside it.
func formsOf(text string) map[string]string {
	quoted, _ := json.Marshal(text) // strings always can be
	all := map[string]string{
		"in clear": text, "in hexadecimal": hex.EncodeToString([]byte(text)), "in HEXADECIMAL": strings.ToUpper(hex.EncodeToString([]byte(text))),
		"in JSON": string(quoted[1 : len(quoted)-1]), "in a query": url.QueryEscape(text), "in a path": url.PathEscape(text),
	}
	for before := range 3 {
		padded := slices.Concat(make([]byte, before), []byte(text))
		first, last := (before*8+5)/6, len(padded)*8/6
		all[fmt.Sprint("in base64 +", before)] = base64.RawStdEncoding.EncodeToString(padded)[first:last]
		all[fmt.Sprint("in base64url +", before)] = base64.RawURLEncoding.EncodeToString(padded)[first:last]
	}
	seen := map[string]bool{}
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range all {
			if !yield(name) {
				return
			}
		}
	}) {
		if seen[all[name]] {
			delete(all, name)
			continue
		}
		seen[all[name]] = true
	}
	return all
}

// in calls found for each form that is in text.
func (f *finder) in(text []byte, found func(form, int)) {
	for i := 0; i+leastForm <= len(text); i++ {
		if !f.maybe[binary.LittleEndian.Uint16(text[i:])] {
			continue
		}
		for _, n := range f.begin[binary.LittleEndian.Uint64(text[i:])] {
			if bytes.HasPrefix(text[i:], f.forms[n].text) {
				found(f.forms[n], i)
			}
		}
	}
}

// mayBe reports whether the secret is allowed at that place.
func (s *secret) mayBe(p *place) bool {
	return slices.ContainsFunc(s.at, func(at string) bool { return strings.HasPrefix(p.name, at) })
}

// around is what stands before i, so that a failure says where it is and not the secret.
func around(text []byte, i int) []byte { return text[max(0, i-120):i] }

// filesIn are the files below a data folder as places, and the values of the stores that
// they are. Nobody may have the stores open.
func filesIn(t testing.TB, data string) (all []place) {
	t.Helper()
	err := filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(data, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if _, err := os.Stat(filepath.Join(path, "CURRENT")); err == nil {
				text, err := levelDB(path)
				all = append(all, place{"leveldb", name, text})
				return err
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		kind := "file"
		if strings.Contains(name, "jetstream"+string(filepath.Separator)) {
			kind = "jetstream"
			if text, err = jetStreamBlock(text); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
		all = append(all, place{kind, name, text})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// levelDB returns every key and value of a store: tables may be compressed, and a journal
// breaks values where its blocks end.
func levelDB(folder string) (text []byte, err error) {
	db, err := leveldb.OpenFile(folder, &opt.Options{ReadOnly: true, ErrorIfMissing: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	it := db.NewIterator(nil, nil)
	defer it.Release()
	for it.Next() {
		text = append(append(append(append(text, it.Key()...), '\n'), it.Value()...), '\n')
	}
	return text, it.Error()
}

// jetStreamBlock returns a file of JetStream without the compression that it may have:
// "cmp", the algorithm, 1 for S2, the length as a uvarint, the compressed records, and 8
// bytes of checksum.
func jetStreamBlock(text []byte) ([]byte, error) {
	rest, ok := bytes.CutPrefix(text, []byte("cmp\x01"))
	_, n := binary.Uvarint(rest)
	if !ok || n <= 0 || len(rest) < n+8 {
		return text, nil
	}
	return io.ReadAll(s2.NewReader(bytes.NewReader(rest[n : len(rest)-8])))
}

// TestSecrets_Finder: what is written to each kind of place is found there, in each form,
// also where the place is compressed; or TestSecrets would show nothing.
func TestSecrets_Finder(t *testing.T) {
	canary := &secret{kind: "canary", text: `c"anary+/é` + "0123456789abcdefghij"}
	data := t.TempDir()
	find := newFinder(t, []*secret{canary})
	log := fmt.Sprintf("time=now level=INFO msg=hello password=%s", canary.text)
	beside := strings.Repeat("to be compressed ", 100)
	if err := os.WriteFile(filepath.Join(data, "log"), []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := leveldb.OpenFile(filepath.Join(data, "store"), &opt.Options{Compression: opt.SnappyCompression})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := db.Put(fmt.Append(nil, "key", i), []byte(beside+canary.text+beside), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(db.CompactRange(util.Range{}), db.Close()); err != nil { // journals are not compressed
		t.Fatal(err)
	}
	server, err := embed.Start(t.Context(), embed.Config{Dir: filepath.Join(data, "nats-1"), Name: "nats-1", NoSync: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	control, err := server.Bus("test")
	if err == nil {
		var bucket bus.Bucket
		if bucket, err = control.Bucket(t.Context(), bus.BucketConfig{Name: "secrets"}); err == nil {
			value, _ := json.Marshal(map[string]any{"text": canary.text, "bytes": []byte(canary.text)})
			_, err = bucket.Put(t.Context(), "key", value, bus.Any)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = control.Close()
	server.Shutdown()
	// A block as JetStream writes it once it is full.
	var block bytes.Buffer
	w := s2.NewWriter(&block)
	_, _ = w.Write([]byte(beside + canary.text + beside))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	packed := append(binary.AppendUvarint([]byte("cmp\x01"), uint64(2*len(beside)+len(canary.text))), block.Bytes()...)
	full := filepath.Join(data, "nats-2", "jetstream", "1.blk")
	if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o700), os.WriteFile(full, append(packed, "checksum"...), 0o600)); err != nil {
		t.Fatal(err)
	}
	forms, seen := map[string]bool{}, map[string]bool{}
	for _, p := range filesIn(t, data) {
		find.in(p.text, func(f form, _ int) {
			forms[f.name], seen[p.kind+" "+p.name] = true, true
		})
	}
	for _, want := range []string{"file log", "leveldb store", "jetstream nats-2/jetstream/1.blk", "jetstream nats-1/jetstream/$G/streams/KV_secrets/msgs/1.blk"} {
		if !seen[want] {
			t.Errorf("the canary is not found in %s, but in %v", want, seen)
		}
	}
	if !forms["in clear"] || !forms["in JSON"] {
		t.Errorf("found %v, expected it in clear and in JSON", forms)
	}
	for name, text := range map[string]string{
		"in hexadecimal": hex.EncodeToString([]byte(canary.text)), "in HEXADECIMAL": fmt.Sprintf("%X", canary.text), "in a query": "?p=" + url.QueryEscape(canary.text),
		"in a path":       "/p/" + url.PathEscape(canary.text),
		"in base64 +0":    base64.StdEncoding.EncodeToString([]byte("abc" + canary.text + "x")),
		"in base64 +1":    base64.StdEncoding.EncodeToString([]byte("a" + canary.text + "x")),
		"in base64 +2":    base64.StdEncoding.EncodeToString([]byte("ab" + canary.text)),
		"in base64url +0": base64.RawURLEncoding.EncodeToString([]byte(canary.text + "xy")),
	} {
		got := ""
		find.in([]byte("before"+text+"after"), func(f form, _ int) { got += f.name + " " })
		if got == "" || name != "in base64url +0" && !strings.Contains(got, name) {
			t.Errorf("%s: found %q in %s", name, got, text)
		}
	}
}
