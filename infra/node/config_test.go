// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/node"
)

type listenerConfig struct {
	Name string        `yaml:"name" doc:"its name"`
	Wait time.Duration `yaml:"wait" doc:"how long"`
}

type testConfig struct {
	node.Config `yaml:",squash"`
	Data        string            `yaml:"data" doc:"the folder of this process"`
	Workers     int               `yaml:"workers" doc:"how many"`
	Tags        []string          `yaml:"tags" doc:"words"`
	Labels      map[string]string `yaml:"labels" doc:"pairs"`
	Listeners   []listenerConfig  `yaml:"listeners" doc:"where to listen"`
}

func (c *testConfig) Validate() error {
	if c.Workers < 1 {
		return errs.New(errs.Invalid, "workers: expected at least 1, found %d", c.Workers)
	}
	return nil
}

func defaults() *testConfig {
	c := &testConfig{Config: node.DefaultConfig("127.0.0.1:8888"), Data: "./data", Workers: 2}
	c.Listeners = []listenerConfig{{Name: "mqtt", Wait: time.Second}}
	return c
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadConfig_Order(t *testing.T) {
	c := defaults()
	fs := pflag.NewFlagSet("t", pflag.ContinueOnError)
	node.RegisterFlags(fs, c)
	if err := fs.Parse([]string{"--data=flag"}); err != nil {
		t.Fatal(err)
	}
	err := node.LoadConfig(c, node.Sources{
		File: write(t, "data: file\nworkers: 3\ntags: [a, b]\nlabels: {x: y}\noperator:\n  listen: 127.0.0.1:1\n"+
			"drain_timeout: 7s\nlisteners:\n- name: one\n  wait: 3s\n"),
		Environ: []string{"MANOR_DATA=env", "MANOR_WORKERS=4", "MANOR_LOG_LEVEL=debug", "MANOR_TAGS=c, d", "PATH=/bin"},
		Flags:   fs,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Data, want.Workers, want.Tags, want.Labels = "flag", 4, []string{"c", "d"}, map[string]string{"x": "y"}
	want.Log.Level, want.Operator.Listen, want.DrainTimeout = "debug", "127.0.0.1:1", 7*time.Second
	want.Listeners = []listenerConfig{{Name: "one", Wait: 3 * time.Second}}
	if d := cmp.Diff(want, c); d != "" {
		t.Error(d)
	}
}

func TestLoadConfig_ListFromEnvironment(t *testing.T) {
	c := defaults()
	if err := node.LoadConfig(c, node.Sources{Environ: []string{"MANOR_LISTENERS=[{name: x, wait: 2s}]"}}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]listenerConfig{{Name: "x", Wait: 2 * time.Second}}, c.Listeners); d != "" {
		t.Error(d)
	}
}

func TestLoadConfig_Refuses(t *testing.T) {
	for _, c := range []struct{ name, file, env, want string }{
		{"unknown key", "dta: x\n", "", `"dta" is not known; did you mean "data"`},
		{"unknown key in a section", "operator:\n  lsten: x\n", "", `did you mean "operator.listen"`},
		{"unknown key in a list", "listeners:\n- nam: x\n", "", `did you mean "listeners[].name"`},
		{"typo in the environment", "", "MANOR_DTA=x", "did you mean MANOR_DATA"},
		{"not a duration", "drain_timeout: soon\n", "", "drain_timeout"},
		{"not a number", "", "MANOR_WORKERS=many", "workers"},
		{"not valid", "workers: 0\n", "", "expected at least 1"},
		{"not YAML", "a: b: c\n", "", "configuration file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := node.Sources{}
			if c.file != "" {
				src.File = write(t, c.file)
			}
			if c.env != "" {
				src.Environ = []string{c.env}
			}
			err := node.LoadConfig(defaults(), src)
			if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if err := node.LoadConfig(defaults(), node.Sources{File: "/nowhere.yaml"}); !errs.Is(err, errs.Invalid) {
		t.Errorf("missing file: %v", err)
	}
}

func TestLoadConfig_WarnsOfOtherVariables(t *testing.T) {
	var warned []string
	err := node.LoadConfig(defaults(), node.Sources{
		Environ: []string{"MANOR_SHARDS_OF_BROKER=4", "MANOR_OPERATOR=http://127.0.0.1:8888", "MANOR_API_KEY=mk_x"}, // the last two are of manor's commands
		Warn:    func(s string) { warned = append(warned, s) },
	})
	if err != nil || len(warned) != 1 {
		t.Errorf("%v, warned %q", err, warned)
	}
}

func TestDescribe(t *testing.T) {
	var b strings.Builder
	if err := node.WriteMarkdown(&b, "Test", defaults()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| `data` | `MANOR_DATA` | text | `./data` | the folder of this process |",
		"| `listeners` | `MANOR_LISTENERS` | list of entries | `[{name: mqtt, wait: 1s}]` | where to listen |",
		"| `listeners[].wait` |  | duration |  | how long |",
		"| `operator.listen` | `MANOR_OPERATOR_LISTEN` | text | `127.0.0.1:8888` |",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no line %s in\n%s", want, b.String())
		}
	}
	for _, r := range node.Describe(defaults()) {
		if r.Doc == "" {
			t.Errorf("%s has no doc", r.Key)
		}
	}
}
