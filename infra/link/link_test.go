// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/link/linktest"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/wire"
)

func TestLink_Direct(t *testing.T) {
	linktest.Run(t, func(_ testing.TB, attach linktest.Attach, gw link.Gateway) linktest.Link {
		return linktest.Link{Broker: attach(gw, "gateway-1")}
	})
}

func TestLink_Pipe(t *testing.T) {
	linktest.Run(t, func(t testing.TB, attach linktest.Attach, gw link.Gateway) linktest.Link {
		a, b := wire.Pipe()
		var broker *wire.Conn
		var err error
		var wg sync.WaitGroup
		wg.Go(func() {
			broker, err = wire.New(context.Background(), b, wire.Config{Node: "broker-1", Features: link.Features})
		})
		gateway, gerr := wire.New(context.Background(), a, wire.Config{Node: "gateway-1", Features: link.Features})
		if wg.Wait(); err != nil || gerr != nil {
			t.Fatal(err, gerr)
		}
		go func() { _ = link.Accept(context.Background(), broker, attach) }()
		return linktest.Link{Broker: link.Connect(gateway, gw), Cut: func() { _ = a.Close() }}
	})
}

func TestLink_TCP(t *testing.T) {
	ca := newAuthority(t)
	linktest.Run(t, func(t testing.TB, attach linktest.Attach, gw link.Gateway) linktest.Link {
		addr, stop := serve(t, ca.config(t, "broker-1"), attach)
		b, err := link.Dial(context.Background(), addr, ca.config(t, "gateway-1"), "gateway-1", gw)
		if err != nil {
			t.Fatal(err)
		}
		return linktest.Link{Broker: b, Cut: stop}
	})
}

