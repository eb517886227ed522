// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// tricks are ids, as they are written into a path. VICTIM is the victim's tenant or
// organization, and OWN the attacker's.
var tricks = []string{
	"OWN/../VICTIM", "OWN%2F..%2FVICTIM", "OWN%2f%2e%2e%2fVICTIM", "OWN%252F..%252FVICTIM", "OWN;/../VICTIM", "OWN/%2e%2e/VICTIM", "./VICTIM", "%2e/VICTIM", "/VICTIM", "//VICTIM",
	"VICTIM/", "VICTIM%2F", "VICTIM%00", "VICTIM%00OWN", "OWN%00VICTIM", "VICTIM%20", "%20VICTIM", "VICTIM.", "VICTIM;x", "VICTIM%3Fx", "VICTIM%23", "VICTIM%0d%0aX-Tenant:VICTIM",
	"OWN%0aVICTIM", "OWN,VICTIM", "VICTIM%ef%bc%8f", "OWN%5c..%5cVICTIM", "..", "%2e%2e", "..%2f..%2fVICTIM", "*", ">", "VICTIM.>", "%", "%zz", "%ff%fe", "%c0%ae%c0%ae%c0%afVICTIM",
	"\u202eVICTIM", "%E2%80%8BVICTIM", "", "%7Btenant%7D", "%24%7BVICTIM%7D", "VICTIM%27%20OR%201=1", "LONG", "VICTIMLONG",
}

// byPath puts every trick into every parameter of every path, with the attacker's
// key and its own ids in the other parameters. Nothing of the victim's comes, the
// server does not fail, and where the trick stands for the tenant or organization,
// nothing is answered but a problem.
func (s *siege) byPath(t *testing.T) {
	c := newRawClient(t, s.p)
	count := 0
	for _, op := range s.document.calls() {
		for _, name := range parameters(op.path) {
			victim, own := s.victim.ids[name], "x"
			if id := s.attacker.ids[name]; id != "" {
				own = id
			}
			for _, trick := range tricks {
				id := strings.NewReplacer("VICTIM", victim, "OWN", own, "LONG", strings.Repeat("a", 8000)).Replace(trick)
				path := strings.ReplaceAll(op.path, "{"+name+"}", id)
				for other, value := range s.attacker.ids {
					path = strings.ReplaceAll(path, "{"+other+"}", value)
				}
				for _, other := range parameters(path) {
					path = strings.ReplaceAll(path, "{"+other+"}", "x")
				}
				a := c.ask(op.method, path, s.attacker.Key)
				count++
				switch {
				case a.status >= 500, a.status < 200, (name == "tenant" || name == "organization") && a.status < 400:
					t.Errorf("%s: %s: %d %.300s", op.id, short(a.asked), a.status, a.body)
				case a.status < 300 && slices.Contains([]string{"GET", "DELETE"}, op.method) && strings.Contains(trick, "VICTIM"):
					a.cleanBut(t, id)
				}
			}
		}
	}
	if count < 4000 {
		t.Errorf("%d requests: too few", count)
	}
}

func short(s string) string { return fmt.Sprintf("%.200q", s) }

// cleanBut is clean where the answer may repeat the id.
func (a answer) cleanBut(t *testing.T, id string) {
	t.Helper()
	a.body = []byte(strings.ReplaceAll(string(a.body), id, ""))
	a.clean(t)
}

// rawClient sends paths as they are, which net/http's client would not.
type rawClient struct {
	t    *testing.T
	addr string
	conn net.Conn
	r    *bufio.Reader
}

func newRawClient(t *testing.T, p *Product) *rawClient {
	c := &rawClient{t: t, addr: strings.TrimPrefix(p.API, "http://")}
	t.Cleanup(func() {
		if c.conn != nil {
			_ = c.conn.Close()
		}
	})
	return c
}

func (c *rawClient) ask(method, path, key string) answer {
	c.t.Helper()
	a := answer{asked: method + " " + path}
	for attempt := 0; ; attempt++ {
		if c.conn == nil {
			conn, err := net.Dial("tcp", c.addr)
			if err != nil {
				c.t.Fatal(err)
			}
			c.conn, c.r = conn, bufio.NewReader(conn)
		}
		_ = c.conn.SetDeadline(time.Now().Add(10 * time.Second))
		body := ""
		if method != http.MethodGet && method != http.MethodDelete {
			body = "{}"
		}
		_, err := fmt.Fprintf(c.conn, "%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", method, path, c.addr, key, len(body), body)
		var resp *http.Response
		if err == nil {
			resp, err = http.ReadResponse(c.r, &http.Request{Method: method})
		}
		if err == nil {
			a.body, err = io.ReadAll(resp.Body)
		}
		if err == nil {
			a.status, a.header = resp.StatusCode, resp.Header
			if resp.Close {
				_ = c.conn.Close()
				c.conn = nil
			}
			return a
		}
		_ = c.conn.Close()
		c.conn = nil
		if attempt > 0 { // the server may have ended one that was kept
			c.t.Fatalf("%s: %v", short(a.asked), err)
		}
	}
}
