// Package workers starts what this node holds. Pools knows every thread that runs a
// worker script, hands it the jobs that the state machine reserved for it, and sees
// each attempt to its end. Hosts starts the PHP hosts, starts them again when they end,
// replaces them when there is new code or a stuck attempt, and says how they ended.
//
// A thread that waits in Next is a credit: the leader learns how many there are and
// reserves that many jobs. Delivery is by replication: the node finds its jobs in its
// own state. Pools reconciles and never acts on single entries: after entries were
// applied, and whenever a thread came free, it compares the reservations of the node's
// session with the attempts that it has started. What is missing is started, what the
// state no longer has is interrupted.
//
// The jobs of a host that ended by itself run next one by one, each alone in the
// quarantine of its worker; quarantine.go says how.
//
// Dispatch is apart from all that: it hands tasks from one PHP thread to another, on this
// node and in memory.
package workers
