//go:build !seeded

package queue

// fenced reports that a lease is asked for. It compiles away.
func fenced() bool { return true }
