// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/manormq/manor/infra/errs"
)

// startLoginPeer starts mosquitto with a listener for each thing that it can do of what s
// does: no password, a password file, TLS with that, and TLS with client certificates.
func startLoginPeer(ctx context.Context, name string, s *loginSite) (b *broker, v visits, err error) {
	path, err := findMosquitto()
	if name != "mosquitto" || err != nil {
		return nil, nil, errors.Join(errs.New(errs.Invalid, "-peer: expected mosquitto, or nothing, found %q", name), err)
	}
	tool, err := exec.LookPath("mosquitto_passwd")
	if err != nil {
		return nil, nil, errs.New(errs.Invalid, "mosquitto_passwd is not installed, which makes password files: %w", err)
	}
	dir, err := os.MkdirTemp("", "mosquitto")
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(dir)
		}
	}()
	words := filepath.Join(dir, "passwords")
	if out, err := exec.CommandContext(ctx, tool, "-b", "-c", words, "bench", s.word).CombinedOutput(); err != nil {
		return nil, nil, fmt.Errorf("mosquitto_passwd: %w: %s", err, out)
	}
	pki := filepath.Join(s.b.dir, "pki")
	// As root mosquitto becomes another user, who has to read these.
	err = errors.Join(os.Chmod(dir, 0o755), os.Chmod(words, 0o644), copyFile(filepath.Join(pki, "listeners.pem"), dir+"/cert.pem"),
		copyFile(filepath.Join(pki, "listeners.key"), dir+"/key.pem"), os.WriteFile(dir+"/ca.pem", []byte(s.ca.pem()), 0o644))
	if err != nil {
		return nil, nil, err
	}
	const (
		passwords = "allow_anonymous false\npassword_file DIR/passwords\n"
		overTheir = "certfile DIR/cert.pem\nkeyfile DIR/key.pem\n"
	)
	listeners := []struct{ name, settings string }{
		{overTCP, "allow_anonymous true\n"},
		{byPassword, passwords},
		{byPasswordTLS, passwords + overTheir},
		{byX509, "allow_anonymous true\nrequire_certificate true\nuse_identity_as_username true\ncafile DIR/ca.pem\n" + overTheir},
	}
	b = &broker{name: name, addrs: map[string]string{}}
	var conf strings.Builder
	conf.WriteString("per_listener_settings true\nmax_queued_messages 0\npersistence false\nlog_dest none\n")
	for _, l := range listeners {
		port, err := freePort()
		if err != nil {
			return nil, nil, err
		}
		b.addrs[l.name] = loopbackAddr(port)
		fmt.Fprintf(&conf, "listener %d 127.0.0.1\n%s", port, strings.ReplaceAll(l.settings, "DIR", dir))
	}
	file := filepath.Join(dir, "mosquitto.conf")
	if err = os.WriteFile(file, []byte(conf.String()), 0o644); err != nil {
		return nil, nil, err
	}
	if err = b.run(exec.CommandContext(ctx, path, "-c", file), dir); err != nil {
		return nil, nil, err
	}
	if err = b.accepts(); err != nil {
		b.stop()
		return nil, nil, err
	}
	return b, peerVisits(b, s), nil
}

// peerVisits are how clients connect to mosquitto, which remembers no password: the first
// time is as every other, and a generated one is as a chosen one.
func peerVisits(b *broker, s *loginSite) visits {
	open := func(listener, user string, config *tls.Config, run, i int) (*client, error) {
		o := Options{Addr: b.addrs[listener], MQTT: int(mqtt3), KeepAlive: 60, User: user, tls: config}
		if user != "" {
			o.Pass = s.word
		}
		if config != nil {
			o.Transport = overTLS
		}
		return o.open(i, fmt.Sprintf("%s-%d-%d", listener, run, i), true, 256)
	}
	config := func(resumed bool, certs ...tls.Certificate) func(i int) *tls.Config {
		sessions := make([]tls.ClientSessionCache, loginCerts)
		for i := range sessions {
			sessions[i] = tls.NewLRUClientSessionCache(1)
		}
		return func(i int) *tls.Config {
			c := &tls.Config{ServerName: devDomain, CurvePreferences: []tls.CurveID{tls.X25519}, InsecureSkipVerify: true}
			if len(certs) > 0 {
				c.Certificates = certs[i%len(certs) : i%len(certs)+1]
			}
			if resumed {
				c.ClientSessionCache = sessions[i%len(sessions)]
			}
			return c
		}
	}
	full, again, certified, certifiedAgain := config(false), config(true), config(false, s.certs...), config(true, s.certs...)
	password := func(run, i int) (*client, error) { return open(byPassword, "bench", nil, run, i) }
	return visits{
		byNothing:      func(run, i int) (*client, error) { return open(overTCP, "", nil, run, i) },
		byGenerated:    password,
		byPassword:     password,
		byPasswordKept: password,
		byPasswordTLS:  func(run, i int) (*client, error) { return open(byPasswordTLS, "bench", full(i), run, i) },
		byResumedTLS:   func(run, i int) (*client, error) { return open(byPasswordTLS, "bench", again(i), run, i) },
		byX509:         func(run, i int) (*client, error) { return open(byX509, "", certified(i), run, i) },
		byX509Resumed:  func(run, i int) (*client, error) { return open(byX509, "", certifiedAgain(i), run, i) },
	}
}
