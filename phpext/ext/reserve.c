//go:build php

/* pogo_queue_reserve: a delivery for a loop of one's own. The node holds the job for
 * this connection and gives it back when that closes, so a request's end closes it
 * (pogo.c). */
#include "pogo.h"

#include <Zend/zend_smart_str.h>
#include <time.h>

#define MAX_WAIT 86400.0 /* seconds */

static int64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Writes the names one a line. False: an exception. */
static bool take_names(smart_str *names, HashTable *queues) {
  zval *v;
  if (!zend_hash_num_elements(queues)) {
    zend_argument_value_error(1, "must name at least one queue");
    return false;
  }
  ZEND_HASH_FOREACH_VAL(queues, v) {
    ZVAL_DEREF(v);
    if (Z_TYPE_P(v) != IS_STRING) {
      zend_argument_type_error(1, "must be an array of queue names, %s given", zend_zval_value_name(v));
      return false;
    }
    if (!Z_STRLEN_P(v) || memchr(Z_STRVAL_P(v), '\n', Z_STRLEN_P(v))) {
      zend_argument_value_error(1, "must have names of queues, not \"%s\"", Z_STRVAL_P(v));
      return false;
    }
    if (names->s) {
      smart_str_appendc(names, '\n');
    }
    smart_str_append(names, Z_STR_P(v));
  } ZEND_HASH_FOREACH_END();
  return true;
}

/* Asks until there is an answer or the time is over: a node that is not there, or that
 * shuts down, may come back within it. In a host that shuts down there is nothing to
 * wait for. */
static void reserve(zval *return_value, const zend_string *names, int64_t wait) {
  pogo_link *l = &POGO_G(link);
  int64_t until = now_ms() + wait + (wait > 0); /* the clock is cut to whole milliseconds */
  for (int delay = 50;; delay = MIN(2 * delay, 1000)) {
    int64_t left = MIN(MAX(until - now_ms(), 0), wait);
    pogo_request r;
    pogo_answer a;
    pogo_request_begin(&r, POGO_RESERVE);
    pogo_request_bytes(&r, ZSTR_VAL(names), ZSTR_LEN(names));
    pogo_request_int(&r, left);
    pogo_outcome o = pogo_call(l, &r, POGO_WAIT_HANDLERS, &a);
    if (EG(exception)) { /* a signal handler's */
      RETURN_THROWS();
    }
    if (o == POGO_ANSWERED && a.code == 1) {
      l->holds = l->holds || (a.len && a.body[0] == '{');
      RETURN_STRINGL(a.body, a.len);
    }
    if (o == POGO_ANSWERED && a.code == POGO_CODE_UNKNOWN) {
      zend_argument_value_error(1, "%.*s", (int)MIN(a.len, 500), a.body);
      RETURN_THROWS();
    }
#ifdef POGO_STATIC
    bool over = o == POGO_ANSWERED;
#else
    bool over = false;
#endif
    left = until - now_ms();
    if (over || l->stopped || o == POGO_TOO_LONG || left <= 0 || !pogo_pause(l, (int)MIN(delay, left), POGO_WAIT_HANDLERS)) {
      if (EG(exception)) {
        RETURN_THROWS();
      }
      RETURN_STRING("null");
    }
  }
}

ZEND_FUNCTION(pogo_queue_reserve) {
  HashTable *queues;
  double wait = 0;
  ZEND_PARSE_PARAMETERS_START(1, 2)
    Z_PARAM_ARRAY_HT(queues)
    Z_PARAM_OPTIONAL
    Z_PARAM_DOUBLE(wait)
  ZEND_PARSE_PARAMETERS_END();
  if (!(wait >= 0 && wait <= MAX_WAIT)) {
    zend_argument_value_error(2, "must be between 0 and %d seconds (a day)", (int)MAX_WAIT);
    RETURN_THROWS();
  }
  smart_str names = {0};
  if (take_names(&names, queues)) {
    smart_str_0(&names);
    /* A wait too short for the wire is still a wait. */
    reserve(return_value, names.s, wait > 0 ? (int64_t)MAX(wait * 1000, 1) : 0);
  }
  smart_str_free(&names);
}
