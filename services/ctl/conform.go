// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/conform/script"
)

// conformance are the flags of manor conform.
type conformance struct {
	options            script.Options
	tls, insecure      bool
	ca, name, versions string
	match              string
	verbose, json      bool
}

func conform() *cobra.Command {
	k := &conformance{}
	c := &cobra.Command{
		Use:   "conform --broker HOST:PORT",
		Short: "test a broker against the statements of MQTT 3.1, 3.1.1 and 5.0",
		Long: "Runs scripted conversations with a broker, any broker, and prints for each script and version\n" +
			"whether the broker keeps to the specification: if not, the line of the script, what was\n" +
			"expected, what came, and the statement. It uses ClientIDs and topics of its own, and cleans up.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := JSON(cmd)
			if err != nil {
				return err
			}
			k.json = k.json || asJSON
			return k.run(cmd)
		},
	}
	f := c.Flags()
	f.StringVar(&k.options.Broker, "broker", "127.0.0.1:1883", "broker, host:port, or several faces of one, comma separated, that scripts take in turn")
	f.BoolVar(&k.options.Spread, "spread", false, "connections, not scripts, take the faces of the broker in turn")
	f.BoolVar(&k.tls, "tls", false, "connect with TLS")
	f.StringVar(&k.ca, "ca", "", "PEM file with the CA of the broker's certificate (the system's CAs)")
	f.StringVar(&k.name, "server-name", "", "name of the broker in SNI and in its certificate (that of --broker)")
	f.BoolVar(&k.insecure, "insecure", false, "do not verify the broker's certificate")
	f.BoolVar(&k.options.WebSocket, "ws", false, "connect with WebSocket, with --tls inside of TLS")
	f.StringVar(&k.options.Path, "ws-path", "/mqtt", "path of WebSocket")
	f.StringVar(&k.options.Username, "username", "", "user name")
	f.StringVar(&k.options.Password, "password", "", "password")
	f.StringVar(&k.versions, "mqtt", "3.1,3.1.1,5", "versions of MQTT, comma separated")
	f.BoolVar(&k.options.Silent, "silent", false, "the broker does not tell clients of 3.1 what it refuses: run what is about that")
	f.StringVar(&k.match, "run", "", "run only the scripts whose names match this regular expression")
	f.DurationVar(&k.options.Timeout, "timeout", 5*time.Second, "how long the broker may take for a packet")
	f.DurationVar(&k.options.Quiet, "quiet", 300*time.Millisecond, "how long nothing has to come where nothing is to come")
	f.IntVar(&k.options.Jobs, "jobs", 64, "scripts at a time")
	f.BoolVarP(&k.verbose, "verbose", "v", false, "print all packets of the scripts that fail")
	f.BoolVar(&k.json, "json", false, "print a line of JSON for each script and version (as -o json)")
	return c
}

func (k *conformance) run(cmd *cobra.Command) error {
	if err := k.prepare(); err != nil {
		return errs.New(errs.Invalid, "%w", err)
	}
	scripts, err := script.Load()
	if err != nil {
		return err
	}
	var mu sync.Mutex
	counts := map[string]int{}
	k.options.MustLetIn = true
	k.options.Each = func(r script.Result) {
		mu.Lock()
		defer mu.Unlock()
		counts[verdict(r)]++
		k.print(cmd.OutOrStdout(), r)
	}
	if _, err := script.Run(cmd.Context(), scripts, &k.options); err != nil {
		return errs.New(errs.Invalid, "%w", err)
	}
	if !k.json {
		fmt.Fprintf(cmd.OutOrStdout(), "%d ok, %d failed, %d skipped\n", counts["ok"], counts["FAIL"], counts["skip"])
	}
	switch {
	case counts["FAIL"] > 0:
		return errs.New(errs.Unavailable, "%s fails %d scripts", k.options.Broker, counts["FAIL"])
	case counts["ok"] == 0:
		return errs.New(errs.Invalid, "no script ran: --run %q and --mqtt %s chose none", k.match, k.versions)
	}
	return nil
}

// prepare reads the flags that are more than their text.
func (k *conformance) prepare() (err error) {
	for name := range strings.SplitSeq(k.versions, ",") {
		v, err := script.Version(strings.TrimSpace(name))
		if err != nil {
			return fmt.Errorf("--mqtt: %w", err)
		}
		k.options.Versions = append(k.options.Versions, v)
	}
	if k.match != "" {
		if k.options.Match, err = regexp.Compile(k.match); err != nil {
			return fmt.Errorf("--run: %w", err)
		}
	}
	k.options.RunID = strconv.FormatInt(36*36*36*36+rand.Int64N(35*36*36*36*36), 36)
	if !k.tls {
		if k.ca != "" || k.name != "" || k.insecure {
			return fmt.Errorf("--ca, --server-name and --insecure: expected --tls with them")
		}
		return nil
	}
	k.options.TLS, err = k.security()
	return err
}

func (k *conformance) security() (*tls.Config, error) {
	name := k.name
	if name == "" {
		name = k.options.Broker[:max(0, strings.LastIndex(k.options.Broker, ":"))]
	}
	c := &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12, InsecureSkipVerify: k.insecure}
	if k.ca == "" {
		return c, nil
	}
	pem, err := os.ReadFile(k.ca)
	if err != nil {
		return nil, fmt.Errorf("--ca: %w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--ca: no certificate in %s", k.ca)
	}
	return c, nil
}

func verdict(r script.Result) string {
	switch {
	case r.Skipped != "":
		return "skip"
	case r.Failure != nil:
		return "FAIL"
	}
	return "ok"
}

func (k *conformance) print(w io.Writer, r script.Result) {
	if !k.verbose || r.Failure == nil {
		r.Trace = nil
	}
	if k.json {
		_ = json.NewEncoder(w).Encode(r)
		return
	}
	fmt.Fprintf(w, "%-4s  %-5s  %s: %s\n", verdict(r), r.Version, r.Script, r.Title)
	if f := r.Failure; f != nil {
		fmt.Fprintf(w, "      %s:%d: %s\n      expected %s\n      got      %s\n", f.File, f.Line, f.Step, f.Want, f.Got)
		for _, st := range f.Statements {
			fmt.Fprintf(w, "      %s\n", st)
		}
	}
	for _, line := range r.Trace {
		fmt.Fprintf(w, "      %s\n", line)
	}
}
