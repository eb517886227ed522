// SPDX-License-Identifier: Apache-2.0

package files

import (
	"fmt"
	"strings"

	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/authn/password"
	"github.com/manormq/manor/tenancy/policy"
)

// PasswdName is what the file of vmq_passwd is called in errors.
const PasswdName = "vmq.passwd"

// User is a line of a vmq_passwd file. It is a plain value.
type User struct {
	Name string
	// Hash is one that password.CheckHash takes.
	Hash string
}

// ParsePasswd reads the text of a vmq_passwd file, of which each line is USER:HASH; lines
// that begin with # and empty ones are left out. The hash begins at the last ":$", since
// names may have colons. The error is a policy.FaultsError with the lines and what was
// expected; it has no hash.
func ParsePasswd(text string) ([]User, error) {
	var users []User
	seen := map[string]int{}
	wrong := &policy.FaultsError{}
	n := 0
	for line := range strings.SplitSeq(strings.TrimPrefix(text, byteOrderMark), "\n") {
		n++
		line = strings.TrimSuffix(line, "\r")
		if strings.Trim(line, " \t") == "" || line[0] == '#' {
			continue
		}
		u, err := parseUser(line)
		if err == nil && seen[u.Name] > 0 {
			err = fmt.Errorf("expected each user once, found %q in line %d too", u.Name, seen[u.Name])
		}
		if err != nil {
			if len(wrong.Faults) < problemsMost {
				wrong.Faults = append(wrong.Faults, policy.Fault{File: PasswdName, Line: n, Column: 1, Message: short(err.Error())})
			}
			continue
		}
		seen[u.Name] = n
		users = append(users, u)
	}
	if len(wrong.Faults) > 0 {
		return nil, wrong
	}
	return users, nil
}

func parseUser(line string) (User, error) {
	i := strings.LastIndex(line, ":$")
	if i <= 0 {
		return User{}, fmt.Errorf("expected USER:$6$SALT$HASH, as vmq-passwd writes it (vmq-passwd -U FILE hashes the passwords of a file)")
	}
	u := User{Name: line[:i], Hash: line[i+1:]}
	if err := tenancy.ValidUsername(u.Name); err != nil {
		return u, err
	}
	return u, password.CheckHash(u.Hash)
}
