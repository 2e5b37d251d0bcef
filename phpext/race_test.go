//go:build php

package phpext

import (
	"math/rand/v2"
	"testing"
	"time"
)

// raceRounds is how many interrupts come at the moment of settling.
const raceRounds = 10_000

// An interrupt that comes at the moment of settling, a little before or after the
// ack is answered, may end the script that has settled, but it never hits the next
// job or the wait for it.
func TestInterruptAtSettling(t *testing.T) {
	n := newNode(t)
	spread := int64(150 * time.Microsecond)
	n.mu.Lock()
	n.beforeAck = func(n *node, slot int64, lease uint64) func() {
		offset := time.Duration(rand.Int64N(2*spread) - spread)
		sent := make(chan struct{})
		go func() { // ended by itself, after the offset at the latest
			spin(offset)
			n.interrupt(slot, lease)
			close(sent)
		}()
		spin(-offset)
		return func() { <-sent }
	}
	n.mu.Unlock()
	startHost(t, n, worker(t, "race.php", 2), "1")
	rounds := raceRounds
	if testing.Short() {
		rounds /= 10
	}
	for range rounds {
		n.push("q", "p")
	}
	begun := time.Now()
	var hits int
	for acks := 0; acks < rounds; {
		switch e := receive(t, "an end", n.events); {
		case e.how == "ack" && !e.late:
			acks++
		case e.how == "ended" && e.lease != 0 && e.payload == "":
			hits++ // the script that had settled
		default:
			t.Fatalf("after %d acks: %+v", acks, e)
		}
	}
	t.Logf("%d interrupts in %v: %d hit the attempt that they named after it had settled", rounds, time.Since(begun).Round(time.Millisecond), hits)
	if hits == 0 || hits == rounds {
		t.Error("the interrupts did not come at the moment of settling")
	}
}

// spin waits for a time too short to sleep.
func spin(d time.Duration) {
	for begun := time.Now(); time.Since(begun) < d; {
	}
}
