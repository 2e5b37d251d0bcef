//go:build php

/* Worker scripts: frankenphp_handle_request asks the node for the next delivery,
 * and the end of the script tells the node how its last attempt ended.
 *
 * An attempt lasts from the answer to Next until the thread enters
 * frankenphp_handle_request again or its script ends, not until the closure
 * returns: a script may settle afterwards. */
#include "pogo.h"

#include <ext/standard/html.h>
#include <main/php_output.h>

#define MAX_MESSAGE 8192   /* bytes of Ended's message */
#define RECONNECT_MS 5000  /* how long a script waits for a node that has gone */
#define LEAVE_SECONDS 5    /* what a host gives a script that was told to end */
#define FATAL (E_ERROR | E_CORE_ERROR | E_COMPILE_ERROR | E_USER_ERROR | E_RECOVERABLE_ERROR | E_PARSE)

/* ---- why a script ended ---- */

static void forget_thrown(pogo_worker *w) {
  if (w->thrown.type) zend_string_release(w->thrown.type);
  if (w->thrown.message) zend_string_release(w->thrown.message);
  if (w->thrown.file) zend_string_release(w->thrown.file);
  memset(&w->thrown, 0, sizeof w->thrown);
}

static zend_string *string_property(zend_class_entry *base, zend_object *e, zend_known_string_id id) {
  zval rv, *v = zend_read_property_ex(base, e, ZSTR_KNOWN(id), 1, &rv);
  return Z_TYPE_P(v) == IS_STRING ? zend_string_copy(Z_STR_P(v)) : ZSTR_EMPTY_ALLOC();
}

static void (*previous_throw_hook)(zend_object *);

/* Keeps what the last exception said, by reference: an application's exception
 * handler consumes the exception before the script ends. */
static void on_throw(zend_object *e) {
  if (previous_throw_hook) {
    previous_throw_hook(e);
  }
  pogo_worker *w = &POGO_G(worker);
  if (!w->active || !e) {
    return;
  }
  zend_class_entry *base = instanceof_function(e->ce, zend_ce_exception) ? zend_ce_exception : zend_ce_error;
  if (!instanceof_function(e->ce, base)) {
    return;
  }
  forget_thrown(w);
  zval rv;
  w->thrown.type = zend_string_copy(e->ce->name);
  w->thrown.message = string_property(base, e, ZEND_STR_MESSAGE);
  w->thrown.file = string_property(base, e, ZEND_STR_FILE);
  w->thrown.line = zval_get_long(zend_read_property_ex(base, e, ZSTR_KNOWN(ZEND_STR_LINE), 1, &rv));
}

/* Makes s valid UTF-8 of at most MAX_MESSAGE bytes, in place; returns its length. */
static size_t clean_text(char *s, size_t n) {
  size_t at = 0;
  while (at < n) {
    size_t from = at;
    int status = SUCCESS;
    php_next_utf8_char((unsigned char *)s, n, &at, &status);
    if (at > MAX_MESSAGE) {
      return from;
    }
    if (status != SUCCESS) {
      memset(s + from, '?', at - from);
    }
  }
  return n;
}

/* Why the script ended, in words; "" when it came to its own end. */
static zend_string *why(pogo_worker *w) {
  const char *error = PG(last_error_message) && (PG(last_error_type) & FATAL) ? ZSTR_VAL(PG(last_error_message)) : NULL;
  bool uncaught = w->escaped || EG(exit_status) == 255 || (error && !strncmp(error, ZEND_STRL("Uncaught ")));
  if (error && strncmp(error, ZEND_STRL("Uncaught "))) {
    return strpprintf(2 * MAX_MESSAGE, "%s in %s:%d", error, PG(last_error_file) ? ZSTR_VAL(PG(last_error_file)) : "?", PG(last_error_lineno));
  }
  if (w->thrown.type && uncaught && !w->exited) {
    return strpprintf(2 * MAX_MESSAGE, "%s: %s in %s:" ZEND_LONG_FMT, ZSTR_VAL(w->thrown.type), ZSTR_VAL(w->thrown.message), ZSTR_VAL(w->thrown.file), w->thrown.line);
  }
  if (error) {
    return strpprintf(2 * MAX_MESSAGE, "%s", error);
  }
  if (EG(exit_status) || w->exited) {
    return strpprintf(0, "exit(%d)", EG(exit_status));
  }
  return ZSTR_EMPTY_ALLOC();
}

/* ---- between attempts ---- */

void pogo_forget_last_error(void) {
  PG(last_error_type) = 0;
  PG(last_error_lineno) = 0;
  if (PG(last_error_message)) {
    zend_string_release(PG(last_error_message));
    PG(last_error_message) = NULL;
  }
  if (PG(last_error_file)) {
    zend_string_release(PG(last_error_file));
    PG(last_error_file) = NULL;
  }
}

