// SPDX-License-Identifier: Apache-2.0

package files_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/manormq/manor/tenancy/files"
)

func TestParsePasswd(t *testing.T) {
	hash := "$6$" + base64.StdEncoding.EncodeToString([]byte("salt")) + "$" + base64.StdEncoding.EncodeToString(make([]byte, 64))
	users, err := files.ParsePasswd("\ufeffcarol:" + hash + "\n# comment\n\nalice:" + hash + "\r\nbob:by:" + hash + "\n")
	if err != nil || len(users) != 3 || users[0].Name != "carol" || users[1] != (files.User{Name: "alice", Hash: hash}) || users[2].Name != "bob:by" {
		t.Errorf("%+v, %v", users, err)
	}
	for text, want := range map[string]string{
		"a:" + hash + "\nalice:secret":              "vmq.passwd:2:1: expected USER:$6$SALT$HASH",
		"a:" + hash + "\nb:" + hash + "\na:" + hash: `vmq.passwd:3:1: expected each user once, found "a" in line 1 too`,
		"a:$6$salt$short":                           "vmq.passwd:1:1: expected $6$, a salt and 64 bytes of SHA-512",
		":" + hash:                                  "vmq.passwd:1:1: expected USER:",
		"a\x01:" + hash:                             "no control characters",
	} {
		_, err := files.ParsePasswd(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %q", text, err, want)
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), hash[5:20]) {
			t.Errorf("%.20q: the error has what is secret: %v", text, err)
		}
	}
}
