package source

import (
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/twmb/avro"
)

// TestAvroBombs: records of a few bytes that say they hold millions of things are
// refused before room is made for those. Honest ones of the same schemas are read.
func TestAvroBombs(t *testing.T) {
	long := func(n int64) []byte { return binary.AppendVarint(nil, n) } // Avro's long is a zigzag varint
	for _, c := range []struct {
		items  string
		honest []byte
		bomb   []byte
	}{
		{`{"type":"array","items":"null"}`, append(long(3), 0), append(long(1<<40), 0)},
		{`{"type":"array","items":"int"}`, append(append(long(1), long(7)...), 0), append(long(1<<40), 2, 0)},
		{`{"type":"array","items":{"type":"record","name":"none","fields":[]}}`, append(long(3), 0), append(long(1<<40), 0)},
		{`{"type":"map","values":"null"}`, []byte{2, 2, 'k', 0}, append(long(1<<40), 2, 'k', 0)},
		{`"string"`, append(long(1), 'x'), append(long(1<<40), 'x')},
		{`"bytes"`, append(long(1), 'x'), append(long(1<<40), 'x')},
	} {
		s, err := avro.Parse(`{"type":"record","name":"r","fields":[{"name":"v","type":` + c.items + `}]}`)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := avroJSON(s, c.honest); err != nil || len(text) == 0 {
			t.Errorf("%s: an honest record: %s, %v", c.items, text, err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = avroJSON(s, c.bomb)
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; err == nil || grown > 1<<20 {
			t.Errorf("%s: a bomb of %d bytes took %d: %v", c.items, len(c.bomb), grown, err)
		}
	}
}
