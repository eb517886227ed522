// SPDX-License-Identifier: Apache-2.0

package telemetry_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
)

func TestNewLogger(t *testing.T) {
	var b bytes.Buffer
	log, err := telemetry.NewLogger(&b, telemetry.LogConfig{Format: "json", Level: "warn"})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("hidden")
	log.Warn("seen", "n", 1)
	var line struct {
		Msg string `json:"msg"`
		N   int    `json:"n"`
	}
	if err := json.Unmarshal(b.Bytes(), &line); err != nil || line.Msg != "seen" || line.N != 1 {
		t.Errorf("wrote %q: %v", b.String(), err)
	}
	for _, c := range []telemetry.LogConfig{{Format: "xml", Level: "info"}, {Format: "text", Level: "loud"}} {
		if _, err := telemetry.NewLogger(&b, c); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "expected") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestMetrics(t *testing.T) {
	r := telemetry.NewRegistry("broker", "v1")
	table := []telemetry.Metric{
		{Name: "a_total", Kind: telemetry.Counter, Help: "Things."},
		{Name: "b", Kind: telemetry.Gauge, Help: "Bytes.", Labels: []string{"kind"}},
	}
	table[0].Counter(r).Inc()
	table[1].GaugeVec(r).WithLabelValues("x").Set(2)
	got, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, f := range got {
		found[f.GetName()] = true
	}
	for _, name := range []string{"a_total", "b", "manor_build_info", "go_goroutines"} {
		if !found[name] {
			t.Errorf("%s is not there", name)
		}
	}
	var b strings.Builder
	if err := telemetry.Describe(&b, table); err != nil || !strings.Contains(b.String(), "| `b` | gauge | kind | Bytes. |") {
		t.Errorf("%q %v", b.String(), err)
	}
}
