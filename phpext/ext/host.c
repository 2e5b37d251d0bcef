//go:build php

/* What is different inside a PHP host: the extension is linked in, a request may
 * be a worker script, and some functions of pcntl would take the host down. */
#ifdef POGO_STATIC
#include "pogo.h"

#include "host.h"

#include <Zend/zend_constants.h>
#include <php_main.h>
#include <php_network.h>
#include <sys/un.h>

/* ---- becoming part of PHP ---- */

static char socket_path[sizeof((struct sockaddr_un *)0)->sun_path];
static int (*previous_register)(void);

const char *pogo_host_socket(void) { return socket_path; }

/* Runs at each start of PHP in this process. A php.ini that also names pogo.so
 * comes later and is told that the module is loaded. */
static int register_pogo(void) {
  if (previous_register && previous_register() != SUCCESS) {
    return FAILURE;
  }
  return zend_register_internal_module(&pogo_module_entry) ? SUCCESS : FAILURE;
}

int pogo_install(const char *path) {
  if (strlen(path) >= sizeof socket_path) {
    return 0;
  }
  strcpy(socket_path, path);
  if (php_register_internal_extensions_func != register_pogo) {
    previous_register = php_register_internal_extensions_func;
    php_register_internal_extensions_func = register_pogo;
  }
  return 1;
}

/* ---- functions that a host cannot have ---- */

/* Go owns the process's signals: a handler that PHP installs crashes at the first
 * signal that arrives on a thread of Go's. */
static ZEND_NAMED_FUNCTION(no_signal_handlers) {
  zend_error(E_WARNING, "pcntl_signal() is not available in a PHP host: the host handles signals; use the php command line");
  RETURN_FALSE;
}

/* A child has one thread and none of Go's, and waits for ever at its first echo. */
static ZEND_NAMED_FUNCTION(no_fork) {
  zend_error(E_WARNING, "pcntl_fork() is not available in a PHP host: use the php command line");
  RETURN_LONG(-1);
}

static void replace(const char *name, zif_handler handler) {
  zend_internal_function *f = zend_hash_str_find_ptr(CG(function_table), name, strlen(name));
  if (f && f->type == ZEND_INTERNAL_FUNCTION) {
    f->handler = handler;
  }
}

/* ---- interrupts ---- */

static void (*previous_interrupt)(zend_execute_data *);

/* set_time_limit() clears timed_out, so a job that calls it in the very moment of
 * an interrupt would escape; vm_interrupt brings it here. */
static void on_interrupt(zend_execute_data *execute_data) {
  pogo_worker *w = &POGO_G(worker);
  if (w->active && !(EG(flags) & EG_FLAGS_IN_SHUTDOWN) && pogo_slot_hit(w->slot)) {
    zend_timeout();
  }
  if (previous_interrupt) {
    previous_interrupt(execute_data);
  }
}

/* ---- STDIN, STDOUT, STDERR of a job ---- */

/* What a job writes there goes where its echo goes, past output buffering. Asked
 * for a descriptor (proc_open), the streams are those of the process. */
static ssize_t sink_write(php_stream *stream, const char *buf, size_t count) {
  return (ssize_t)sapi_module.ub_write(buf, count);
}

static ssize_t sink_read(php_stream *stream, char *buf, size_t count) { return -1; }
static int sink_close(php_stream *stream, int close_handle) { return 0; }
static int sink_flush(php_stream *stream) { return 0; }

static int sink_cast(php_stream *stream, int castas, void **ret) {
  if (castas != PHP_STREAM_AS_FD && castas != PHP_STREAM_AS_FD_FOR_SELECT) {
    return FAILURE;
  }
  if (ret) {
    *(php_socket_t *)ret = (int)(intptr_t)stream->abstract;
  }
  return SUCCESS;
}

static const php_stream_ops sink_ops = {
  sink_write, sink_read, sink_close, sink_flush, "pogo", NULL, sink_cast, NULL, NULL,
};

static void define_stream(const char *name, php_stream *stream) {
  if (!stream) {
    return;
  }
  zend_constant c;
  php_stream_to_zval(stream, &c.value);
  ZEND_CONSTANT_SET_FLAGS(&c, CONST_CS, 0);
  c.name = zend_string_init_interned(name, strlen(name), 0);
  zend_register_constant(&c);
}

static void define_streams(void) {
  define_stream("STDIN", php_stream_open_wrapper("/dev/null", "rb", 0, NULL));
  define_stream("STDOUT", php_stream_alloc(&sink_ops, (void *)(intptr_t)STDOUT_FILENO, NULL, "wb"));
  define_stream("STDERR", php_stream_alloc(&sink_ops, (void *)(intptr_t)STDERR_FILENO, NULL, "wb"));
}

/* ---- the request of a worker script ---- */

/* FrankenPHP's, v1.12.4: getenv() answers from the first, or else the second. The
 * first belongs to the request and is freed by FrankenPHP when the script ends. */
