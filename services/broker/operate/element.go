// SPDX-License-Identifier: Apache-2.0

package operate

import (
	"bytes"
	"encoding/json"
	"errors"
)

// The types of Elements.
const (
	TypeText  = "text"
	TypeTable = "table"
	TypeAlert = "alert"
)

// Element is one part of the answer to a command: a text, a table, or an alert, which
// says why the command was refused.
type Element struct {
	Type  string    `json:"type"`
	Text  string    `json:"text,omitempty"`
	Table []Row     `json:"table,omitempty"`
	Alert []Element `json:"alert,omitempty"`
}

// Text is a text as an Element.
func Text(s string) Element { return Element{Type: TypeText, Text: s} }

// Table is a table as an Element. Its rows have the same columns.
func Table(rows []Row) Element {
	if rows == nil {
		rows = []Row{}
	}
	return Element{Type: TypeTable, Table: rows}
}

// MarshalJSON implements json.Marshaler: an empty table has its field too.
func (e Element) MarshalJSON() ([]byte, error) {
	if e.Type == TypeTable {
		return json.Marshal(struct {
			Type  string `json:"type"`
			Table []Row  `json:"table"`
		}{e.Type, e.Table})
	}
	type plain Element
	return json.Marshal(plain(e))
}

// Cell is a named value of a Row: a text, a number, a bool or nil.
type Cell struct {
	Name  string
	Value any
}

// Row is one row of a table, its cells in the order of the columns. In JSON it is an
// object in that order.
type Row []Cell

// MarshalJSON implements json.Marshaler.
func (r Row) MarshalJSON() ([]byte, error) {
	out := []byte{'{'}
	for i, c := range r {
		name, err := json.Marshal(c.Name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(c.Value)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(append(out, name...), ':'), value...)
	}
	return append(out, '}'), nil
}

// UnmarshalJSON implements json.Unmarshaler. Numbers are json.Number.
func (r *Row) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("a row of a table: expected an object")
	}
	*r = Row{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		c := Cell{Name: name.(string)} // a key of an object is a string
		if err := d.Decode(&c.Value); err != nil {
			return err
		}
		*r = append(*r, c)
	}
	_, err := d.Token()
	return err
}

// Get is the value of a column, nil if there is none.
func (r Row) Get(name string) any {
	for _, c := range r {
		if c.Name == name {
			return c.Value
		}
	}
	return nil
}
