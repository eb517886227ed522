// SPDX-License-Identifier: Apache-2.0

package statements

import (
	"bytes"
	_ "embed"
	"text/template"
)

//go:embed document.md
var document string

// Document returns the text of docs/conformance.md for a table.
func Document(table []Row) ([]byte, error) {
	t, err := template.New("document.md").Parse(document)
	if err != nil {
		return nil, err
	}
	type section struct {
		Count
		Rows []Row
	}
	var sections []section
	for _, v := range []Version{V311, V5} {
		s := section{Count: CountOf(table, v)}
		for _, r := range table {
			if r.Version == v {
				s.Rows = append(s.Rows, r)
			}
		}
		sections = append(sections, s)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, sections); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
