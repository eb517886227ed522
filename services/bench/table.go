// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"io"
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

// median is the middle of one figure over several results; 0 without any.
func median(all []*Result, figure string) float64 {
	var values []float64
	for _, res := range all {
		if res.Error == "" {
			values = append(values, res.figure(figure))
		}
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

// table writes a comparison row by row.
type table struct {
	w       io.Writer
	brokers []string // Manor first
	floor   int      // the place of the floor among them, 0 without
	// first has the first figure of each row so far, by broker.
	first map[string][]float64
}

func newTable(w io.Writer, peers []peer) *table {
	t := &table{w: w, brokers: []string{"manor"}, first: map[string][]float64{}}
	for i, p := range peers {
		t.brokers = append(t.brokers, p.name)
		if p.name == floorName {
			t.floor = i + 1
		}
	}
	return t
}

func (t *table) head() {
	fmt.Fprintf(t.w, "ratio: manor / %s, asked: its target, or (in brackets) that of manor's figure", t.brokers[1])
	columns := append(slices.Clone(t.brokers), "ratio", "asked")
	if t.floor > 0 {
		fmt.Fprintf(t.w, ", to floor: manor / floor")
		columns = append(columns, "to floor")
	}
	fmt.Fprintf(t.w, "; below 1 is better, except for rates (…/s)\nx ROW: the figure above as a multiple of that row's, for each broker; asked: that of manor's\n\n")
	t.line("scenario", "figure", columns)
}

// asked is the target of a figure; ratios have one if they are to mosquitto.
func (t *table) asked(row, figure string) string {
	if itself := askedItself[row][figure]; itself != 0 {
		return "(" + number(itself) + ")"
	}
	if t.brokers[1] != "mosquitto" {
		return "-"
	}
	return ratio(asked[row][figure], 1)
}

func (t *table) line(name, figure string, columns []string) {
	fmt.Fprintf(t.w, "%-17s %-19s", name, figure)
	for _, column := range columns {
		fmt.Fprintf(t.w, " %10s", column)
	}
	fmt.Fprintln(t.w)
}

// row writes the lines of a row, whose results come by broker.
func (t *table) row(r row, results [][]*Result) {
	name := r.name
	for i, figure := range r.figures {
		medians := make([]float64, len(results))
		var columns []string
		for b := range results {
			medians[b] = median(results[b], figure)
			columns = append(columns, number(medians[b]))
		}
		columns = append(columns, ratio(medians[0], medians[1]), t.asked(r.name, figure))
		if t.floor > 0 {
			columns = append(columns, ratio(medians[0], medians[t.floor]))
		}
		t.line(name, figure, columns)
		name = ""
		if i == 0 {
			t.first[r.name] = medians
			t.multiples(r, medians)
		}
	}
	for i, broker := range t.brokers {
		for n, res := range results[i] {
			if res.Lost > 0 || res.Error != "" {
				fmt.Fprintf(t.w, "%-17s %s, run %d: %d lost %s\n", "", broker, n+1, res.Lost, res.Error)
			}
		}
	}
}

// multiples writes what the first figure of r is of that of r's base.
func (t *table) multiples(r row, medians []float64) {
	base, ok := t.first[r.base]
	if !ok {
		return
	}
	var columns []string
	for b := range medians {
		columns = append(columns, ratio(medians[b], base[b]))
	}
	columns = append(columns, "-", ratio(askedMultiple[r.name], 1))
	t.line("", "x "+r.base, columns)
}

// ratio prints a / b, if both were measured.
func ratio(a, b float64) string {
	if a == 0 || b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", a/b)
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
