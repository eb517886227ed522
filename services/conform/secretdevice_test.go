// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/xdg-go/scram"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/tenancytest"
)

// dial opens a connection to the gateway whose bytes are noted as a place of that name
// when the test has what it wants of them.
func (w *secretWorld) dial(name string) (*stream, func()) {
	w.Helper()
	c, err := net.Dial("tcp", w.p.Of("gateway")[0].Addr("mqtt"))
	if err != nil {
		w.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	heard := &hearing{Conn: c}
	return &stream{conn: heard, version: packet.V5}, func() {
		_ = c.Close()
		w.places = append(w.places, place{"mqtt", name, heard.text.Bytes()})
	}
}

// hearing keeps what it has read.
type hearing struct {
	net.Conn
	text bytes.Buffer
}

func (h *hearing) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	h.text.Write(p[:n])
	return n, err
}

// connect connects with a user name and password; the error is that it went otherwise
// than it should.
func (w *secretWorld) connect(name, user, word string, good bool) error {
	w.Helper()
	return w.say(name, &packet.Connect{
		Version: packet.V5, CleanStart: true, ClientID: "c-" + w.mark, Username: user, HasUsername: true, Password: []byte(word), HasPassword: true,
	}, good)
}

func (w *secretWorld) say(name string, c *packet.Connect, good bool) error {
	w.Helper()
	r, end := w.dial(name)
	defer end()
	if _, err := r.conn.Write(packet.AppendConnect(nil, c)); err != nil {
		return err
	}
	p, err := r.next()
	if err != nil {
		return fmt.Errorf("%s as %s: expected CONNACK: %w", name, c.Username, err)
	}
	if p.Type != packet.CONNACK {
		return fmt.Errorf("%s as %s: expected CONNACK, found %s", name, c.Username, p.Type)
	}
	if (p.Connack.Reason == mqtt.Success) != good {
		return fmt.Errorf("%s as %s: %s %s, expected success: %v", name, c.Username, p.Connack.Reason.Error(), p.Connack.ReasonString, good)
	}
	return nil
}

// malformed sends CONNECTs with a password that no server can read.
func (w *secretWorld) malformed() {
	w.Helper()
	word := w.secret("a password in a CONNECT that is malformed").text
	whole := packet.AppendConnect(nil, &packet.Connect{
		Version: packet.V311, CleanStart: true, ClientID: "c", Username: w.mark + ":x", HasUsername: true, Password: []byte(word), HasPassword: true,
	})
	for what, change := range map[string]func(b []byte){
		"reserved flag": func(b []byte) { b[9] |= 1 },
		"version":       func(b []byte) { b[8] = 9 },
		"name":          func(b []byte) { b[5] = 'X' },
		"no user name":  func(b []byte) { b[9] &^= 0x80 },
		"text":          func(b []byte) { b[15] = 0xFF },
		"not MQTT":      func(b []byte) { copy(b, "GET /") },
		"length":        func(b []byte) { b[1]-- },
	} {
		b := bytes.Clone(whole)
		change(b)
		r, end := w.dial("malformed: " + what)
		_, _ = r.conn.Write(b)
		_ = r.conn.(*hearing).Conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, r.conn)
		end()
	}
}

// scram connects by SCRAM-SHA-256.
func (w *secretWorld) scram(user, word string, good bool) {
	w.Helper()
	client, err := scram.SHA256.NewClient(w.mark+":"+user, word, "")
	if err != nil {
		w.Fatal(err)
	}
	talk := client.NewConversation()
	first, _ := talk.Step("")
	r, end := w.dial("scram")
	defer end()
	b := packet.AppendConnect(nil, &packet.Connect{
		Version: packet.V5, CleanStart: true, ClientID: "scram", HasAuthMethod: true, AuthMethod: tenancy.MethodSCRAM, AuthData: []byte(first),
	})
	_, err = r.conn.Write(b)
	p, nerr := r.next()
	if err != nil || nerr != nil || p.Type != packet.AUTH {
		w.Fatalf("SCRAM: %v %v, expected AUTH, found %+v", err, nerr, p)
	}
	next, err := talk.Step(string(p.Auth.Data))
	if err != nil {
		w.Fatal(err)
	}
	_, _ = r.conn.Write(packet.AppendAuth(nil, &packet.Auth{Reason: mqtt.ContinueAuthentication, Method: tenancy.MethodSCRAM, HasMethod: true, Data: []byte(next)}, 0))
	p, err = r.next()
	if err != nil || p.Type != packet.CONNACK || (p.Connack.Reason == mqtt.Success) != good {
		w.Errorf("SCRAM: %v %+v, expected success: %v", err, p, good)
	}
}

