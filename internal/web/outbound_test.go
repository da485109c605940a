package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
)

// names is a resolver whose answers a test decides, by how often it was asked.
type names map[string]func(asked int64) string

func (n names) lookup(asked *atomic.Int64) func(context.Context, string) ([]netip.Addr, error) {
	return func(_ context.Context, host string) ([]netip.Addr, error) {
		answer, ok := n[host]
		if !ok {
			return nil, errors.New("no such host")
		}
		return []netip.Addr{netip.MustParseAddr(answer(asked.Add(1)))}, nil
	}
}

// TestOutboundAddresses: what a stated address may lead to, in every spelling.
func TestOutboundAddresses(t *testing.T) {
	private := []string{"127.0.0.1", "127.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "198.18.0.1", "::1", "fc00::1", "fd12:3456::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"}
	never := []string{"169.254.169.254", "169.254.170.2", "0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "100.100.100.200", "192.0.0.192", "::", "fe80::1", "ff02::1", "fd00:ec2::254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "::127.0.0.1", "::ffff:169.254.169.254", "2001:0:7f00:1::"}
	public := []string{"1.1.1.1", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700::1111"}
	tried := 0
	ask := func(stated, host, ip string, networks ...netip.Prefix) bool {
		tried++
		o := Outbound{Stated: []string{stated}, Networks: networks}
		return o.check(host, "80", netip.MustParseAddr(ip).Unmap()) == nil
	}
	for _, host := range []string{"hook.example.com", "hook.example.com.", "127.0.0.1.nip.example", "localhost.example.com", "2130706433", "0x7f000001", "0177.0.0.1", "127.1"} {
		for _, ip := range append(private, never...) {
			if ask("http://"+host, host, ip) {
				t.Errorf("%s is let to %s", host, ip)
			}
		}
		for _, ip := range public {
			if !ask("http://"+host, host, ip) {
				t.Errorf("%s is not let to %s", host, ip)
			}
		}
		if !ask("http://"+host, host, "10.1.2.3", netip.MustParsePrefix("10.1.0.0/16")) {
			t.Errorf("%s is not let to a network that is named", host)
		}
	}
	for _, host := range []string{"collector", "alerts.svc.cluster.local", "sso.corp.internal"} {
		for _, ip := range private {
			if loop := strings.Contains(ip, "127.") || ip == "::1"; ask("http://"+host, host, ip) == loop {
				t.Errorf("%s to %s: %v", host, ip, !loop)
			}
		}
		for _, ip := range never {
			if ask("http://"+host, host, ip) {
				t.Errorf("%s is let to %s", host, ip)
			}
		}
		if ask("http://other", host, "10.0.0.1") {
			t.Errorf("%s is let to a private network though the configuration does not name it", host)
		}
	}
	for _, ip := range []string{"127.0.0.1", "10.0.0.1", "::1"} {
		if !ask("http://"+net.JoinHostPort(ip, "80"), ip, ip) || ask("http://"+net.JoinHostPort(ip, "81"), ip, ip) {
			t.Errorf("%s is meant as it is written, with its port", ip)
		}
	}
	for _, ip := range never {
		if ask("http://"+net.JoinHostPort(ip, "80"), ip, ip) {
			t.Errorf("%s is let in because it is written so", ip)
		}
	}
	t.Logf("%d addresses", tried)
}

// TestOutboundRebinding: a name that is public when it is looked at and private
// when it is dialled; each request is looked at anew.
func TestOutboundRebinding(t *testing.T) {
	prey := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer prey.Close()
	_, port, _ := net.SplitHostPort(prey.Listener.Addr().String())
	address := "http://hook.example.com:" + port
	rebinds := names{"hook.example.com": func(asked int64) string {
		if asked%2 == 1 {
			return "93.184.216.34"
		}
		return "127.0.0.1"
	}}
	var dialled []string
	errNotDialled := errors.New("not dialled in a test")
	var asked atomic.Int64
	o := Outbound{Stated: []string{address}, lookup: rebinds.lookup(&asked), dial: func(_ context.Context, _, addr string) (net.Conn, error) {
		dialled = append(dialled, addr)
		return nil, errNotDialled
	}}
	client := o.Client()
	for n := range 20 {
		res, err := client.Get(address)
		if err == nil {
			res.Body.Close()
			t.Fatal("an answer")
		}
		if want := []error{errNotDialled, ErrOutbound}[n%2]; !errors.Is(err, want) {
			t.Errorf("request %d: %v, want %v", n, err, want)
		}
	}
	if len(dialled) != 10 || strings.Contains(strings.Join(dialled, " "), "127.0.0.1") {
		t.Errorf("dialled: %v", dialled)
	}
	// a client that looks first and dials then, as the naive do
	asked.Store(0)
	look := rebinds.lookup(&asked)
	first, err := look(t.Context(), "hook.example.com")
	if err != nil || o.check("hook.example.com", port, first[0]) != nil {
		t.Fatalf("the attack is none: %v %v", first, err)
	}
	then, err := look(t.Context(), "hook.example.com")
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Get("http://" + net.JoinHostPort(then[0].String(), port))
	if err != nil {
		t.Fatalf("the attack is blind: %v", err)
	}
	res.Body.Close()
}

// TestOutboundRedirects: what a server sends its client on to is not called.
func TestOutboundRedirects(t *testing.T) {
	var calls atomic.Int64
	prey := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	defer prey.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		sender := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", prey.URL+"/latest/meta-data")
			w.WriteHeader(status)
		}))
		client := Outbound{Stated: []string{sender.URL}}.Client()
		for _, method := range []string{"GET", "POST"} {
			req, err := http.NewRequest(method, sender.URL, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			res, err := client.Do(req)
			if err != nil || res.StatusCode != status {
				t.Fatalf("%s %d: %v", method, status, err)
			}
			res.Body.Close()
		}
		if calls.Load() > 0 {
			t.Fatalf("%d was followed", status)
		}
		if res, err := http.Get(sender.URL); err == nil { // a client that follows
			res.Body.Close()
		}
		if calls.Swap(0) != 1 {
			t.Fatalf("the attack is blind: %d is not followed by a client that follows", status)
		}
		sender.Close()
	}
	res, err := Outbound{Stated: []string{"http://elsewhere.example.com"}}.Client().Get(prey.URL)
	if err == nil {
		res.Body.Close()
	}
	if !errors.Is(err, ErrOutbound) || calls.Load() > 0 {
		t.Errorf("an address that the configuration does not name: %v; %d calls", err, calls.Load())
	}
	if fmt.Sprint(err) == "" || !strings.Contains(fmt.Sprint(err), "outbound.networks") {
		t.Errorf("it does not say what helps: %v", err)
	}
}
