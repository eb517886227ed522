// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"context"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// StreamConfig describes a stream. What holds is what whoever made it first said.
type StreamConfig struct {
	// Name consists of letters, digits, '-' and '_'.
	Name string
	// Age is for how long a record is kept; 0 is for ever.
	Age time.Duration
	// Bytes bounds the whole, PerSubject the records of each subject: the oldest go.
	// 0 is no bound.
	Bytes      int64
	PerSubject int64
	// Replicas is how many servers keep it; 0 is as of buckets.
	Replicas int
}

// Record is what a stream keeps of one Append.
type Record struct {
	Subject string
	Body    []byte // not to be changed
	// Sequence grows with every record of the stream; it is above 0.
	Sequence uint64
	Time     time.Time // when it was appended
}

// Read says what is read of a stream.
type Read struct {
	// Filter is a subject, with words * and > as in Subscribe.
	Filter string
	// After leaves out the records up to that sequence; 0 is none.
	After uint64
	// Since leaves out those that are older; used where After is 0.
	Since time.Time
	// Most is how many are read, at least 1.
	Most int
}

// Stream keeps records in the order in which they were appended, within its bounds.
// What was acknowledged is on disk, where there is one. All methods may be called
// concurrently, and fail with Unavailable while the bus cannot be reached.
type Stream interface {
	// Append adds a record and returns its sequence once it is kept.
	Append(ctx context.Context, subject string, body []byte) (sequence uint64, err error)
	// Read returns records that are there, the oldest first. It does not wait for more. Where
	// several servers keep the stream, the newest may be missing for a moment.
	Read(ctx context.Context, r Read) ([]Record, error)
	// Follow calls f, one at a time, with what is appended from now on, until ctx is
	// done; it returns ctx's error. It goes on by itself when the bus was away, and may
	// miss what was appended meanwhile.
	Follow(ctx context.Context, filter string, f func(Record)) error
	// Remove removes the records of those subjects that were kept before a time. There may
	// be none.
	Remove(ctx context.Context, filter string, before time.Time) error
}

// Check returns an error Invalid if there can be no such stream.
func (c *StreamConfig) Check() error {
	if !validWords(c.Name, "") || strings.Contains(c.Name, ".") {
		return errs.New(errs.Invalid, "expected the name of a stream, found %q", c.Name)
	}
	return nil
}

// CheckFilter returns an error Invalid if nothing can be subscribed to at s.
func CheckFilter(s string) error {
	if !validFilter(s) {
		return errs.New(errs.Invalid, "expected a subject of words, * and a last > between dots, found %q", s)
	}
	return nil
}

func validFilter(s string) bool {
	words := strings.Split(s, ".")
	for i, w := range words {
		switch {
		case w == "*", w == ">" && i == len(words)-1:
		case !validWords(w, ""):
			return false
		}
	}
	return len(s) <= 1024
}

// Check returns an error Invalid if nothing can be read so.
func (r *Read) Check() error {
	if r.Most < 1 {
		return errs.New(errs.Invalid, "expected at least 1 record to read, found %d", r.Most)
	}
	return CheckFilter(r.Filter)
}
