package serving

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestArenaKeepsWhatIsHeld holds, with records of all sizes that are given up in any
// order, that what is held stays as it was, and that blocks are used again.
func TestArenaKeepsWhatIsHeld(t *testing.T) {
	type kept struct {
		key, value, wantKey, wantValue []byte
		in                             *block
	}
	var a arena
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 2*blockBytes)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	text := func(most int) []byte {
		at := rng.IntN(blockBytes)
		return noise[at : at+rng.IntN(most)]
	}
	var held []kept
	blocks := map[*block]bool{}
	total := 0
	for range 3000 {
		most := []int{10, 2000, blockBytes / 4, blockBytes}[min(3, rng.IntN(60)/20+rng.IntN(20)/19)]
		k := kept{wantKey: text(40), wantValue: text(most)}
		k.key, k.value, k.in = a.keep(k.wantKey, k.wantValue)
		total += len(k.key) + len(k.value)
		if cap(k.in.bytes) == blockBytes {
			blocks[k.in] = true
		}
		for held = append(held, k); len(held) > 40; {
			at := rng.IntN(len(held))
			old := held[at]
			if !bytes.Equal(old.key, old.wantKey) || !bytes.Equal(old.value, old.wantValue) {
				t.Fatal("a held record was written over")
			}
			a.release(old.in)
			held[at] = held[len(held)-1]
			held = held[:len(held)-1]
		}
	}
	if len(blocks) > total/blockBytes/2 {
		t.Errorf("%d blocks for %d MiB of which few were held", len(blocks), total>>20)
	}
	if len(a.free) > blocksKept {
		t.Errorf("%d free blocks are kept", len(a.free))
	}
}
