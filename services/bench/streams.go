// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"strings"
	"time"
)

// pairs: n publishers, each with a topic and a subscriber of its own.
func pairs(o *Options, res *Result) error {
	r, px := &rig{o: o}, prefix()
	defer r.close()
	for i := range o.N {
		g := r.group(1, o.Window)
		var topics []string
		for k := range o.Each {
			topics = append(topics, fmt.Sprintf("%s%s/%d", px, strings.Repeat("/p", o.Depth-2), i*o.Each+k))
		}
		if err := r.subscriber(i, g, fmt.Sprintf("%ss%d", px, i), topics...); err != nil {
			return err
		}
		if err := r.publisher(i, g, fmt.Sprintf("%sp%d", px, i), topics...); err != nil {
			return err
		}
	}
	return r.run(res)
}

// fanIn: n publishers, each with its own topic, one subscriber to all.
func fanIn(o *Options, res *Result) error {
	r, px := &rig{o: o}, prefix()
	defer r.close()
	g := r.group(1, max(o.Window, o.N*20))
	if err := r.subscriber(0, g, px+"s", px+"/f/#"); err != nil {
		return err
	}
	for i := range o.N {
		if err := r.publisher(i, g, fmt.Sprintf("%sp%d", px, i), fmt.Sprintf("%s/f/%d", px, i)); err != nil {
			return err
		}
	}
	return r.run(res)
}

// fanOut: one publisher, Subs subscribers (500) to one topic.
func fanOut(o *Options, res *Result) error {
	r, px := &rig{o: o}, prefix()
	defer r.close()
	if o.Subs == 0 {
		o.Subs = 500
	}
	o.Buffer = min(o.Buffer, 16<<10)
	g := r.group(o.Subs, o.Window)
	for i := range o.Subs {
		if err := r.subscriber(i, g, fmt.Sprintf("%ss%d", px, i), px+"/o"); err != nil {
			return err
		}
	}
	if err := r.publisher(0, g, px+"p", px+"/o"); err != nil {
		return err
	}
	return r.run(res)
}

// shared: n publishers, Subs members (10) of one shared subscription.
func shared(o *Options, res *Result) error {
	r, px := &rig{o: o}, prefix()
	defer r.close()
	if o.Subs == 0 {
		o.Subs = 10
	}
	g := r.group(1, max(o.Window, o.N*20))
	for i := range o.Subs {
		if err := r.subscriber(i, g, fmt.Sprintf("%ss%d", px, i), "$share/g"+px+"/"+px+"/h/#"); err != nil {
			return err
		}
	}
	for i := range o.N {
		if err := r.publisher(i, g, fmt.Sprintf("%sp%d", px, i), fmt.Sprintf("%s/h/%d", px, i)); err != nil {
			return err
		}
	}
	return r.run(res)
}

// wild: Subs wildcard filters (100,000) over n subscribers; n publishers whose
// messages match one each.
func wild(o *Options, res *Result) error {
	r, px := &rig{o: o}, prefix()
	defer r.close()
	if o.Subs == 0 {
		o.Subs = 100000
	}
	o.N = min(o.N, o.Subs)
	pids := descendants(o.PIDs)
	before, start := settle(pids), time.Now()
	per := o.Subs / o.N
	for i := range o.N {
		g := r.group(1, o.Window)
		var filters, topics []string
		for k := range per {
			filters = append(filters, fmt.Sprintf("%s/w/+/d%d-%d/#", px, i, k))
			if len(topics) < 256 && k%max(1, per/256) == 0 {
				topics = append(topics, fmt.Sprintf("%s/w/a%d/d%d-%d/t", px, k%7, i, k))
			}
		}
		if err := r.subscriber(i, g, fmt.Sprintf("%ss%d", px, i), filters...); err != nil {
			return err
		}
		if err := r.publisher(i, g, fmt.Sprintf("%sp%d", px, i), topics...); err != nil {
			return err
		}
	}
	took := time.Since(start)
	after := settle(pids)
	total := float64(per * o.N)
	res.Extra["subs"] = total
	res.Extra["subscribe_per_s"] = total / took.Seconds()
	res.Extra["subscribe_cpu_us"] = micros(after.cpu-before.cpu) / total
	res.Extra["rss_bytes_per_sub"] = float64(after.rss-before.rss) / total
	return r.run(res)
}
