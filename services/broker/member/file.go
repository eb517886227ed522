// SPDX-License-Identifier: Apache-2.0

package member

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
)

// The file has a line with what it is and a CRC-32C of what follows, then the members
// as JSON, for people who look into it.
const fileHead = "manor members 1 %08x\n"

// kept is what the file has of a member: nothing that is old when it is read.
type kept struct {
	Name    string `json:"name"`
	Cluster string `json:"cluster"`
	Links   string `json:"links"`
	Zone    string `json:"zone,omitempty"`
	Version string `json:"version,omitempty"`
}

var errDamaged = errors.New("the file with the members of the cluster is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// readFile returns the members that were kept; none if there is no file. The error is
// errDamaged if it is damaged.
func readFile(file string) ([]Member, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("members of the cluster: %w", err)
	}
	head, body, _ := bytes.Cut(text, []byte("\n"))
	var sum uint32
	var all []kept
	if _, err := fmt.Sscanf(string(head)+"\n", fileHead, &sum); err != nil || crc32.Checksum(body, castagnoli) != sum || json.Unmarshal(body, &all) != nil {
		return nil, fmt.Errorf("%w: %s; it is written again once the control plane is reached", errDamaged, file)
	}
	out := make([]Member, 0, len(all))
	for _, k := range all {
		out = append(out, Member{Name: k.Name, Cluster: k.Cluster, Links: k.Links, Zone: k.Zone, Version: k.Version})
	}
	return out, nil
}

// writeFile replaces the file by one of all members but self, in one step, which is on
// the disk when it returns.
func writeFile(file, self string, members []Member) error {
	all := make([]kept, 0, len(members))
	for _, m := range members {
		if m.Name == self {
			continue
		}
		all = append(all, kept{m.Name, m.Cluster, m.Links, m.Zone, m.Version})
	}
	body, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	body = append(body, '\n')
	text := append(fmt.Appendf(nil, fileHead, crc32.Checksum(body, castagnoli)), body...)
	tmp := file + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, file); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
