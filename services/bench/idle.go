// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"syscall"
	"time"
)

// warmConnections are made and ended before memory is measured, so that it does
// not include what a broker allocates once.
const warmConnections = 32

// idle: n connections that do nothing; with Subs above 0 each has a
// subscription. CPU at rest is measured for Duration without them, and with them.
func idle(o *Options, res *Result) error {
	px := prefix()
	if o.N == 0 {
		o.N = mostConnections()
	}
	clients := make([]*client, o.N)
	defer func() {
		for _, c := range clients {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	open := func(i int) (err error) {
		if clients[i], err = o.open(i, fmt.Sprintf("%si%d", px, i), true, 64); err == nil && o.Subs > 0 {
			err = clients[i].subscribe(1, byte(o.QoS), fmt.Sprintf("%s/idle/%d/cmd", px, i))
		}
		return err
	}
	for i := range min(warmConnections, o.N) {
		if err := open(i); err != nil {
			return err
		}
		clients[i].leave()
		clients[i] = nil
	}
	pids := descendants(o.PIDs)
	before := settle(pids)
	res.Extra["rest_cpu_us_per_s"] = atRest(pids, o.Duration)
	busy, start := sample(pids), time.Now()
	if err := each(o.Conc, o.N, open); err != nil {
		return err
	}
	took := time.Since(start)
	after := settle(pids)
	n := float64(o.N)
	res.Extra["conns"] = n
	res.Extra["connect_per_s"] = n / took.Seconds()
	res.Extra["connect_cpu_us"] = micros(after.cpu-busy.cpu) / n
	res.Extra["rss_bytes_per_conn"] = float64(after.rss-before.rss) / n
	res.PeakRSS = float64(after.rss) / (1 << 20)
	res.Extra["idle_cpu_us_per_s"] = atRest(pids, o.Duration)
	return o.pauses.report(res)
}

// atRest is the CPU time that the processes of pids take in a second of d, in
// microseconds. The kernel counts it in steps of 10 ms.
func atRest(pids []int, d time.Duration) float64 {
	before, start := sample(pids), time.Now()
	time.Sleep(d)
	return micros(sample(pids).cpu-before.cpu) / time.Since(start).Seconds()
}

// mostConnections is how many connections a broker with the limit of open files
// of this process can have beside its own files, at most 19,000.
func mostConnections() int {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return 1
	}
	return int(min(19_000, lim.Max-lim.Max/20))
}

// settle waits until the processes of pids have rested for 0.6 s, a minute at
// the most, and samples them.
func settle(pids []int) usage { return settleWithin(pids, time.Minute) }

// settleWithin is settle with another bound.
func settleWithin(pids []int, most time.Duration) usage {
	const pause, rested = 200 * time.Millisecond, 3
	last, quiet := sample(pids), 0
	for end := time.Now().Add(most); quiet < rested && time.Now().Before(end); {
		time.Sleep(pause)
		now := sample(pids)
		moved := max(now.rss-last.rss, last.rss-now.rss)
		if quiet++; moved > last.rss/100 || now.cpu-last.cpu > time.Second/ticks {
			quiet = 0
		}
		last = now
	}
	return last
}
