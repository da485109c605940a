package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Outbound says what an address of the configuration may lead to. A name may
// come to mean another address at any time (DNS rebinding), and a server may
// send its client on: so the address that is dialled is what is looked at, each
// time, and no redirect is followed.
type Outbound struct {
	// Stated are the addresses that the configuration names. One that is an
	// address itself, or localhost, is meant as it is written; a name without a
	// dot, or under .local, .internal, .lan or home.arpa, may mean an address of
	// a private network. Any other name has to mean a public one.
	Stated []string
	// Networks are those that any name may lead to beside.
	Networks []netip.Prefix
	TLS      *tls.Config   // nil: the system's authorities
	Timeout  time.Duration // of a whole exchange; 0: none

	lookup func(ctx context.Context, host string) ([]netip.Addr, error) // nil: the system's
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
}

// ErrOutbound means that an address leads where it may not.
var ErrOutbound = errors.New("the address leads to a network that it may not")

// Client returns a client that goes nowhere else.
func (o Outbound) Client() *http.Client {
	if o.lookup == nil {
		o.lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if o.dial == nil {
		o.dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	return &http.Client{
		Timeout:       o.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: o.connect, TLSClientConfig: o.TLS, ForceAttemptHTTP2: true,
			MaxIdleConns: 16, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 10 * time.Second,
		},
	}
}

// connect looks a name up once, and dials only what it has looked at.
func (o Outbound) connect(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	found := []netip.Addr{}
	if ip, err := netip.ParseAddr(host); err == nil {
		found = append(found, ip)
	} else if found, err = o.lookup(ctx, host); err != nil {
		return nil, err
	}
	var errs []error
	for _, ip := range found {
		if err := o.check(host, port, ip.WithZone("").Unmap()); err != nil {
			errs = append(errs, err)
			continue
		}
		conn, err := o.dial(ctx, network, net.JoinHostPort(ip.String(), port))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		errs = append(errs, fmt.Errorf("%s has no address", host))
	}
	return nil, errors.Join(errs...)
}

// check says why a connection to an address, by way of a host, may not be made.
func (o Outbound) check(host, port string, ip netip.Addr) error {
	in := func(p netip.Prefix) bool { return p.Contains(ip) }
	switch {
	case slices.ContainsFunc(o.Networks, in):
		return nil
	case slices.ContainsFunc(never(), in) && ip != netip.IPv6Loopback():
		return fmt.Errorf("%w: %s means %s, which is nobody's to call: name its network in outbound.networks if it is meant", ErrOutbound, host, ip)
	case !slices.ContainsFunc(private(), in):
		return nil
	case o.states(host, port) && (host == ip.String() || host == "localhost" && ip.IsLoopback()):
		return nil
	case o.states(host, port) && ofPrivateNetworks(host) && !ip.IsLoopback():
		return nil
	}
	return fmt.Errorf("%w: %s means %s, which is private: name its network in outbound.networks if it is meant", ErrOutbound, host, ip)
}

// states reports whether the configuration itself names a host with its port.
func (o Outbound) states(host, port string) bool {
	return slices.ContainsFunc(o.Stated, func(s string) bool {
		u, err := url.Parse(s)
		if err != nil {
			return false
		}
		said := u.Port()
		if said == "" {
			said = map[string]string{"https": "443"}[u.Scheme]
		}
		if said == "" {
			said = "80"
		}
		return strings.EqualFold(u.Hostname(), host) && said == port
	})
}

// ofPrivateNetworks reports whether a name is one that public name servers do
// not know (RFC 6762, RFC 8375, and ICANN's .internal).
func ofPrivateNetworks(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if !strings.Contains(host, ".") {
		return host != "localhost" && strings.Trim(host, "0123456789abcdefx") != "" // no spelling of a number
	}
	for _, end := range [...]string{".local", ".internal", ".lan", ".home.arpa"} {
		if strings.HasSuffix(host, end) {
			return true
		}
	}
	return false
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// never are addresses that no service has, or that machines of a cloud keep
// their credentials at.
func never() []netip.Prefix {
	return prefixes("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4", "100.100.100.200/32", "192.0.0.0/24",
		"::/128", "fe80::/10", "ff00::/8", "fd00:ec2::254/128", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")
}

// private are addresses of this machine and of private networks.
func private() []netip.Prefix {
	return prefixes("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15", "::1/128", "fc00::/7", "fec0::/10")
}
