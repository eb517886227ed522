// SPDX-License-Identifier: Apache-2.0

// Package bus is the seam between the roles of the control plane: events,
// questions with one answer, buckets of keys with revisions, and streams of records. Messages of
// MQTT clients never cross it. The implementations are bus/mem, bus/nats (a
// NATS cluster) and bus/embed (a NATS server in this process); bus/bustest
// holds them to the same behaviour. The interfaces own no goroutine; each
// implementation says what it owns. It knows no role and no key of any bucket.
package bus

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// Bus carries events and questions and keeps buckets. Subjects are words of
// letters, digits, '-' and '_' between dots; in Subscribe and Serve a word "*"
// stands for any one word and a last word ">" for one or more.
//
// All methods may be called concurrently. While the bus cannot be reached they
// fail at once with errs.Unavailable; subscriptions stay and work again when it
// is back.
type Bus interface {
	// Publish sends an event to whoever subscribes now. It may be lost.
	Publish(ctx context.Context, subject string, body []byte) error
	// Subscribe calls f for every event until stop is called, one at a time
	// and in the order of each publisher.
	Subscribe(subject string, f func(subject string, body []byte)) (stop func(), err error)
	// Request asks one of those who serve the subject. The error is what the
	// server answered, with its Kind and Code, or Unavailable if there is none
	// or ctx ended; without a deadline in ctx it waits 5 s.
	Request(ctx context.Context, subject string, body []byte) ([]byte, error)
	// Serve answers requests until stop is called; f is called concurrently.
	// Of several that serve the same subject one gets each request.
	Serve(subject string, f func(ctx context.Context, body []byte) ([]byte, error)) (stop func(), err error)
	// Bucket opens the bucket and makes it if it is missing.
	Bucket(ctx context.Context, cfg BucketConfig) (Bucket, error)
	// Stream opens the stream and makes it if it is missing.
	Stream(ctx context.Context, cfg StreamConfig) (Stream, error)
}

// BucketConfig describes a bucket.
type BucketConfig struct {
	// Name consists of letters, digits, '-' and '_'.
	Name string
	// TTL is after what time a value that was not written again is gone; 0
	// means never.
	TTL time.Duration
	// Replicas is how many servers keep it; 0 means 1.
	Replicas int
}

// ErrUntaken is in the error of a change of a bucket that nobody took: it has not been
// made, and will not be. After any other Unavailable it may have been, or may yet be.
var ErrUntaken = errors.New("nobody took it")

// Revision is a number that grows with every change of a bucket.
type Revision uint64

// Conditions for Put and Delete besides a revision.
const (
	// Absent: the key must not be there.
	Absent Revision = 0
	// Any: whatever is there.
	Any Revision = 1<<64 - 1
)

// Entry is a key with its value.
type Entry struct {
	Key      string
	Value    []byte // not to be changed
	Revision Revision
	Created  time.Time // when the value was written
}

// Update is what Watch tells.
type Update struct {
	// Entry is what is there now; Value is nil if Deleted.
	Entry   Entry
	Deleted bool
	// Synced marks the end of what was there when the watch began. It comes
	// exactly once, with no Entry but a Revision: what was written later has a
	// higher one.
	Synced bool
}

// Watch says what to watch.
type Watch struct {
	// Prefix is empty for all keys, or ends with a dot.
	Prefix string
	// After leaves out what was written up to that revision; 0 means nothing.
	After Revision
	// NewOnly leaves out what was there when the watch began.
	NewOnly bool
	// Current, if not nil, hears up to when the watch is complete: all has been told that
	// was there at that time. It is called between updates, from Synced on: every few
	// seconds, and as soon as what was missed has been told when the bus was away. No
	// call for some seconds means that changes may not be heard of.
	Current func(at time.Time)
}

