package telemetry

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"go.opentelemetry.io/otel/codes"
)

// TestTrace holds that a trace is found again, in the order in which its spans
// ended, that what was not sampled is not, and that the newest stay.
func TestTrace(t *testing.T) {
	tel := newTest(t, Config{LogFormat: "text", LogLevel: "info", LogTo: io.Discard})
	tel.kept.most = 4
	tracer := tel.Scope("ingest").Tracer
	id := func(n int) string { return fmt.Sprintf("0af7651916cd43dd8448eb211c80%04x", n) }
	traced := func(n int, flags string) {
		ctx, whole := tracer.Start(ContextFrom(t.Context(), "00-"+id(n)+"-b7ad6b7169203331-"+flags, ""), "whole")
		_, part := tracer.Start(ctx, "part")
		part.SetStatus(codes.Error, errors.New("away").Error())
		part.End()
		whole.End()
	}
	traced(1, "01")
	traced(2, "00")
	got := tel.Trace(id(1))
	if len(got) != 2 || got[0].Name != "part" || got[0].Failed != "away" || got[1].Parent != "b7ad6b7169203331" || got[0].Parent != got[1].ID || got[1].Room != "github.com/kedge-ml/kedge/ingest" {
		t.Errorf("trace 1: %+v", got)
	}
	if got := tel.Trace(id(2)); got != nil {
		t.Errorf("a trace that was not sampled: %+v", got)
	}
	traced(3, "01")
	traced(4, "01")
	if tel.Trace(id(1)) != nil || len(tel.Trace(id(3))) != 2 || len(tel.Trace(id(4))) != 2 {
		t.Error("the newest four spans did not stay, or older ones did")
	}
	if got := tel.Newest(9); len(got) != 2 || got[0].Trace != id(4) || got[0].Name != "whole" || got[1].Trace != id(3) || len(tel.Newest(1)) != 1 {
		t.Errorf("the newest traces: %+v", got)
	}
	for _, no := range []string{"", "1", id(3)[1:], id(3) + "0", "zz" + id(3)[2:]} {
		if got := tel.Trace(no); got != nil {
			t.Errorf("%q: %+v", no, got)
		}
	}
}