extern __thread HashTable *sandboxed_env;
extern HashTable *main_thread_env;

static zend_string *server_string(const char *name) {
  zval *server = &PG(http_globals)[TRACK_VARS_SERVER];
  zval *v = Z_TYPE_P(server) == IS_ARRAY ? zend_hash_str_find(Z_ARRVAL_P(server), name, strlen(name)) : NULL;
  return v && Z_TYPE_P(v) == IS_STRING ? Z_STR_P(v) : NULL;
}

static void drop_server(const char *name) {
  zend_hash_str_del(Z_ARRVAL(PG(http_globals)[TRACK_VARS_SERVER]), name, strlen(name));
}

/* Gives getenv() the variables of the request whose names POGO_ENV lists, one a
 * line. Not by putenv(), which is the whole process's. */
static void take_environment(void) {
  zend_string *list = server_string("POGO_ENV");
  if (!list) {
    return;
  }
  sandboxed_env = zend_array_dup(main_thread_env);
  for (const char *p = ZSTR_VAL(list), *end = p + ZSTR_LEN(list); p < end;) {
    const char *stop = memchr(p, '\n', (size_t)(end - p));
    if (!stop) stop = end;
    zval *v = zend_hash_str_find(Z_ARRVAL(PG(http_globals)[TRACK_VARS_SERVER]), p, (size_t)(stop - p));
    if (v && Z_TYPE_P(v) == IS_STRING) {
      Z_ADDREF_P(v);
      zend_hash_str_update(sandboxed_env, p, (size_t)(stop - p), v);
    }
    p = stop + 1;
  }
}

/* As the script itself could: ZEND_INI_SYSTEM would forbid set_time_limit(). */
static void set_ini(const char *name, const char *value) {
  zend_string *n = zend_string_init(name, strlen(name), 0);
  zend_alter_ini_entry_chars(n, value, strlen(value), ZEND_INI_USER, ZEND_INI_STAGE_ACTIVATE);
  zend_string_release(n);
}

/* Sets what POGO_INI lists, one name=value a line, until the request ends. */
static void take_ini(void) {
  zend_string *list = server_string("POGO_INI");
  if (!list) {
    return;
  }
  for (const char *p = ZSTR_VAL(list), *end = p + ZSTR_LEN(list); p < end;) {
    const char *stop = memchr(p, '\n', (size_t)(end - p));
    if (!stop) stop = end;
    const char *is = memchr(p, '=', (size_t)(stop - p));
    if (is) {
      zend_string *name = zend_string_init(p, (size_t)(is - p), 0);
      if (zend_alter_ini_entry_chars(name, is + 1, (size_t)(stop - is - 1), ZEND_INI_USER, ZEND_INI_STAGE_ACTIVATE) != SUCCESS) {
        zend_error(E_WARNING, "the worker's setting %s cannot be %.*s: it does not exist, cannot change while PHP runs, or refuses the value", ZSTR_VAL(name),
                   (int)MIN(stop - is - 1, 200), is + 1);
      }
      zend_string_release(name);
    }
    p = stop + 1;
  }
}

void pogo_host_rinit(void) {
  if (SG(request_info).content_length != POGO_JOB_REQUEST) {
    return;
  }
  zend_is_auto_global_str(ZEND_STRL("_SERVER"));
  zend_string *pool = server_string("POGO_POOL"), *name = pool ? pool : server_string("POGO_WORKER"), *slot = server_string("POGO_SLOT");
  if (!name || !slot) {
    return;
  }
  pogo_worker_begin(zend_string_copy(name), ZEND_STRTOL(ZSTR_VAL(slot), NULL, 10), pool != NULL);
  take_environment();
  drop_server("POGO_ENV");
  drop_server("POGO_SLOT");
  drop_server("CONTENT_LENGTH");
  define_streams();
  set_ini("html_errors", "0");
  /* Each warning once: by the log, or where that leads elsewhere or nowhere, as output. */
  set_ini("display_errors", PG(log_errors) && !(PG(error_log) && *PG(error_log)) ? "0" : "1");
  take_ini();
  drop_server("POGO_INI");
  set_ini("max_execution_time", "0"); /* that of pages; the node times an attempt */
  PG(ignore_user_abort) = 1;
  SG(request_info).no_headers = 1;         /* header() does nothing, at any time */
  SG(options) |= SAPI_OPTION_NO_CHDIR;     /* the working directory is the application's */
}

void pogo_host_rshutdown(void) { SG(options) &= ~SAPI_OPTION_NO_CHDIR; }

void pogo_host_minit(INIT_FUNC_ARGS) {
  replace("pcntl_signal", no_signal_handlers);
  replace("pcntl_fork", no_fork);
  previous_interrupt = zend_interrupt_function;
  zend_interrupt_function = on_interrupt;
}

void pogo_host_mshutdown(void) {
  if (zend_interrupt_function == on_interrupt) {
    zend_interrupt_function = previous_interrupt;
  }
}
#endif
