/* The job threads of a PHP host by number, and how the node stops an attempt. */
#ifndef POGO_SLOTS_H
#define POGO_SLOTS_H

#include <stdbool.h>
#include <stdint.h>

/* Slots of one host are 0 to POGO_SLOTS-1. */
#define POGO_SLOTS 1024

#ifdef POGO_STATIC
/* A thread calls these about itself. */
void pogo_slot_enter(int64_t slot);                 /* its script asks for a delivery */
void pogo_slot_begin(int64_t slot, uint64_t lease); /* an attempt starts */
void pogo_slot_end(int64_t slot);                   /* it has ended: no interrupt from here on */
bool pogo_slot_hit(int64_t slot);                   /* whether the running attempt was interrupted */
void pogo_slot_ack(int64_t slot);                   /* its handler has acked it */

/* The host calls these from any thread. */
bool pogo_slot_kill(int64_t slot, uint64_t lease);  /* false: that attempt does not run */
bool pogo_slot_nudge(int64_t slot, uint64_t lease); /* false: it has ended, or has noticed the kill */
bool pogo_slot_acked(int64_t slot);                 /* whether the running attempt was */
uint64_t pogo_slot_lease(int64_t slot);             /* of the attempt that runs, or 0 */
/* How often scripts of this slot asked for a delivery, and got one. */
void pogo_slot_counts(int64_t slot, uint64_t *entries, uint64_t *deliveries);
#else /* on the command line nobody interrupts: the process is the attempt */
static inline void pogo_slot_enter(int64_t slot) { (void)slot; }
static inline void pogo_slot_begin(int64_t slot, uint64_t lease) { (void)slot; (void)lease; }
static inline void pogo_slot_end(int64_t slot) { (void)slot; }
static inline void pogo_slot_ack(int64_t slot) { (void)slot; }
#endif

#endif