// A batch that the broker cannot send does not vanish: both ends of the link
// hear that it has ended.
func TestLink_BatchTooLargeEndsTheLink(t *testing.T) {
	a, b := wire.Pipe()
	var broker *wire.Conn
	var err error
	var wg sync.WaitGroup
	wg.Go(func() { broker, err = wire.New(t.Context(), b, wire.Config{Node: "broker-1", MaxBatch: 1 << 10}) })
	gateway, gerr := wire.New(t.Context(), a, wire.Config{Node: "gateway-1"})
	if wg.Wait(); err != nil || gerr != nil {
		t.Fatal(err, gerr)
	}
	gws := make(chan link.Gateway, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- link.Accept(context.Background(), broker, func(gw link.Gateway, _ string) link.Broker {
			gws <- gw
			return noBroker{}
		})
	}()
	lost := make(chan error, 1)
	_ = link.Connect(gateway, &lostGateway{lost: lost})
	(<-gws).Receive(&link.Down{
		Messages: []mqtt.Message{{Topic: []byte("t"), Payload: make([]byte, 1<<10)}},
		Frames:   []link.DownFrame{{Kind: link.DownDeliver}},
	})
	for name, c := range map[string]chan error{"Accept": ended, "Lost": lost} {
		select {
		case err := <-c:
			if name == "Accept" && !errors.Is(err, wire.ErrTooLarge) {
				t.Errorf("%s: %v, want ErrTooLarge", name, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s does not hear of it", name)
		}
	}
}

// lostGateway hears of the end of its link only.
type lostGateway struct{ lost chan error }

func (*lostGateway) Receive(*link.Down) {}
func (*lostGateway) Flush()             {}
func (g *lostGateway) Lost(err error)   { g.lost <- err }

func TestDial_StrangersAreRefused(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	attached := make(chan string, 8)
	addr, _ := serve(t, ca.config(t, "broker-1"), func(_ link.Gateway, peer string) link.Broker {
		attached <- peer
		return new(linktest.Broker)
	})
	for name, conf := range map[string]*tls.Config{
		"another CA":     other.config(t, "gateway-1"),
		"no certificate": {RootCAs: ca.pool, MinVersion: tls.VersionTLS13},
		"another name":   ca.config(t, "gateway-2"),
	} {
		t.Run(name, func(t *testing.T) {
			g := linktest.NewGateway()
			b, err := link.Dial(t.Context(), addr, conf, "gateway-1", g)
			if err == nil { // in TLS 1.3 the server judges after the client is done
				linktest.Until(t, "refusal", func() bool {
					defer b.Flush()
					return b.Send(linktest.EveryUp()) != nil
				})
			}
		})
	}
	if len(attached) > 0 {
		t.Errorf("%q was attached", <-attached)
	}
}

// A broker of the table is who it says, at whatever address it is.
func TestDialBroker_ChecksTheName(t *testing.T) {
	ca := newAuthority(t)
	addr, _ := serve(t, ca.config(t, "broker-1"), func(link.Gateway, string) link.Broker { return noBroker{} })
	g := linktest.NewGateway()
	b, err := link.DialBroker(t.Context(), link.TableBroker{Name: "broker-1", Address: addr}, ca.config(t, "gateway-1"), "gateway-1", g)
	if err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
	if _, err := link.DialBroker(t.Context(), link.TableBroker{Name: "broker-2", Address: addr}, ca.config(t, "gateway-1"), "gateway-1", g); err == nil {
		t.Error("broker-1 is taken for broker-2")
	}
	plain, _ := serve(t, nil, func(link.Gateway, string) link.Broker { return noBroker{} }) // which calls itself broker
	if b, err = link.DialBroker(t.Context(), link.TableBroker{Name: "broker", Address: plain}, nil, "gateway-1", g); err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
	if _, err := link.DialBroker(t.Context(), link.TableBroker{Name: "broker-2", Address: plain}, nil, "gateway-1", g); err == nil {
		t.Error("without TLS, broker is taken for broker-2")
	}
}

// A gateway that knows no owners gets no table, and is refused where others are
// told who has the partition.
func TestServe_OldGateways(t *testing.T) {
	for _, c := range []struct {
		features uint32
		want     []link.DownKind
	}{
		{0, []link.DownKind{link.DownOpened, link.DownRefused, link.DownGoaway}},
		{link.FeatureOwners, []link.DownKind{link.DownTable, link.DownOpened, link.DownMoved, link.DownGoaway}},
	} {
		a, b := wire.Pipe()
		var broker *wire.Conn
		var err error
		var wg sync.WaitGroup
		wg.Go(func() { broker, err = wire.New(t.Context(), b, wire.Config{Node: "broker-1", Features: link.Features}) })
		gateway, gerr := wire.New(t.Context(), a, wire.Config{Node: "gateway-1", Features: c.features})
		if wg.Wait(); err != nil || gerr != nil {
			t.Fatal(err, gerr)
		}
		go func() {
			_ = link.Accept(t.Context(), broker, func(gw link.Gateway, _ string) link.Broker {
				gw.Receive(&link.Down{Frames: []link.DownFrame{
					{Kind: link.DownTable, Table: &link.TableUpdate{Partitions: 1}},
					{Kind: link.DownOpened, Channel: 1},
					{Kind: link.DownMoved, Channel: 2, Moved: &link.Moved{}},
					{Kind: link.DownGoaway},
				}})
				gw.Flush()
				return noBroker{}
			})
		}()
		g := linktest.NewGateway()
		l := link.Connect(gateway, g)
		linktest.Until(t, "frames", func() bool { f, _ := g.Flushed(); return len(f) >= len(c.want) })
		frames, _ := g.Flushed()
		var got []link.DownKind
		for i := range frames {
			got = append(got, frames[i].Kind)
			if frames[i].Kind == link.DownRefused && (frames[i].Channel != 2 || frames[i].Reason != mqtt.ServerUnavailable) {
				t.Errorf("the refusal is %+v", frames[i])
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("with features %b the frames are %v, want %v", c.features, got, c.want)
		}
		_ = l.Close()
	}
}

func TestServe_RandomBytesEndOnlyTheirLink(t *testing.T) {
	ca := newAuthority(t)
	var mu sync.Mutex
	brokers := 0
	addr, _ := serve(t, ca.config(t, "broker-1"), func(link.Gateway, string) link.Broker {
		mu.Lock()
		defer mu.Unlock()
		brokers++
		return noBroker{}
	})
	junk := make([]byte, 1<<16)
	for i := range 20 {
		_, _ = rand.Read(junk)
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 1 { // a node with a certificate that goes mad
			secure := ca.config(t, "gateway-1")
			secure.ServerName = "127.0.0.1"
			nc = tls.Client(nc, secure)
			_, _ = nc.Write(append([]byte("MLNK\x00\x01\x00\x00\x00\x00\x09gateway-1"), junk...))
		} else {
			_, _ = nc.Write(junk)
		}
		_ = nc.SetReadDeadline(time.Now().Add(20 * time.Second))
		var timeout net.Error
		if _, err := io.Copy(io.Discard, nc); errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("connection %d was not ended", i)
		}
		_ = nc.Close()
	}
	b, err := link.Dial(t.Context(), addr, ca.config(t, "gateway-1"), "gateway-1", linktest.NewGateway())
	if err != nil {
		t.Fatalf("a good gateway after the bad: %v", err)
	}
	_ = b.Close()
}

// noBroker takes everything.
type noBroker struct{}

func (noBroker) Send(*link.Up) error { return nil }
func (noBroker) Post(*link.Up) error { return nil }
func (noBroker) Flush()              {}
func (noBroker) Close() error        { return nil }

// serve serves links on a free port until stop or the end of the test.
func serve(t testing.TB, conf *tls.Config, attach linktest.Attach) (addr string, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- link.Serve(ctx, ln, conf, attach) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return ln.Addr().String(), stop
}

// authority is a CA for one test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return authority{cert, key, pool}
}

// config is what wire.TLS makes of files, for the node of that name.
func (a authority) config(t testing.TB, node string) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: node}, DNSNames: []string{node}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: a.pool, ClientCAs: a.pool, ClientAuth: tls.RequireAndVerifyClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}},
	}
}
