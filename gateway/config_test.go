// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/gateway/listener"
	"github.com/manormq/manor/gateway/uplink"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
)

func testConfig(t *testing.T, d uplink.Dialer) gateway.Config {
	t.Helper()
	return gateway.Config{
		Name: "gw", Directory: newDirectory(), Dialer: d, Log: telemetry.Discard(), Registerer: prometheus.NewRegistry(),
		ConnectTimeout: time.Second,
		Listeners:      []listener.Config{{Name: "mqtt", Kind: listener.MQTT, Address: "127.0.0.1:0"}},
	}
}

func TestConfigSaysWhatIsWrong(t *testing.T) {
	for want, edit := range map[string]func(l *listener.Config){
		"mqtt, mqtts, ws or wss": func(l *listener.Config) { l.Kind = "tcp" },
		"host:port":              func(l *listener.Config) { l.Address = "1883" },
		"cert_file":              func(l *listener.Config) { l.Kind = listener.MQTTS },
		"3.1, 3.1.1 or 5":        func(l *listener.Config) { l.Versions = []string{"4"} },
		"10.0.0.0/8":             func(l *listener.Config) { l.TrustedProxies = []string{"everyone"} },
		"expected another one":   func(l *listener.Config) { l.Name = "api" },
		"max_connections":        func(l *listener.Config) { l.MaxConnections = -1 },
		"tls_min with mqtts":     func(l *listener.Config) { l.MinTLS = "1.3" },
		"client_certs and client_ca_file together": func(l *listener.Config) { tlsFiles(l); l.ClientCerts = "required" },
		"optional or required":                     func(l *listener.Config) { tlsFiles(l); l.ClientCerts = "yes" },
		"cn or san":                                func(l *listener.Config) { tlsFiles(l); l.Identity = "subject" },
		"1.2 or 1.3":                               func(l *listener.Config) { tlsFiles(l); l.MinTLS = "1.1" },
		"with client_crl_file":                     func(l *listener.Config) { tlsFiles(l); l.ClientCRLFile = "crl.pem" },
		"expected tenant": func(l *listener.Config) {
			tlsFiles(l)
			l.ClientCerts, l.ClientCAFile, l.Identity = "required", "ca.pem", "cn"
		},
	} {
		c := testConfig(t, noBroker{})
		edit(&c.Listeners[0])
		if _, err := gateway.New(c); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("expected %q in %v", want, err)
		}
	}
}

func tlsFiles(l *listener.Config) { l.Kind, l.CertFile, l.KeyFile = listener.MQTTS, "c.pem", "k.pem" }