// Bucket is a set of keys with values and revisions. Keys consist of letters,
// digits, '-', '_', '=', '/' and '.', and neither begin nor end with a dot.
// What was acknowledged is on disk, where there is one. All methods may be
// called concurrently.
type Bucket interface {
	// Get returns the entry, or an error NotFound.
	Get(ctx context.Context, key string) (Entry, error)
	// Put writes the value if the key is at that revision, or Absent, or
	// with Any; else the error is Conflict. It returns the new revision.
	Put(ctx context.Context, key string, value []byte, at Revision) (Revision, error)
	// Delete removes the key under the same condition; at Absent is Invalid. A
	// key that is not there is no error with Any.
	Delete(ctx context.Context, key string, at Revision) error
	// Keys returns the keys that begin with prefix (as in Watch), in no order.
	Keys(ctx context.Context, prefix string) ([]string, error)
	// Entries returns the entries whose keys begin with any of the prefixes, in no order,
	// but no more than limit of all together, and whether there are more. There are 1 to
	// EntriesMax prefixes, each ends with a dot, and none begins with another. To ask
	// about many at once is far cheaper than about one after the other: for each a server
	// reads wherever in its log there is something of it.
	Entries(ctx context.Context, prefixes []string, limit int) (entries []Entry, more bool, err error)
	// Watch calls f, one at a time, with what is there, then Synced, then
	// every change, until ctx is done; it returns ctx's error. Of several
	// changes of a key in quick succession only the last may be told. It goes
	// on by itself when the bus was away. A delete that happened before the
	// watch began may be told too.
	Watch(ctx context.Context, w Watch, f func(Update)) error
}

// EntriesMax is the most prefixes that Entries takes.
const EntriesMax = 1024

// CheckPrefixes returns an error Invalid if prefixes cannot be those of Entries.
func CheckPrefixes(prefixes []string) error {
	if n := len(prefixes); n < 1 || n > EntriesMax {
		return errs.New(errs.Invalid, "expected 1 to %d prefixes, found %d", EntriesMax, n)
	}
	sorted := slices.Sorted(slices.Values(prefixes))
	for i, p := range sorted {
		if err := CheckPrefix(p); err != nil {
			return err
		}
		if p == "" || i > 0 && strings.HasPrefix(p, sorted[i-1]) {
			return errs.New(errs.Invalid, "expected prefixes of which none is empty or begins with another, found %q", p)
		}
	}
	return nil
}

// List returns the entries whose keys begin with prefix, in no order, but no
// more than limit, and whether there are more.
func List(ctx context.Context, b Bucket, prefix string, limit int) (entries []Entry, more bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := false
	err = b.Watch(ctx, Watch{Prefix: prefix}, func(u Update) {
		switch {
		case done:
		case u.Synced:
			done = true
			cancel()
		case u.Deleted:
		case len(entries) == limit:
			done, more = true, true
			cancel()
		default:
			entries = append(entries, u.Entry)
		}
	})
	if done {
		return entries, more, nil
	}
	return nil, false, err
}

// CheckKey returns an error Invalid if key cannot be a key.
func CheckKey(key string) error {
	if !validWords(key, "/=") {
		return errs.New(errs.Invalid, "expected a key of letters, digits, '-', '_', '=', '/' and '.', found %q", key)
	}
	return nil
}

// CheckPrefix returns an error Invalid if prefix cannot be one of Watch.
func CheckPrefix(prefix string) error {
	n := len(prefix)
	if n == 0 || prefix[n-1] == '.' && validWords(prefix[:n-1], "/=") {
		return nil
	}
	return errs.New(errs.Invalid, "expected a prefix that is empty or ends with a dot, found %q", prefix)
}

// CheckSubject returns an error Invalid if subject cannot be published to.
func CheckSubject(subject string) error {
	if !validWords(subject, "") {
		return errs.New(errs.Invalid, "expected a subject of words between dots, found %q", subject)
	}
	return nil
}

func validWords(s, extra string) bool {
	if s == "" || s[0] == '.' || s[len(s)-1] == '.' || len(s) > 1024 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'
		for j := range len(extra) {
			ok = ok || c == extra[j]
		}
		if !ok || c == '.' && s[i-1] == '.' {
			return false
		}
	}
	return true
}
