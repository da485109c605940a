package registry

// HeldBytes is the memory that specs take in the fold.
func HeldBytes(r *Registry) int {
	n := 0
	for _, c := range r.fold.chains {
		n += cap(c.latest)
		for i := range c.versions {
			n += cap(c.versions[i].body.middle)
		}
	}
	return n
}
