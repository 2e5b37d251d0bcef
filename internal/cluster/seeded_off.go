//go:build !seeded

package cluster

// promotesEarly is a bug that is not in this build.
const promotesEarly = false
