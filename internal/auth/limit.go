package auth

import (
	"net/netip"
	"sync"
	"time"
)

// Failures that an address may make before it is told to wait, and how fast it
// earns the next one.
const (
	failureBurst = 10
	failureEvery = 6 * time.Second
	watchedHosts = 10_000
)

// failures counts refusals by address: a leaky bucket each. A good
// key is never held up by it, since nobody can guess one: what it bounds is
// work, logs and audit entries.
type failures struct {
	mu    sync.Mutex
	hosts map[netip.Prefix]failing
}

type failing struct {
	level float64 // failures not yet leaked away
	at    time.Time
}

// wait is how long an address has to wait before its next failure is looked
// at; 0 for now.
func (f *failures) wait(addr netip.Addr, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if level := f.level(host(addr), now); level > failureBurst-1 {
		return time.Duration((level - (failureBurst - 1)) * float64(failureEvery))
	}
	return 0
}

// add notes a failure.
func (f *failures) add(addr netip.Addr, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hosts == nil {
		f.hosts = map[netip.Prefix]failing{}
	}
	h := host(addr)
	level := f.level(h, now)
	if _, known := f.hosts[h]; !known && len(f.hosts) >= watchedHosts {
		f.forget(now)
	}
	f.hosts[h] = failing{level + 1, now}
}

func (f *failures) level(h netip.Prefix, now time.Time) float64 {
	v, ok := f.hosts[h]
	if !ok {
		return 0
	}
	return max(0, v.level-float64(now.Sub(v.at))/float64(failureEvery))
}

// forget makes room: those that have leaked empty, or else anyone.
func (f *failures) forget(now time.Time) {
	for h := range f.hosts {
		if f.level(h, now) == 0 {
			delete(f.hosts, h)
		}
	}
	for h := range f.hosts {
		if len(f.hosts) < watchedHosts {
			return
		}
		delete(f.hosts, h)
	}
}

// host is what counts as one caller: an IPv4 address, or the /64 that a
// household has of IPv6.
func host(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil { // the zero address: a connection that has none
		return netip.Prefix{}
	}
	return p
}