// issuers connects with tokens, good and bad.
func (w *secretWorld) issuers() {
	w.Helper()
	issuer := tenancytest.NewIssuer(w, "https://issuer.example/"+w.mark)
	put := func(name string, status int, more map[string]any) {
		w.Helper()
		item := map[string]any{"issuer": issuer.Name, "audience": []string{"manor"}}
		maps.Copy(item, more)
		w.call(name, "PUT", "/v1/tenants/"+w.mark+"/jwt-issuers", map[string]any{"items": []any{item}}, status, nil)
	}
	// What must not be there is not taken, and not told either.
	private := w.secret("the private part of a JWK")
	put("an issuer with a private key", 400, map[string]any{"jwks": fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":%q}]}`, private.text)})
	put("an issuer with a shared key", 400, map[string]any{"jwks": fmt.Sprintf(`{"keys":[{"kty":"oct","kid":"1","k":%q}]}`, w.secret("an HMAC key").text)})
	put("an issuer whose URL has a password", 400, map[string]any{"jwks_url": "https://user:" + w.secret("a password in a URL").text + "@127.0.0.1/jwks"})
	put("an issuer", 200, map[string]any{"jwks": issuer.JWKS()})
	token := func(kind, text string) string {
		parts := strings.Split(text, ".")
		w.known(kind+", the signature", parts[2])
		w.known(kind+", the claims", parts[1])
		return text
	}
	good := token("a token", issuer.Token("press-7", nil))
	w.soon(func() error { return w.connect("jwt", w.mark+":", good, true) })
	if err := w.connect("jwt", w.mark+":", good, true); err != nil {
		w.Error(err)
	}
	over := token("a token that is over", issuer.Token("press-8", map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}))
	forged := token("a forged token", good[:len(good)-20]+"AAAAAAAAAAAAAAAAAAAA")
	for _, bad := range []string{over, forged, token("a token of an unknown issuer", tenancytest.NewIssuer(w, "https://other.example").Token("x", nil))} {
		if err := w.connect("jwt", w.mark+":", bad, false); err != nil {
			w.Error(err)
		}
	}
	for _, text := range []string{good, over} {
		c := &packet.Connect{Version: packet.V5, CleanStart: true, ClientID: "auth", Username: w.mark + ":", HasUsername: true, HasAuthMethod: true, AuthMethod: tenancy.MethodJWT, AuthData: []byte(text)}
		if err := w.say("jwt", c, text == good); err != nil {
			w.Error(err)
		}
	}
}

// certificates has a managed CA sign, for a key and for claims.
func (w *secretWorld) certificates() {
	w.Helper()
	base := "/v1/tenants/" + w.mark
	key, _ := pemKey(w)
	w.keyPEM("a key in the place of a CA", key)
	w.call("a key as a client CA", "PUT", base+"/client-cas", map[string]any{"certificates": key}, 400, nil)
	w.call("a key in the place of a request", "POST", base+"/certificates:sign", map[string]any{"username": "x", "csr": key}, 0, nil)
	w.call("make a managed CA", "POST", base+"/managed-ca", nil, 201, nil)
	w.call("sign", "POST", base+"/certificates:sign", map[string]any{"username": "signed", "csr": tenancytest.Request()}, 0, nil)
	var claim struct{ Secret string }
	w.call("make a claim", "POST", base+"/claims", map[string]any{"username": "claimed"}, 201, &claim, "Idempotency-Key", "claim"+w.mark)
	w.known("a claim", claim.Secret, "make a claim")
	redeem := func(name, secret, csr string, headers ...string) {
		w.call(name, "POST", "/v1/claims:redeem", map[string]any{"claim": secret, "csr": csr}, 0, nil, append(headers, "Authorization", "Bearer ")...)
	}
	redeem("a wrong claim", w.secret("a wrong claim").text, tenancytest.Request())
	redeem("a claim without a request", claim.Secret, "x")
	redeem("redeem", claim.Secret, tenancytest.Request(), "Idempotency-Key", "redeem"+w.mark)
	redeem("redeem twice", claim.Secret, tenancytest.Request())
}

func pemKey(w *secretWorld) (text string, ca *tenancytest.CA) {
	w.Helper()
	ca = tenancytest.NewCA(w, "ca")
	der, err := x509.MarshalPKCS8PrivateKey(ca.Issue(2, "x").PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		w.Fatal(err)
	}
	return tenancytest.PEM("PRIVATE KEY", der), ca
}

// domains uploads the key of a certificate.
func (w *secretWorld) domains() {
	w.Helper()
	host := w.mark + ".example"
	base := "/v1/tenants/" + w.mark + "/domains"
	var d struct{ Challenge struct{ Name, Value string } }
	w.call("claim a domain", "POST", base, map[string]any{"fqdn": host, "certificate": "uploaded"}, 201, &d)
	w.dns.Text(d.Challenge.Name, d.Challenge.Value)
	w.dns.Host(host, "127.0.0.1")
	w.call("verify a domain", "POST", base+"/"+host+":verify", nil, 200, nil)
	chain, key := tenancytest.NewCA(w, "own").Server(3, time.Now().Add(time.Hour), host)
	other, _ := pemKey(w)
	w.keyPEM("the key of a domain", key)
	w.keyPEM("another key", other)
	for what, body := range map[string]map[string]any{
		"another key": {"chain": chain, "key": other}, "the key in the chain": {"chain": chain + key, "key": key}, "both the wrong way": {"chain": key, "key": chain},
		"a field too much": {"chain": chain, "key": key, "private": key},
	} {
		w.call("upload "+what, "PUT", base+"/"+host+"/certificate", body, 400, nil)
	}
	w.call("upload", "PUT", base+"/"+host+"/certificate", map[string]any{"chain": chain, "key": key}, 200, nil)
	if w.sources != "" { // and an authority
		issued := "issued." + host
		w.call("claim a domain to be issued", "POST", base, map[string]any{"fqdn": issued}, 201, &d)
		w.dns.Text(d.Challenge.Name, d.Challenge.Value)
		w.dns.Host(issued, "127.0.0.1")
		w.until("the time between two looks", func() bool {
			w.call("verify it", "POST", base+"/"+issued+":verify", nil, 0, nil)
			return !bytes.Contains(w.places[len(w.places)-1].text, []byte(`"status":429`))
		})
		w.until("the order", func() bool {
			w.call("a domain", "GET", base+"/"+issued, nil, 200, nil)
			return bytes.Contains(w.places[len(w.places)-1].text, []byte(`"failed"`))
		})
	}
	w.soon(func() error {
		c, err := tls.Dial("tcp", w.p.Of("gateway")[0].Addr("mqtts"), &tls.Config{ServerName: host, InsecureSkipVerify: true})
		if err == nil {
			_ = c.Close()
		}
		return err
	})
}

// join makes a token for brokers, and shows a wrong one.
func (w *secretWorld) join() {
	w.Helper()
	var broker *Process
	for i := range w.p.Processes {
		if w.p.Processes[i].Ports["join"] != 0 {
			broker = &w.p.Processes[i]
		}
	}
	if broker == nil {
		return // one broker alone
	}
	url := "http://" + broker.Addr("operator") + "/api/v1/cluster/token/create?ttl=1h"
	w.ask("status", "make a join token", http.MethodPost, url, nil, 200, nil)
	made := string(w.places[len(w.places)-1].text)
	_, rest, ok := strings.Cut(made, "manor-join-1.")
	if !ok {
		w.Fatalf("no join token: %s", made)
	}
	token := rest[:strings.IndexAny(rest, `" <\`)]
	w.known("a join token, the MAC", token[len(token)-40:], "make a join token")
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	wrong := "manor-join-1." + token[:len(token)-20] + w.secret("the MAC of a wrong join token").text
	for _, shown := range []string{"manor-join-1." + token, wrong, w.secret("what is no join token").text} {
		body, _ := json.Marshal(map[string]string{"node": "broker-9", "token": shown, "request": "x"})
		resp, err := client.Post("https://"+broker.Addr("join")+"/v1/join", "application/json", bytes.NewReader(body))
		if err != nil {
			w.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		w.places = append(w.places, place{"answer", "join, wrongly", text})
	}
}

// bus shows a NATS server a wrong token.
func (w *secretWorld) bus() {
	w.Helper()
	for i := range w.p.Processes {
		if w.p.Processes[i].Role != "nats" {
			continue
		}
		c, err := net.Dial("tcp", w.p.Processes[i].Addr("nats"))
		if err != nil {
			w.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = fmt.Fprintf(c, "CONNECT {\"auth_token\":%q,\"pass\":%q,\"verbose\":true}\r\nPING\r\n", w.secret("a wrong token of NATS").text, w.secret("a password of NATS").text)
		text, _ := io.ReadAll(c)
		_ = c.Close()
		w.places = append(w.places, place{"answer", "nats", text})
	}
}

// session leaves the mark, which is no secret, in a session and its queue, and in a
// retained message.
func (w *secretWorld) session() {
	w.Helper()
	var out struct{ Password string }
	w.call("a credential for the session", "POST", "/v1/tenants/"+w.mark+"/credentials", map[string]any{"username": "session"}, 201, &out)
	w.known("the password of the session", out.Password, "a credential for the session")
	d := &Device{Address: w.p.Of("gateway")[0].Addr("mqtt"), OnMessage: func(Delivered) {}, Options: packet.Connect{
		Version: packet.V5, ClientID: w.mark, Username: w.mark + ":session", HasUsername: true, Password: []byte(out.Password), HasPassword: true,
		SessionExpiry: 300, HasSessionExpiry: true, Will: &mqtt.Will{Message: mqtt.Message{Topic: []byte("will"), Payload: []byte(w.mark)}},
	}}
	w.soon(func() error { _, err := d.Connect(); return err })
	if _, err := d.Subscribe(mqtt.Subscription{Filter: w.mark + "/#", QoS: 1}); err != nil {
		w.Fatal(err)
	}
	d.Kill()
	for _, topic := range []string{w.mark + "/1", w.mark + "/2"} {
		w.soon(func() error { // the API's link may have gone to a broker that serves nothing
			var problem struct {
				Status int
				Detail string
			}
			w.call("publish", "POST", "/v1/tenants/"+w.mark+"/publish", map[string]any{"topic": topic, "payload": w.mark, "qos": 1, "retain": true}, 0, &problem)
			if problem.Status != 0 {
				return fmt.Errorf("publish: %d %s", problem.Status, problem.Detail)
			}
			return nil
		})
	}
	r, end := w.dial("retained")
	defer end()
	connect := &packet.Connect{Version: packet.V5, CleanStart: true, ClientID: "reader", Username: w.mark + ":session", HasUsername: true, Password: []byte(out.Password), HasPassword: true}
	_, _ = r.conn.Write(packet.AppendConnect(nil, connect))
	_, _ = r.conn.Write(packet.AppendSubscribe(nil, packet.V5, &packet.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: w.mark + "/#"}}}))
	for {
		p, err := r.next()
		if err != nil {
			w.Fatalf("the retained message does not come: %v", err)
		}
		if p.Type == packet.PUBLISH {
			break
		}
	}
	if err := os.WriteFile(w.data+"/mark", []byte(w.mark), 0o600); err != nil {
		w.Fatal(err)
	}
}
