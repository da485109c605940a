package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/event"
)

// TestUnpack reads packed records and plain ones, as kcat hands them over, and
// refuses what is cut off.
func TestUnpack(t *testing.T) {
	packer := event.NewPacker("fraud", "2", []string{"amount"}, event.OutputScore, 1, nil)
	packed := packer.Begin(nil, event.PackedRows{Count: 2, Numbered: true, ID: "p"}, &event.Prediction{EventTime: 1_700_000_000_000_000, Variant: "canary"})
	packed = packer.Column(packed, event.Float32, nil)
	for _, v := range []float32{0.1, 7} {
		packed = binary.LittleEndian.AppendUint32(packed, math.Float32bits(v))
	}
	packed = packer.Output(packed, []float32{0.25, 0.75})
	plain := `{"model":"fraud","id":"q"}`
	var in []byte
	for _, value := range []string{string(packed), plain} {
		in = append(binary.BigEndian.AppendUint32(in, uint32(len(value))), value...)
	}
	in = append(in, 0xff, 0xff, 0xff, 0xff) // a tombstone
	unpack := func(in []byte) (string, string, int) {
		var out, errs bytes.Buffer
		status := run(context.Background(), []string{"unpack"}, bytes.NewReader(in), &out, &errs)
		return out.String(), errs.String(), status
	}
	out, errs, status := unpack(in)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if status != 0 || len(lines) != 3 || lines[2] != plain {
		t.Fatalf("status %d, %q %q", status, out, errs)
	}
	for i, wants := range [][]string{{`"id":"p/0"`, `"amount":0.1`, `"score":0.25`, `"variant":"canary"`}, {`"id":"p/1"`, `"amount":7`, `"score":0.75`}} {
		for _, w := range wants {
			if !strings.Contains(lines[i], w) {
				t.Errorf("row %d has no %s: %s", i, w, lines[i])
			}
		}
	}
	for name, bad := range map[string][]byte{
		"a length that is cut off":  in[:2],
		"a value that is cut off":   in[:20],
		"text without lengths":      []byte("plain text is no record"),
		"a packed value's rest off": append(binary.BigEndian.AppendUint32(nil, 20), packed[:20]...),
	} {
		if _, errs, status := unpack(bad); status == 0 || !strings.Contains(errs, "unpack record 0") {
			t.Errorf("%s: status %d, %q", name, status, errs)
		}
	}
}
