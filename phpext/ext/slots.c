//go:build php

/* An interrupt must stop the attempt that it names, and never another one on the
 * same thread, nor the thread's wait for its next job. Three things hold that:
 *
 * 1. Begin, end and kill of a slot exclude each other, and kill looks at the
 *    lease. Leases are never used twice, so a late kill finds another lease or
 *    none. The flags are set inside the lock, so they are set for a running
 *    attempt only; end takes them back if they were not acted upon.
 * 2. The signal is queued inside the lock too. The kernel delivers it at the
 *    latest when the thread returns from its next system call, and between the
 *    end of an attempt and the next one the thread makes several (it sends its
 *    request and waits for the answer, and both repeat on EINTR). So no signal is
 *    left for a sleep() of the next job.
 * 3. A kill that overtakes the delivery (it comes by another socket) is kept as
 *    `early` and takes effect in begin; leases grow, so a kill that is late does not
 *    push out one that is early. */
#ifdef POGO_STATIC
#include "pogo.h"

#include <pthread.h>
#include <signal.h>

/* FrankenPHP's own kill signal; it installs a handler that does nothing. */
#define KILL_SIGNAL (SIGRTMIN + 3)

static struct slot {
  pthread_mutex_t mu; /* guards all of it */
  uint64_t lease;     /* of the running attempt; 0: none, and the pointers below mean nothing */
  uint64_t early;     /* of the kills that found their lease not running, the newest lease */
  bool hit;           /* the running attempt was killed */
  bool acked;         /* the running attempt was acked */
  zend_atomic_bool *vm_interrupt, *timed_out;
  pthread_t thread;
  uint64_t entries, deliveries;
} slots[POGO_SLOTS] = {[0 ... POGO_SLOTS - 1] = {.mu = PTHREAD_MUTEX_INITIALIZER}};

static struct slot *lock(int64_t slot) {
  if (slot < 0 || slot >= POGO_SLOTS) {
    return NULL;
  }
  pthread_mutex_lock(&slots[slot].mu);
  return &slots[slot];
}

static void unlock(struct slot *s) { pthread_mutex_unlock(&s->mu); }

/* The order of the stores is FrankenPHP's: who sees vm_interrupt sees timed_out. */
static void hit(struct slot *s) {
  s->hit = true;
  zend_atomic_bool_store_ex(s->timed_out, true);
  zend_atomic_bool_store_ex(s->vm_interrupt, true);
}

void pogo_slot_enter(int64_t slot) {
  struct slot *s = lock(slot);
  if (s) {
    s->entries++;
    unlock(s);
  }
}

void pogo_slot_begin(int64_t slot, uint64_t lease) {
  struct slot *s = lock(slot);
  if (!s) {
    return;
  }
  s->lease = lease;
  s->hit = s->acked = false;
  s->vm_interrupt = &EG(vm_interrupt);
  s->timed_out = &EG(timed_out);
  s->thread = pthread_self();
  s->deliveries++;
  if (s->early == lease) {
    hit(s); /* this thread is awake: next() looks at the flag */
  }
  unlock(s);
}

/* timed_out is taken back whoever set it: the caller has stopped PHP's own timer.
 * vm_interrupt stays, for it may be another's, and alone it does nothing. */
void pogo_slot_end(int64_t slot) {
  struct slot *s = lock(slot);
  if (!s) {
    return;
  }
  s->lease = 0;
  s->hit = false;
  zend_atomic_bool_store_ex(&EG(timed_out), false);
  unlock(s);
}

bool pogo_slot_hit(int64_t slot) {
  struct slot *s = lock(slot);
  bool yes = s && s->lease && s->hit;
  if (s) unlock(s);
  return yes;
}

void pogo_slot_ack(int64_t slot) {
  struct slot *s = lock(slot);
  if (s) {
    s->acked = s->lease != 0;
    unlock(s);
  }
}

bool pogo_slot_acked(int64_t slot) {
  struct slot *s = lock(slot);
  bool yes = s && s->lease && s->acked;
  if (s) unlock(s);
  return yes;
}

/* Without FrankenPHP's handler the signal would end the process; the flags alone
 * stop whatever does not sleep. */
static void wake(struct slot *s) {
  struct sigaction now;
  if (sigaction(KILL_SIGNAL, NULL, &now) == 0 && now.sa_handler != SIG_DFL) {
    pthread_kill(s->thread, KILL_SIGNAL);
  }
}

bool pogo_slot_kill(int64_t slot, uint64_t lease) {
  struct slot *s = lock(slot);
  if (!s || !lease) {
    if (s) unlock(s);
    return false;
  }
  bool runs = s->lease == lease;
  if (runs) {
    hit(s);
    wake(s);
  } else if (lease > s->early) {
    s->early = lease;
  }
  unlock(s);
  return runs;
}

/* A signal that comes when PHP has looked at the flag for the last time before it
 * begins to sleep is lost, so the host sends more while a flag is still up. It
 * raises none: shutdown functions, which run after a kill, are left in peace. */
bool pogo_slot_nudge(int64_t slot, uint64_t lease) {
  struct slot *s = lock(slot);
  bool pending = s && lease && s->lease == lease && s->hit &&
                 (zend_atomic_bool_load_ex(s->timed_out) || zend_atomic_bool_load_ex(s->vm_interrupt));
  if (pending) wake(s);
  if (s) unlock(s);
  return pending;
}

uint64_t pogo_slot_lease(int64_t slot) {
  struct slot *s = lock(slot);
  uint64_t lease = s ? s->lease : 0;
  if (s) unlock(s);
  return lease;
}

void pogo_slot_counts(int64_t slot, uint64_t *entries, uint64_t *deliveries) {
  struct slot *s = lock(slot);
  *entries = s ? s->entries : 0;
  *deliveries = s ? s->deliveries : 0;
  if (s) unlock(s);
}
#endif
