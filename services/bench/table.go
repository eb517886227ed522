// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
)

// figure returns one figure of res by its name in JSON.
func (res *Result) figure(name string) float64 {
	switch name {
	case "rate":
		return res.Rate
	case "cpu_us":
		return res.CPU
	case "peak_rss_mb":
		return res.PeakRSS
	case "p50_us":
		return res.P50
	case "p99_us":
		return res.P99
	}
	return res.Extra[name]
}

// median is the middle of one figure over several results; 0 without any. Memory
// for each of something is the first result's: later runs find memory that the
// broker has kept.
func median(all []*Result, figure string) float64 {
	var values []float64
	if strings.HasPrefix(figure, "rss_") && len(all) > 0 {
		all = all[:1]
	}
	for _, res := range all {
		values = append(values, res.figure(figure))
	}
	slices.Sort(values)
	if len(values) == 0 {
		return 0
	}
	if n := len(values); n%2 == 0 {
		return (values[n/2-1] + values[n/2]) / 2
	}
	return values[len(values)/2]
}

// number prints v with three digits that mean something; 0 is what was not
// measured.
func number(v float64) string {
	switch {
	case v == 0:
		return "-"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// machine says what this runs on.
func machine() string {
	model := "unknown CPU"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if _, name, ok := strings.Cut(line, ":"); ok && strings.HasPrefix(line, "model name") {
				model = strings.TrimSpace(name)
				break
			}
		}
	}
	load := ""
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		load = ", load average " + strings.Join(strings.Fields(string(b))[:3], " ")
	}
	return fmt.Sprintf("%d x %s, %s, %s/%s%s", runtime.NumCPU(), model, runtime.Version(), runtime.GOOS, runtime.GOARCH, load)
}
