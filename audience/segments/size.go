package segments

// Size is the number of endpoints of all apps.
func (ix *Index) Size() int {
	m := ix.apps.Load()
	m.mu.RLock()
	all := make([]*audience, 0, len(m.all))
	for _, a := range m.all {
		all = append(all, a)
	}
	m.mu.RUnlock()
	n := 0
	for _, a := range all {
		a.mu.RLock()
		n += int(a.used) - len(a.free)
		a.mu.RUnlock()
	}
	return n
}
