// SPDX-License-Identifier: Apache-2.0

// Package domainstest is a DNS server on loopback for tests of custom domains, made with
// a library that others wrote. The server owns its goroutines until the test ends.
package domainstest

import (
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// DNS answers for the names that it was given; others do not exist. It is safe for
// concurrent use.
type DNS struct {
	// Address is its host:port, for UDP and TCP.
	Address string

	mu    sync.Mutex
	texts map[string][]string // guarded by mu; by name
	hosts map[string]string   // guarded by mu; by name
	down  bool                // guarded by mu
}

// NewDNS starts a server that ends with the test.
func NewDNS(t testing.TB) *DNS {
	t.Helper()
	d := &DNS{texts: map[string][]string{}, hosts: map[string]string{}}
	var tcp net.Listener
	var udp net.PacketConn
	for range 20 { // both need the same port
		var err error
		if tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if udp, err = net.ListenPacket("udp", tcp.Addr().String()); err == nil {
			break
		}
		_ = tcp.Close()
	}
	if udp == nil {
		t.Fatal("no port is free for both UDP and TCP")
	}
	d.Address = tcp.Addr().String()
	for _, s := range []*dns.Server{{Listener: tcp, Handler: d}, {PacketConn: udp, Handler: d}} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = s.ActivateAndServe() // ends with its socket
		}()
		t.Cleanup(func() {
			_, _ = tcp.Close(), udp.Close()
			<-done
		})
	}
	return d
}

// Text has a name have these TXT records; none takes them away.
func (d *DNS) Text(name string, values ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.texts[strings.ToLower(name)] = values
}

// Host has a name lead to an address (IPv4).
func (d *DNS) Host(name, address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hosts[strings.ToLower(name)] = address
}

// Down has every question answered with SERVFAIL, or not any more.
func (d *DNS) Down(down bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.down = down
}

// ServeDNS implements dns.Handler.
func (d *DNS) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := new(dns.Msg)
	m.SetReply(r)
	m.Authoritative = true
	name := strings.ToLower(strings.TrimSuffix(r.Question[0].Name, "."))
	header := func(kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: r.Question[0].Name, Rrtype: kind, Class: dns.ClassINET}
	}
	texts, address := d.texts[name], d.hosts[name]
	switch kind := r.Question[0].Qtype; {
	case d.down:
		m.Rcode = dns.RcodeServerFailure
	case len(texts) == 0 && address == "" && kind != dns.TypeCAA:
		m.Rcode = dns.RcodeNameError
	case kind == dns.TypeTXT:
		for _, v := range texts {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: header(dns.TypeTXT), Txt: []string{v}})
		}
	case kind == dns.TypeA && address != "":
		m.Answer = append(m.Answer, &dns.A{Hdr: header(dns.TypeA), A: net.ParseIP(address)})
	}
	_ = w.WriteMsg(m) // who asks is gone if this fails
}
