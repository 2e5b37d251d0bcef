//go:build !seeded

package clock

// System returns the machine's clock.
func System() Clock { return system{} }
