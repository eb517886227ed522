// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"crypto/tls"
	"fmt"
	"sync/atomic"
	"time"
)

// storm: n clients, Conc at a time, connect, subscribe and leave at once.
// Latencies are from the first packet of TCP to SUBACK.
func storm(o *Options, res *Result) error {
	px := prefix()
	visit := func(i int, name string) (resumed bool, took time.Duration, err error) {
		begun := time.Now()
		c, err := o.open(i, name, true, 64)
		if err != nil {
			return false, 0, err
		}
		defer c.leave()
		if nc, ok := c.Conn.(*tls.Conn); ok {
			resumed = nc.ConnectionState().DidResume
		}
		err = c.subscribe(1, byte(o.QoS), fmt.Sprintf("%s/storm/%d/cmd", px, i))
		return resumed, time.Since(begun), err
	}
	for i := range min(warmConnections, o.N) {
		if _, _, err := visit(i, fmt.Sprintf("%sw%d", px, i)); err != nil {
			return err
		}
	}
	pids := descendants(o.PIDs)
	before, start := settle(pids), time.Now()
	took := make([]time.Duration, o.N)
	var resumptions atomic.Int64
	err := each(o.Conc, o.N, func(i int) error {
		resumed, d, err := visit(i, fmt.Sprintf("%sx%d", px, i))
		took[i] = d
		if resumed {
			resumptions.Add(1)
		}
		return err
	})
	if err != nil {
		return err
	}
	all := time.Since(start)
	after := settle(pids)
	n := float64(o.N)
	res.Extra["connects_per_s"] = n / all.Seconds()
	res.Extra["connect_cpu_us"] = micros(after.cpu-before.cpu) / n
	res.Extra["resumed"] = float64(resumptions.Load()) / n
	var h histogram
	for _, d := range took {
		h.add(int64(d))
	}
	res.P50, res.P99 = float64(h.quantile(.5))/1e3, float64(h.quantile(.99))/1e3
	return nil
}
