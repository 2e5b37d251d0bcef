/* What the files of the extension share. It is built two ways: linked into the
 * PHP host of pogod (POGO_STATIC) and by phpize as pogo.so. */
#ifndef POGO_H
#define POGO_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <php.h>
#include <SAPI.h>
#include <Zend/zend_exceptions.h>
#include <ext/spl/spl_exceptions.h>

#include "link.h"
#include "slots.h"

#define POGO_VERSION "0.1.0"

/* A delay may be this many seconds at most: ten years. */
#define POGO_MAX_DELAY ((zend_long)10 * 365 * 86400)

/* The script of this request, when it is a worker script. All of it is request
 * memory and ends with the request. */
typedef struct {
  bool active;       /* in a host from the start of the request, on the command line from the first entry */
  bool leaving;      /* frankenphp_handle_request has answered false */
  bool exited;       /* exit was called inside the closure */
  bool escaped;      /* an exception left the closure */
  pid_t pid;         /* the process whose script it is: a forked child has no attempt */
  zend_string *name; /* of the worker */
  int64_t slot;      /* in a host; -1 on the command line */
  bool pool;         /* it serves the pool of that name, and no queue */
  uint64_t lease;    /* of the attempt that runs, or the number of the task; 0 between attempts */
  struct {           /* of a pool: the task that ended, and how, until the node knows */
    uint64_t number;
    int64_t outcome;
    zend_string *result;
  } last;
  zend_long limit;   /* max_execution_time as it was at the first entry; -1 before it */
  struct {           /* the last exception that was thrown; NULL: none */
    zend_string *type, *message, *file;
    zend_long line;
  } thrown;
} pogo_worker;

/* What this request has dispatched and not awaited; request memory. */
typedef struct {
  HashTable *handles; /* NULL: nothing yet */
  pid_t pid;          /* whose they are */
} pogo_tasks;

ZEND_BEGIN_MODULE_GLOBALS(pogo)
  pogo_link link;
  pogo_worker worker;
  pogo_tasks tasks;
  bool serving; /* in a request of a worker of pages, from before its beginning to its end */
ZEND_END_MODULE_GLOBALS(pogo)

ZEND_EXTERN_MODULE_GLOBALS(pogo)
#define POGO_G(v) ZEND_MODULE_GLOBALS_ACCESSOR(pogo, v)

extern zend_module_entry pogo_module_entry;
extern const zend_function_entry pogo_functions[]; /* functions.c */

/* pogo.c: gives back what a request holds of the node's. It may be called again. */
void pogo_request_end(void);

/* worker.c */
void pogo_forget_last_error(void);
void pogo_worker_minit(void);
void pogo_worker_mshutdown(void);
void pogo_worker_rinit(void);
void pogo_worker_rshutdown(void);
/* Begins a worker script; name, slot and pool as in pogo_worker. */
void pogo_worker_begin(zend_string *name, int64_t slot, bool pool);
/* Whether this thread, in this process, runs a worker script. */
static inline bool pogo_in_worker(void) {
  return POGO_G(worker).active && POGO_G(worker).pid == getpid();
}

/* dispatch.c */
void pogo_tasks_rinit(void);
/* Cancels what was dispatched and not awaited. */
void pogo_tasks_end(void);
/* Keeps what the closure of a pool's worker returned. */
void pogo_task_returned(pogo_worker *w, zval *value);
/* Keeps why it has returned nothing; takes the string. */
void pogo_task_broke(pogo_worker *w, zend_string *why);
void pogo_task_forget(pogo_worker *w);
/* Builds a request that tells how the last task ended: what was kept, or else text. */
void pogo_task_request(pogo_request *r, const pogo_worker *w, enum pogo_op op, const char *text, size_t n);

#ifdef POGO_STATIC
/* host.c: what is different inside a PHP host */
const char *pogo_host_socket(void);
void pogo_host_minit(INIT_FUNC_ARGS);
void pogo_host_mshutdown(void);
void pogo_host_rinit(void);
void pogo_host_rshutdown(void);

/* web.c: pages */
void pogo_web_minit(void);
void pogo_web_mshutdown(void);
void pogo_web_rshutdown(void);
/* frankenphp_handle_request in a thread of pages, with FrankenPHP's own. */
void pogo_web_handle_request(zif_handler frankenphp, INTERNAL_FUNCTION_PARAMETERS);
#else
static inline const char *pogo_host_socket(void) { return NULL; }
#endif

#endif
