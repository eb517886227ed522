// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/manormq/manor/gateway/throttle"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/quota"
)

// The CONNECTs of one tenant leave places to wait in for those of others.
func TestWaiters(t *testing.T) {
	t.Parallel()
	var l lending
	leave := map[*tenantState][]func(){}
	enter := func(s *tenantState, n int) (in int) {
		for range n {
			if done, ok := l.waiter(s); ok {
				leave[s] = append(leave[s], done)
				in++
			}
		}
		return in
	}
	greedy, other := &tenantState{tenant: "greedy"}, &tenantState{tenant: "other"}
	if n := enter(greedy, 2*lendWaiters); n != lendWaitersTenant {
		t.Errorf("%d CONNECTs of one tenant wait, expected %d", n, lendWaitersTenant)
	}
	if n := enter(other, 1); n != 1 {
		t.Error("a CONNECT of another tenant may not wait")
	}
	leave[greedy][0]()
	if n := enter(greedy, 2); n != 1 {
		t.Errorf("%d CONNECTs have come in the place of one that is gone, expected 1", n)
	}
	all := lendWaitersTenant + 1
	for range lendWaiters {
		all += enter(&tenantState{}, 1)
	}
	if all != lendWaiters {
		t.Errorf("%d CONNECTs of all tenants wait, expected %d", all, lendWaiters)
	}
}

// A CONNECT that waits for the others says so for as long as it does.
func TestConnectWaitTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Gateway{cfg: Config{Bus: mem.New()}}
		s, shared := &tenantState{tenant: "acme"}, &tenantRates{}
		now := time.Now()
		shared.connects.Set(now, throttle.Rate{Messages: 1, Bytes: tenancy.Unlimited})
		shared.connects.Spend(now, 10, 0)
		waits := make(chan time.Duration)
		go func() {
			wait, _ := g.connectWait(&turn{}, s, shared, now)
			waits <- wait
		}()
		for past := time.Duration(0); past < connectDelay-quota.Interval; past += quota.Interval {
			time.Sleep(quota.Interval)
			synctest.Wait()
			if !s.meters.waited[quota.ConnectRate].Swap(false) {
				t.Errorf("after %s nobody is told that a CONNECT waits", past+quota.Interval)
			}
		}
		if wait := <-waits; wait <= connectDelay {
			t.Errorf("it is to wait for %s, expected more than %s: nobody has left it anything", wait, connectDelay)
		}
	})
}
