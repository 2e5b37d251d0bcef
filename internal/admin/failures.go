package admin

import (
	"net"
	"sync"
	"time"
)

// failures counts wrong tokens by address.
type failures struct {
	mu   sync.Mutex
	from map[network]*failed // maxAddresses at most
}

// failed are the last maxFailures wrong tokens of an address.
type failed struct {
	at   [maxFailures]time.Time
	next int // of at: the oldest
}

// add counts one.
func (f *failures) add(ip net.IP, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := networkOf(ip)
	e := f.from[n]
	if e == nil {
		f.makeRoom(now)
		e = &failed{}
		f.from[n] = e
	}
	e.at[e.next] = now
	e.next = (e.next + 1) % maxFailures
}

// wait returns how long no token of an address is looked at.
func (f *failures) wait(ip net.IP, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.from[networkOf(ip)]
	if e == nil {
		return 0
	}
	return max(0, failureSpan-now.Sub(e.at[e.next]))
}

// makeRoom forgets the addresses whose last failure is over, and if there are still too
// many the one whose is the oldest. mu is held.
func (f *failures) makeRoom(now time.Time) {
	if f.from == nil {
		f.from = map[network]*failed{}
	}
	if len(f.from) < maxAddresses {
		return
	}
	var oldest network
	var at time.Time
	for n, e := range f.from {
		last := e.at[(e.next+maxFailures-1)%maxFailures]
		if now.Sub(last) > failureSpan {
			delete(f.from, n)
		} else if at.IsZero() || last.Before(at) {
			oldest, at = n, last
		}
	}
	if len(f.from) >= maxAddresses {
		delete(f.from, oldest)
	}
}
