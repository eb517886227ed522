// SPDX-License-Identifier: Apache-2.0

package operate

import (
	"context"
	_ "embed" // of the page
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/manormq/manor/infra/errs"
)

// Prefix is where Handler is mounted.
const Prefix = "/api/v1"

// command is what stands behind a path.
type command struct {
	// changes says that it takes a POST and nothing else.
	changes bool
	// args are the names that the query may have; anyArgs allows all.
	args    []string
	anyArgs bool
	run     func(ctx context.Context, c Cluster, args url.Values) ([]Element, error)
}

// Handler answers the commands below Prefix.
func Handler(c Cluster) http.Handler {
	all := commands()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.Trim(strings.TrimPrefix(r.URL.Path, Prefix), "/")
		cmd, ok := all[path]
		if !ok {
			refuse(w, errs.New(errs.Invalid, "there is no command %q; expected one of: %s", path, strings.Join(names(all), ", ")))
			return
		}
		switch {
		case cmd.changes && r.Method != http.MethodPost, !cmd.changes && r.Method != http.MethodGet && r.Method != http.MethodHead:
			want := http.MethodGet
			if cmd.changes {
				want = http.MethodPost
			}
			w.Header().Set("Allow", want)
			write(w, http.StatusMethodNotAllowed, alert("expected "+want+" for "+path+", found "+r.Method))
			return
		case cmd.changes && !local(r):
			write(w, http.StatusForbidden, alert("changes are taken from this machine only: run the command here, with manor admin"))
			return
		}
		args, err := cmd.read(r.URL.Query())
		if err != nil {
			refuse(w, err)
			return
		}
		out, err := cmd.run(r.Context(), c, args)
		if err != nil {
			refuse(w, err)
			return
		}
		write(w, http.StatusOK, out)
	})
	// A page of another site that is open in a browser here must not steer the cluster.
	return http.NewCrossOriginProtection().Handler(h)
}

// local reports whether a request came from this machine, and means it: a name that
// leads here is a browser that was led astray.
func local(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	ip := net.ParseIP(host)
	if err != nil || ip == nil || !ip.IsLoopback() {
		return false
	}
	name := r.Host
	if h, _, err := net.SplitHostPort(name); err == nil {
		name = h
	}
	ip = net.ParseIP(strings.Trim(name, "[]"))
	return name == "localhost" || ip != nil && ip.IsLoopback()
}

// read returns the arguments, without the dashes that flags have. The error is Invalid.
func (c *command) read(query url.Values) (url.Values, error) {
	args := url.Values{}
	for key, values := range query {
		key = strings.TrimLeft(key, "-")
		if !c.anyArgs && !slices.Contains(c.args, key) {
			if len(c.args) == 0 {
				return nil, errs.New(errs.Invalid, "expected no arguments, found %q", key)
			}
			return nil, errs.New(errs.Invalid, "expected the arguments %s, found %q", strings.Join(c.args, ", "), key)
		}
		args[key] = values
	}
	return args, nil
}

func alert(text string) Element {
	return Element{Type: TypeAlert, Alert: []Element{Text(text)}}
}

// statuses are the codes of the kinds of error.
var statuses = map[errs.Kind]int{
	errs.Invalid: http.StatusBadRequest, errs.Denied: http.StatusForbidden, errs.NotFound: http.StatusNotFound,
	errs.Conflict: http.StatusConflict, errs.Unavailable: http.StatusServiceUnavailable,
}

func refuse(w http.ResponseWriter, err error) {
	code, ok := statuses[errs.KindOf(err)]
	if !ok {
		code = http.StatusInternalServerError
	}
	write(w, code, alert(err.Error()))
}

// Err is the error that an answer with that status says, nil for none.
func Err(status int, elements []Element) error {
	if status < http.StatusBadRequest {
		return nil
	}
	text := http.StatusText(status)
	if len(elements) > 0 && len(elements[0].Alert) > 0 {
		text = elements[0].Alert[0].Text
	}
	for kind, code := range statuses {
		if code == status {
			return errs.New(kind, "%s", text)
		}
	}
	return errs.New(errs.Internal, "%s", text)
}

// write writes one element as VerneMQ does: itself, and several as a list.
func write(w http.ResponseWriter, code int, v any) {
	if all, ok := v.([]Element); ok && len(all) == 1 {
		v = all[0]
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n')) // the client is gone if this fails
}

// Read is the answer in body: one element or a list of them.
func Read(body []byte) ([]Element, error) {
	var all []Element
	if err := json.Unmarshal(body, &all); err == nil {
		return all, nil
	}
	var one Element
	if err := json.Unmarshal(body, &one); err != nil || one.Type == "" {
		return nil, errors.New("expected the answer of a broker's operator listener")
	}
	return []Element{one}, nil
}

// Page is /status: one file without anything from elsewhere, which polls /status.json.
//
//go:embed status.html
var Page []byte

// Status is what /status.json says: VerneMQ's list of one object, from the names of
// nodes to their figures.
func Status(ctx context.Context, c Cluster) any { return []map[string]Node{c.Nodes(ctx)} }

// Complete is the health check listeners_full_cluster: every member is reached and has
// its listeners. The error is Unavailable.
func Complete(ctx context.Context, c Cluster) error {
	nodes := c.Nodes(ctx)
	var missing []string
	for _, m := range c.Members() {
		n, ok := nodes[m.Name]
		if !ok {
			missing = append(missing, m.Name+" does not answer")
			continue
		}
		for _, l := range n.Listeners {
			if l.Status != Running {
				missing = append(missing, m.Name+": the listener at "+net.JoinHostPort(l.IP, l.Port)+" is "+l.Status)
			}
		}
	}
	if len(missing) > 0 {
		return errs.New(errs.Unavailable, "%s", strings.Join(missing, "; "))
	}
	return nil
}

// Running is the status of a listener that listens.
const Running = "running"