/* Takes back a set_time_limit() of the last job, and stops the timer. */
static void reset_time_limit(pogo_worker *w) {
  if (w->limit < 0) {
    w->limit = EG(timeout_seconds);
  }
  if (EG(timeout_seconds) != w->limit) {
    char limit[32];
    int n = snprintf(limit, sizeof limit, ZEND_LONG_FMT, w->limit);
    zend_string *name = zend_string_init(ZEND_STRL("max_execution_time"), 0);
    zend_alter_ini_entry_chars(name, limit, (size_t)n, ZEND_INI_USER, ZEND_INI_STAGE_RUNTIME);
    zend_string_release(name);
  }
  zend_unset_timeout();
}

/* The attempt that ran, if any, ends here: its output is out before, and nothing
 * of it is left for the next. False: an output callback threw. */
static bool end_attempt(pogo_worker *w) {
  php_output_end_all();
  sapi_flush();
  if (EG(exception)) {
    return false;
  }
  reset_time_limit(w);
  pogo_slot_end(w->slot);
  pogo_tasks_end();
  w->last.number = w->lease;
  w->lease = 0;
  w->exited = w->escaped = false;
  forget_thrown(w);
  pogo_forget_last_error();
  PG(connection_status) = PHP_CONNECTION_NORMAL;
  PG(ignore_user_abort) = 1; /* no user is connected to a job */
  if (SG(request_info).no_headers) { /* a host's: what header() has collected goes nowhere */
    sapi_header_op(SAPI_HEADER_DELETE_ALL, NULL);
  }
  SG(sapi_headers).http_response_code = 200;
  return true;
}

/* Asks for the next delivery until there is an answer; a node that has gone is
 * given some time to come back. */
static bool ask(pogo_worker *w, pogo_answer *a) {
  pogo_link *l = &POGO_G(link);
  int waited = 0, delay = 50;
  for (;;) {
    pogo_request r;
    if (w->pool) {
      pogo_task_request(&r, w, POGO_NEXT_TASK, "", 0);
    } else {
      pogo_request_begin(&r, POGO_NEXT);
      pogo_request_bytes(&r, ZSTR_VAL(w->name), ZSTR_LEN(w->name));
      pogo_request_int(&r, w->slot);
    }
    if (pogo_call(l, &r, POGO_WAIT_HANDLERS, a) == POGO_ANSWERED) {
      pogo_task_forget(w);
      w->last.number = 0;
      return true;
    }
    if (l->stopped || EG(exception) || waited >= RECONNECT_MS || !pogo_pause(l, delay, POGO_WAIT_HANDLERS)) {
      return false;
    }
    waited += delay;
    delay = MIN(2 * delay, 1000);
  }
}

static bool leave(pogo_worker *w) {
  w->leaving = true;
#ifdef POGO_STATIC
  zend_set_timeout(LEAVE_SECONDS, 0);
#endif
  return false;
}

/* Waits for a delivery. False: the script is to leave its loop, or an exception. */
static bool next(pogo_worker *w, zval *message) {
  pogo_answer a;
  pogo_slot_enter(w->slot);
  if (!ask(w, &a)) {
    return EG(exception) ? false : leave(w);
  }
  if (a.code != 1 || a.len < sizeof w->lease) {
    if (a.code != 0) {
      php_error_docref(NULL, E_WARNING, "the node gave %s \"%s\" no job: code %d %.*s", w->pool ? "pool" : "worker", ZSTR_VAL(w->name), a.code, (int)MIN(a.len, 500), a.body);
    }
    return leave(w);
  }
  memcpy(&w->lease, a.body, sizeof w->lease);
  ZVAL_STRINGL(message, a.body + sizeof w->lease, a.len - sizeof w->lease);
  /* Before begin: starting a timer clears the flag that an interrupt sets. */
  if (w->limit > 0) {
    zend_set_timeout(w->limit, 0);
  }
  pogo_slot_begin(w->slot, w->lease);
  if (zend_atomic_bool_load_ex(&EG(timed_out))) {
    zend_timeout(); /* the interrupt was here before the delivery: the closure might begin with a sleep */
  }
  return true;
}

/* ---- the function ---- */

static void handle_request(INTERNAL_FUNCTION_PARAMETERS) {
  zend_fcall_info fci;
  zend_fcall_info_cache fcc;
  ZEND_PARSE_PARAMETERS_START(1, 1)
    Z_PARAM_FUNC(fci, fcc)
  ZEND_PARSE_PARAMETERS_END();
  pogo_worker *w = &POGO_G(worker);
  zval message, result;
  if (!end_attempt(w) || !next(w, &message)) {
    zend_release_fcall_info_cache(&fcc);
    if (EG(exception)) {
      RETURN_THROWS();
    }
    RETURN_FALSE;
  }
  ZVAL_UNDEF(&result);
  fci.retval = &result;
  fci.params = &message;
  fci.param_count = 1;
  zend_call_function(&fci, &fcc);
  if (w->pool && !EG(exception) && !Z_ISUNDEF(result)) {
    pogo_task_returned(w, &result);
  }
  zval_ptr_dtor(&message);
  zval_ptr_dtor(&result);
  if (EG(exception)) { /* goes on to the caller, who as a rule lets the script end */
    w->exited = zend_is_unwind_exit(EG(exception)) || zend_is_graceful_exit(EG(exception));
    w->escaped = !w->exited;
    if (w->pool && w->escaped) {
      pogo_task_broke(w, why(w)); /* a script that catches it outside goes on to the next */
    }
    RETURN_THROWS();
  }
  RETURN_TRUE;
}

