//go:build php

package ext

// #cgo CFLAGS: -DPOGO_STATIC -Wall -Wextra -Wno-unused-parameter
// #include <stdlib.h>
// #include "host.h"
// #include "slots.h"
import "C"

import (
	"fmt"
	"unsafe"

	"pogod/internal/link"
)

// JobRequest is the ContentLength of a request that is a worker script. Its
// environment has POGO_WORKER (the worker's name) or POGO_POOL (the pool's), POGO_SLOT, and POGO_ENV: the
// names, one a line, of variables that getenv() shows too. It may have POGO_INI:
// settings, one name=value a line, for this request.
const JobRequest = C.POGO_JOB_REQUEST

// Slots bounds the slots of one host: 0 to Slots-1.
const Slots = C.POGO_SLOTS

// Install makes the extension part of every PHP that this process starts from now
// on, connected to the node's socket.
func Install(socket string) error {
	p := C.CString(socket)
	defer C.free(unsafe.Pointer(p))
	if C.pogo_install(p) == 0 {
		return fmt.Errorf("the socket path %q has more than %d bytes", socket, link.MaxSocketPath)
	}
	return nil
}

// Interrupt stops the attempt with that lease, if it runs in the slot or is about
// to start there. It says whether it runs.
func Interrupt(slot int, lease uint64) bool {
	return bool(C.pogo_slot_kill(C.int64_t(slot), C.uint64_t(lease)))
}

// Nudge wakes an interrupted attempt that has not noticed yet, and says whether
// there is one: the signal of Interrupt is lost on a thread that was about to sleep.
func Nudge(slot int, lease uint64) bool {
	return bool(C.pogo_slot_nudge(C.int64_t(slot), C.uint64_t(lease)))
}

// Lease returns the lease of the attempt that runs in the slot, 0 for none.
func Lease(slot int) uint64 { return uint64(C.pogo_slot_lease(C.int64_t(slot))) }

// Acked reports whether the attempt that runs in the slot was acked by its handler.
func Acked(slot int) bool { return bool(C.pogo_slot_acked(C.int64_t(slot))) }

// Counts returns how often scripts in the slot have asked for a delivery, and how
// many they got.
func Counts(slot int) (entries, deliveries uint64) {
	var e, d C.uint64_t
	C.pogo_slot_counts(C.int64_t(slot), &e, &d)
	return uint64(e), uint64(d)
}
