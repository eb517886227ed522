// SPDX-License-Identifier: Apache-2.0

package partition

// LogKept is how much of the log is kept for catching up, in bytes, if nobody says
// otherwise.
const LogKept = 4 << 20

// segmentBytes is the step in which it is trimmed.
func segmentBytes(kept int) int { return kept / 16 }

// Log is what a replica knows of its history without reading it: which epoch
// wrote which records, and which of them are still there. Record n comes from
// exactly one batch of the owner of its epoch, and what stands before it is the
// same wherever it stands; so a copy whose last (epoch, n) this history Has is a
// beginning of it.
type Log struct {
	// base is the record before the first that is kept, last the newest.
	base, last Last
	// runs begin with base; each later one is the first record of its epoch.
	runs     []Last
	segments []segment
	bytes    int
}

// segment is where a stretch of some bytes begins.
type segment struct {
	first uint64
	bytes int
}

// NewLog returns a history of which only its last record is known.
func NewLog(last Last) Log { return Log{base: last, last: last, runs: []Last{last}} }

// Last is the newest record.
func (l *Log) Last() Last { return l.last }

// Bytes is the size of what is kept.
func (l *Log) Bytes() int { return l.bytes }

// Add appends the record n = Last().N + 1 of an epoch not below Last().Epoch;
// size is that of its batch, negative if the record is not kept. After step bytes
// it begins another segment.
func (l *Log) Add(epoch uint64, size, step int) Last {
	next := Last{Epoch: epoch, N: l.last.N + 1}
	if size < 0 {
		*l = Log{base: next, last: next, runs: append(l.runs[:0], next)}
		return next
	}
	if epoch != l.last.Epoch {
		l.runs = append(l.runs, next)
	}
	l.last = next
	if k := len(l.segments); k == 0 || l.segments[k-1].bytes >= step {
		l.segments = append(l.segments, segment{first: next.N})
	}
	l.segments[len(l.segments)-1].bytes += size
	l.bytes += size
	return next
}

// At is the record n, which lies between the base and Last.
func (l *Log) At(n uint64) Last {
	i := len(l.runs) - 1
	for l.runs[i].N > n {
		i--
	}
	return Last{Epoch: l.runs[i].Epoch, N: n}
}

// Has reports whether at belongs to this history, and all that came after it is
// kept.
func (l *Log) Has(at Last) bool {
	return at.N >= l.base.N && at.N <= l.last.N && l.At(at.N) == at
}

// Trim forgets the oldest segments while more than keep bytes would be left, but
// nothing above floor. It reports whether it forgot any.
func (l *Log) Trim(keep int, floor uint64) bool {
	drop := 0
	for drop < len(l.segments) && l.bytes-l.segments[drop].bytes >= keep {
		end := l.last.N // the last record of the segment
		if drop+1 < len(l.segments) {
			end = l.segments[drop+1].first - 1
		}
		if end > floor {
			break
		}
		l.bytes -= l.segments[drop].bytes
		l.base = l.At(end)
		drop++
	}
	if drop == 0 {
		return false
	}
	l.segments = append(l.segments[:0], l.segments[drop:]...)
	i := len(l.runs) - 1
	for l.runs[i].N > l.base.N {
		i--
	}
	l.runs = append(l.runs[:0], l.runs[i:]...)
	l.runs[0] = l.base
	return true
}
