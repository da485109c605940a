package features

import "testing"

func TestBlockClassesCoverAndOrder(t *testing.T) {
	lastClass, lastSize := 0, 0
	for n := 1; n < 1<<18; n++ {
		class, size := blockClass(n)
		if size < n || class < lastClass || size < lastSize || (class != lastClass && class != lastClass+1) {
			t.Fatalf("block of %d bytes: class %d size %d after class %d size %d", n, class, size, lastClass, lastSize)
		}
		if n > 64 && size*4 > n*5+4 {
			t.Fatalf("block of %d bytes wastes %d", n, size-n)
		}
		lastClass, lastSize = class, size
	}
	if class, size := blockClass(1 << 31); class >= arenaClasses || size < 1<<31 {
		t.Fatalf("largest block: class %d size %d", class, size)
	}
}