#ifdef POGO_STATIC
static zif_handler frankenphp_handler; /* FrankenPHP's own frankenphp_handle_request */

/* In a host: a job thread's, or that of pages. */
static ZEND_NAMED_FUNCTION(handle_request_in_host) {
  if (POGO_G(worker).active) {
    handle_request(INTERNAL_FUNCTION_PARAM_PASSTHRU);
  } else {
    pogo_web_handle_request(frankenphp_handler, INTERNAL_FUNCTION_PARAM_PASSTHRU);
  }
}
#endif

/* On the command line: the worker that the environment names. */
static ZEND_NAMED_FUNCTION(handle_request_on_command_line) {
  if (!POGO_G(worker).active) {
    const char *name = getenv("POGO_WORKER");
    bool pool = !name || !*name;
    if (pool) {
      name = getenv("POGO_POOL");
    }
    if (!name || !*name) {
      zend_throw_exception(spl_ce_RuntimeException, "frankenphp_handle_request() needs a worker on the command line: set POGO_WORKER to the name of one, or POGO_POOL to that of a pool", 0);
      RETURN_THROWS();
    }
    pogo_worker_begin(zend_string_init(name, strlen(name), 0), -1, pool);
  }
  handle_request(INTERNAL_FUNCTION_PARAM_PASSTHRU);
}

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_handle_request, 0, 1, _IS_BOOL, 0)
  ZEND_ARG_TYPE_INFO(0, callback, IS_CALLABLE, 0)
ZEND_END_ARG_INFO()

static const zend_function_entry command_line_functions[] = {
  ZEND_NAMED_FE(frankenphp_handle_request, handle_request_on_command_line, arginfo_handle_request)
  ZEND_FE_END
};
static bool defined_here;

/* ---- a worker script's life ---- */

void pogo_worker_minit(void) {
  zend_internal_function *f = zend_hash_str_find_ptr(CG(function_table), ZEND_STRL("frankenphp_handle_request"));
#ifdef POGO_STATIC
  if (f && f->handler != handle_request_in_host) {
    frankenphp_handler = f->handler;
    f->handler = handle_request_in_host;
  }
  (void)command_line_functions;
  (void)handle_request_on_command_line;
#else
  if (!f && !strcmp(sapi_module.name, "cli")) {
    defined_here = zend_register_functions(NULL, command_line_functions, NULL, MODULE_PERSISTENT) == SUCCESS;
  }
#endif
  previous_throw_hook = zend_throw_exception_hook;
  zend_throw_exception_hook = on_throw;
}

void pogo_worker_mshutdown(void) {
  if (zend_throw_exception_hook == on_throw) {
    zend_throw_exception_hook = previous_throw_hook;
  }
#if PHP_VERSION_ID < 80400
  if (defined_here) { /* their argument information ends with this library; 8.4 unloads it after its functions */
    zend_unregister_functions(command_line_functions, -1, NULL);
  }
#endif
  defined_here = false;
}

void pogo_worker_rinit(void) {
  memset(&POGO_G(worker), 0, sizeof(pogo_worker));
}

void pogo_worker_begin(zend_string *name, int64_t slot, bool pool) {
  pogo_worker *w = &POGO_G(worker);
  w->active = true;
  w->pid = getpid();
  w->name = name;
  w->slot = slot;
  w->pool = pool;
  w->limit = -1;
}

/* The script has ended. Its shutdown functions and destructors have run and its
 * output is written, all within the attempt. */
void pogo_worker_rshutdown(void) {
  pogo_worker *w = &POGO_G(worker);
  if (!w->active) {
    return;
  }
  if (w->pid == getpid()) {
    sapi_flush();
    pogo_slot_end(w->slot);
    zend_string *message = why(w);
    char *text = estrndup(ZSTR_VAL(message), ZSTR_LEN(message));
    pogo_request r;
    pogo_answer a;
    size_t n = clean_text(text, ZSTR_LEN(message));
    if (w->pool) {
      if (w->lease) w->last.number = w->lease;
      pogo_task_request(&r, w, POGO_TASK_ENDED, text, n);
      pogo_request_int(&r, EG(exit_status));
    } else {
      pogo_request_begin(&r, POGO_ENDED);
      pogo_request_bytes(&r, ZSTR_VAL(w->name), ZSTR_LEN(w->name));
      pogo_request_int(&r, w->slot);
      pogo_request_int(&r, (int64_t)w->lease);
      pogo_request_int(&r, EG(exit_status));
      pogo_request_bytes(&r, text, n);
    }
    (void)pogo_call(&POGO_G(link), &r, POGO_WAIT_DEAF, &a); /* a node that has gone knows of no attempt */
    efree(text);
    zend_string_release(message);
  }
  pogo_link_close(&POGO_G(link)); /* its Hello named this worker */
  forget_thrown(w);
  pogo_task_forget(w);
  zend_string_release(w->name);
  memset(w, 0, sizeof *w);
}
