package ingest_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// proxy stands before a server and makes its network bad.
type proxy struct {
	t     testing.TB
	inner *toxiproxy.Proxy
	addr  string
}

func newProxy(t testing.TB, upstream string) *proxy {
	t.Helper()
	p := &proxy{t: t, inner: toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), "p", "127.0.0.1:0", upstream)}
	if err := p.inner.Start(); err != nil {
		t.Fatal(err)
	}
	p.addr = p.inner.Listen
	t.Cleanup(p.inner.Stop)
	return p
}

// toxic is one way in which a network fails. What it does to a stream begins
// for connections that are open, too.
type toxic struct{ name, stream, attributes string }

// toxics are the proxy library's, in both directions where that differs.
func toxics() []toxic {
	return []toxic{
		{"latency", "downstream", `{"latency":200,"jitter":150}`},
		{"bandwidth", "upstream", `{"rate":40}`},
		{"slicer", "upstream", `{"average_size":64,"size_variation":32,"delay":100}`},
		{"slicer", "downstream", `{"average_size":64,"size_variation":32,"delay":100}`},
		{"timeout", "upstream", `{"timeout":300}`},
		{"timeout", "downstream", `{"timeout":300}`},
		{"reset_peer", "upstream", `{"timeout":50}`},
		{"reset_peer", "downstream", `{"timeout":50}`},
		{"limit_data", "downstream", `{"bytes":100}`},
	}
}

func (x toxic) String() string { return x.name + " " + x.stream }

func (p *proxy) add(x toxic) {
	p.t.Helper()
	text := fmt.Sprintf(`{"name":"x","type":%q,"stream":%q,"attributes":%s}`, x.name, x.stream, x.attributes)
	if _, err := p.inner.Toxics.AddToxicJson(strings.NewReader(text)); err != nil {
		p.t.Fatalf("%v: %v", x, err)
	}
}

func (p *proxy) heal() { p.inner.Toxics.ResetToxics(context.Background()) }
