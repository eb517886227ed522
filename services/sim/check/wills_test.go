// SPDX-License-Identifier: Apache-2.0

package check

import "testing"

// TestWills_Owed holds which wills a subscriber is to get: those of connections that ended when it had
// subscribed and had not begun to unsubscribe.
func TestWills_Owed(t *testing.T) {
	const missing = "the will of p 1 has not come to s"
	for _, tt := range []struct {
		name string
		do   func(w *Wills)
		want string
	}{
		{"subscribed before the connection was there", func(w *Wills) { w.Subscribed("s"); w.Left("p", 1); w.Ended("p", 1) }, missing},
		{"subscribed while the connection was there", func(w *Wills) { w.Left("p", 1); w.Subscribed("s"); w.Ended("p", 1) }, missing},
		{"subscribed when it had ended", func(w *Wills) { w.Left("p", 1); w.Ended("p", 1); w.Subscribed("s") }, ""},
		{"subscribed when it may have ended", func(w *Wills) { w.Left("p", 1); w.Ended("p", 1); w.Subscribed("s"); w.Ended("p", 1) }, ""},
		{"subscribed twice, once before", func(w *Wills) { w.Subscribed("s"); w.Left("p", 1); w.Ended("p", 1); w.Subscribed("s") }, missing},
		{"unsubscribed before it ended", func(w *Wills) { w.Subscribed("s"); w.Left("p", 1); w.Unsubscribing("s"); w.Ended("p", 1) }, ""},
		{"unsubscribed before it came", func(w *Wills) { w.Subscribed("s"); w.Left("p", 1); w.Ended("p", 1); w.Unsubscribing("s") }, ""},
		{"it came", func(w *Wills) { w.Subscribed("s"); w.Left("p", 1); w.Ended("p", 1); w.Delivered("s", "will of p 1") }, ""},
		{"the client disconnected", func(w *Wills) { w.Subscribed("s"); w.Left("p", 1); w.Unneeded("p", 1); w.Ended("p", 1) }, ""},
		{"the session of who left it was lost", func(w *Wills) { w.Subscribed("s"); w.Left("p", 1); w.Ended("p", 1); w.Forgo("p") }, ""},
		{"the session of who was to get it was lost", func(w *Wills) { w.Subscribed("s"); w.Left("p", 1); w.Forgo("s"); w.Ended("p", 1) }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var w Wills
			tt.do(&w)
			w.Left("p", 2) // the newest connection may live
			if got := w.Missing(); got != tt.want {
				t.Errorf("got %q, expected %q", got, tt.want)
			}
		})
	}
}
