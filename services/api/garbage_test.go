// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

// garbage sends random bytes to the address, over many connections.
func garbage(t *testing.T, addr string) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1+r.IntN(4096))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(append([]byte("POST /v1/signup HTTP/1.1\r\n"), b...)) // it may be closed already
		c.Close()
	}
}
