// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"os"
	"strings"
)

// login is a credential of clients.
type login struct{ user, pass string }

// login is the credential of client i.
func (o *Options) login(i int) login {
	if len(o.logins) > 0 {
		return o.logins[i%len(o.logins)]
	}
	return login{o.User, o.Pass}
}

// readLogins reads a file of writeLogins; none if it has no name.
func readLogins(file string) (all []login, err error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		user, pass, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "\t")
		if !ok || user == "" {
			return nil, fmt.Errorf("%s:%d: want USER<TAB>PASSWORD", file, len(all)+1)
		}
		all = append(all, login{user, pass})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s is empty", file)
	}
	return all, nil
}

func writeLogins(file string, all []login) error {
	var text strings.Builder
	for _, l := range all {
		fmt.Fprintf(&text, "%s\t%s\n", l.user, l.pass)
	}
	return os.WriteFile(file, []byte(text.String()), 0o600)
}
