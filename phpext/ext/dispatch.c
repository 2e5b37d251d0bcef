//go:build php

/* The functions of section Dispatch, and the results of the threads that serve a
 * pool. Handles are made here, so that a dispatch is one write and no wait; what
 * has gone wrong with it is told to pogo_await. The node carries arguments and
 * results as they are: JSON is made and read by PHP at both ends. */
#include "pogo.h"

#include <Zend/zend_smart_str.h>
#include <ext/json/php_json.h>
#include <ext/json/php_json_parser.h>
#include <math.h>

#define DEPTH 2048          /* of arguments and results; PHP's own default is 512 */
#define MAX_HANDLES 65536   /* of one script that it has not awaited */
#define AWAIT_SLACK_MS 10000 /* a node that has not answered so long after the time-out is none */
#define ENVELOPE "['ok' => true, 'result' => ...] or ['ok' => false, 'error' => 'message']"

/* As in the Go package internal/link. */
enum outcome { NO_OUTCOME = 0, RETURNED = 1, REFUSED = 2, BROKE = 3 };

/* What a handle stands for. */
typedef struct {
  uint64_t serial;     /* of the connection that it was dispatched on */
  int64_t outcome;     /* NO_OUTCOME: the node has it */
  zend_string *result;
} pending;

ZEND_COLD static void fail(const char *format, ...) ZEND_ATTRIBUTE_FORMAT(printf, 1, 2);

/* Throws RuntimeException; an exception that was thrown already becomes its previous one. */
static void fail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  zend_string *message = zend_vstrpprintf(0, format, args);
  va_end(args);
  zend_throw_exception(spl_ce_RuntimeException, ZSTR_VAL(message), 0);
  zend_string_release(message);
}

/* ---- handles ---- */

/* Unique in the process, so that a handle of another request is not taken for one of this. */
static int64_t last_handle;

static void free_pending(zval *v) {
  pending *p = Z_PTR_P(v);
  if (p->result) zend_string_release(p->result);
  efree(p);
}

/* The handles of this request. Those of a parent process are not a forked child's. */
static HashTable *handles(void) {
  pogo_tasks *t = &POGO_G(tasks);
  if (t->handles && t->pid != getpid()) {
    zend_hash_destroy(t->handles);
    FREE_HASHTABLE(t->handles);
    t->handles = NULL;
  }
  if (!t->handles) {
    ALLOC_HASHTABLE(t->handles);
    zend_hash_init(t->handles, 8, NULL, free_pending, false);
    t->pid = getpid();
  }
  return t->handles;
}

void pogo_tasks_rinit(void) { memset(&POGO_G(tasks), 0, sizeof(pogo_tasks)); }

/* The end of a request, or of an attempt: what was not awaited is cancelled. */
void pogo_tasks_end(void) {
  pogo_tasks *t = &POGO_G(tasks);
  pogo_link *l = &POGO_G(link);
  if (!t->handles) {
    return;
  }
  bool tell = false;
  pending *p;
  ZEND_HASH_FOREACH_PTR(t->handles, p) {
    tell = tell || (!p->outcome && p->serial == l->serial);
  } ZEND_HASH_FOREACH_END();
  zend_hash_destroy(t->handles);
  FREE_HASHTABLE(t->handles);
  t->handles = NULL;
  if (tell && t->pid == getpid() && l->pid == getpid() && l->fd >= 0) {
    pogo_request r;
    pogo_request_begin(&r, POGO_ABANDON);
    (void)pogo_send(l, &r, POGO_WAIT_DEAF); /* a connection that is lost has lost them, too */
  }
}

/* ---- JSON ---- */

static const char *json_error(php_json_error_code code) {
  switch (code) {
    case PHP_JSON_ERROR_DEPTH: return "it is nested too deep";
    case PHP_JSON_ERROR_UTF8: return "a string in it is not UTF-8";
    case PHP_JSON_ERROR_RECURSION: return "it contains itself";
    case PHP_JSON_ERROR_INF_OR_NAN: return "INF and NAN have no JSON";
    case PHP_JSON_ERROR_UNSUPPORTED_TYPE: return "a resource or a closure has no JSON";
    case PHP_JSON_ERROR_NON_BACKED_ENUM: return "an enum without values has no JSON";
    default: return "it is malformed";
  }
}

/* Appends v as JSON that brings back what it was: floats stay floats, to the last
 * digit. Returns NULL, or why there is none; an exception may have been thrown. */
static const char *encode(smart_str *to, zval *v) {
  php_json_error_code before = JSON_G(error_code); /* json_last_error() is the script's */
  zend_long precision = PG(serialize_precision);
  PG(serialize_precision) = -1;
  zend_result done = php_json_encode_ex(to, v, PHP_JSON_UNESCAPED_SLASHES | PHP_JSON_UNESCAPED_UNICODE | PHP_JSON_PRESERVE_ZERO_FRACTION, DEPTH);
  PG(serialize_precision) = precision;
  php_json_error_code code = JSON_G(error_code);
  JSON_G(error_code) = before;
  if (EG(exception)) {
    return "an exception was thrown";
  }
  return done == SUCCESS && code == PHP_JSON_ERROR_NONE ? NULL : json_error(code); /* INF is written as 0, and an error */
}

/* Reads JSON, objects as associative arrays. Returns NULL, or what is wrong. */
static const char *decode(zval *to, const char *s, size_t n) {
  php_json_parser parser;
  php_json_parser_init(&parser, to, s, n, PHP_JSON_OBJECT_AS_ARRAY, DEPTH + 2);
  if (php_json_parse(&parser)) {
    ZVAL_NULL(to);
    return json_error(php_json_parser_error_code(&parser));
  }
  return NULL;
}

/* What an envelope says; BROKE: it is none. */
static enum outcome judge(zval *envelope) {
  zval *ok = Z_TYPE_P(envelope) == IS_ARRAY ? zend_hash_str_find_deref(Z_ARRVAL_P(envelope), ZEND_STRL("ok")) : NULL;
  if (!ok || (Z_TYPE_P(ok) != IS_TRUE && Z_TYPE_P(ok) != IS_FALSE)) {
    return BROKE;
  }
  return Z_TYPE_P(ok) == IS_TRUE ? RETURNED : REFUSED;
}

/* ---- pools ---- */

/* Finds a pool in the node's greeting: its threads, or -1. */
static int64_t pool_size(const pogo_link *l, const char *name, size_t n) {
  uint32_t len;
  if (l->greeting_len < sizeof len) {
    return -1;
  }
  memcpy(&len, l->greeting, sizeof len);
  const char *p = l->greeting + sizeof len, *end = p + MIN(len, l->greeting_len - sizeof len);
  while (end - p >= (ptrdiff_t)sizeof len) {
    memcpy(&len, p, sizeof len);
    p += sizeof len;
    if (end - p < (ptrdiff_t)len || end - p - (ptrdiff_t)len < 12) {
      break;
    }
    if (len == n && !memcmp(p, name, n)) {
      int64_t threads;
      memcpy(&threads, p + len + 4, sizeof threads);
      return threads;
    }
    p += len + 12;
  }
  return -1;
}

/* Connects and finds the pool; throws when there is none. "" is default. */
static int64_t find_pool(zend_string **name) {
  pogo_link *l = &POGO_G(link);
  if (!pogo_connect(l, POGO_WAIT_PLAIN)) {
    fail("%s", l->error);
    return -1;
  }
  int64_t threads = pool_size(l, ZSTR_VAL(*name), ZSTR_LEN(*name));
  if (threads < 0) {
    fail("no pool is called \"%s\": name it with [[pool]] in pogod.toml", ZSTR_VAL(*name));
  }
  return threads;
}

static zend_string *or_default(zend_string *pool) {
  return pool && ZSTR_LEN(pool) ? zend_string_copy(pool) : zend_string_init(ZEND_STRL("default"), 0);
}

ZEND_FUNCTION(pogo_pool_size) {
  zend_string *name = NULL;
  ZEND_PARSE_PARAMETERS_START(0, 1)
    Z_PARAM_OPTIONAL
    Z_PARAM_STR(name)
  ZEND_PARSE_PARAMETERS_END();
  name = or_default(name);
  int64_t threads = find_pool(&name);
  zend_string_release(name);
  if (threads < 0) {
    RETURN_THROWS();
  }
  RETURN_LONG(threads);
}

/* ---- dispatch ---- */

/* Makes the message that the worker's closure gets. False: an exception. */
static bool make_message(smart_str *s, zend_string *class, zval *args) {
  zval name, none;
  ZVAL_STR(&name, class);
  ZVAL_EMPTY_ARRAY(&none);
  smart_str_appends(s, "{\"class\":");
  const char *wrong = encode(s, &name);
  if (wrong) {
    fail("the name of the class cannot be encoded: %s", wrong);
    return false;
  }
  smart_str_appends(s, ",\"args\":");
  if ((wrong = encode(s, args ? args : &none))) {
    fail("the arguments cannot be encoded: %s", wrong);
    return false;
  }
  smart_str_appendc(s, '}');
  smart_str_0(s);
  return true;
}

/* Sends the message; the handle, or 0 and an exception. */
static int64_t send_task(zend_string *pool, zend_string *message) {
  pogo_link *l = &POGO_G(link);
  HashTable *all = handles();
  if (l->borrowed) {
    fail("a signal handler cannot dispatch while it interrupts a wait for the node");
    return 0;
  }
  if (zend_hash_num_elements(all) >= MAX_HANDLES) {
    fail("%d jobs of this script were dispatched and not awaited: await some first", MAX_HANDLES);
    return 0;
  }
  if (find_pool(&pool) < 0) {
    return 0;
  }
  int64_t handle = __atomic_add_fetch(&last_handle, 1, __ATOMIC_RELAXED);
  pogo_request r;
  pogo_request_begin(&r, POGO_DISPATCH);
  pogo_request_int(&r, handle);
  pogo_request_bytes(&r, ZSTR_VAL(pool), ZSTR_LEN(pool));
  pogo_request_bytes(&r, ZSTR_VAL(message), ZSTR_LEN(message));
  if (r.len > POGO_MAX_FRAME) {
    fail("the arguments are too large: the request has %zu bytes and %u fit", r.len, POGO_MAX_FRAME);
    return 0;
  }
  if (!pogo_send(l, &r, POGO_WAIT_PLAIN)) {
    fail("%s", l->error);
    return 0;
  }
  pending *p = ecalloc(1, sizeof *p);
  p->serial = l->serial;
  zend_hash_index_add_new_ptr(all, (zend_ulong)handle, p);
  return handle;
}

static void dispatch(INTERNAL_FUNCTION_PARAMETERS) {
  zend_string *class, *pool = NULL;
  zval *args = NULL;
  ZEND_PARSE_PARAMETERS_START(1, 3)
    Z_PARAM_STR(class)
    Z_PARAM_OPTIONAL
    Z_PARAM_ARRAY(args)
    Z_PARAM_STR(pool)
  ZEND_PARSE_PARAMETERS_END();
  if (!ZSTR_LEN(class)) {
    fail("the name of the class is empty");
    RETURN_THROWS();
  }
  smart_str message = {0};
  int64_t handle = 0;
  if (make_message(&message, class, args)) {
    pool = or_default(pool);
    handle = send_task(pool, message.s);
    zend_string_release(pool);
  }
  smart_str_free(&message);
  if (!handle) {
    RETURN_THROWS();
  }
  RETURN_LONG(handle);
}

ZEND_FUNCTION(pogo_dispatch) { dispatch(INTERNAL_FUNCTION_PARAM_PASSTHRU); }
ZEND_FUNCTION(pogo_spawn) { dispatch(INTERNAL_FUNCTION_PARAM_PASSTHRU); }

/* ---- await ---- */

/* Takes a field of n bytes, or of any length where n is 0. */
static const char *take(const char **at, const char *end, uint32_t n, uint32_t *len) {
  if (end - *at < 4) {
    return NULL;
  }
  memcpy(len, *at, 4);
  if ((n && *len != n) || (size_t)(end - *at - 4) < *len) {
    return NULL;
  }
  const char *p = *at + 4;
  *at = p + *len;
  return p;
}

/* Keeps the results of an answer, each with its handle. */
static void keep_results(const pogo_answer *a) {
  const char *at = a->body, *end = at + a->len;
  while (at < end) {
    uint32_t n;
    int64_t handle, outcome;
    const char *h = take(&at, end, 8, &n), *o = h ? take(&at, end, 8, &n) : NULL, *r = o ? take(&at, end, 0, &n) : NULL;
    if (!r) {
      return;
    }
    memcpy(&handle, h, 8);
    memcpy(&outcome, o, 8);
    pending *p = zend_hash_index_find_ptr(handles(), (zend_ulong)handle);
    if (p && !p->outcome) {
      p->outcome = outcome;
      p->result = zend_string_init(r, n, 0);
    }
  }
}

/* Waits for the result of a handle. False: an exception, and the handle is consumed
 * unless it could not even be asked for. */
static bool fetch(zend_long handle, double timeout) {
  pogo_link *l = &POGO_G(link);
  pending *p = zend_hash_index_find_ptr(handles(), (zend_ulong)handle);
  if (p->outcome) {
    return true;
  }
  if (l->borrowed) {
    fail("a signal handler cannot await while it interrupts a wait for the node");
    return false;
  }
  pogo_answer a;
  pogo_request r;
  timeout = MIN(timeout, 1e8); /* three years */
  pogo_request_begin(&r, POGO_AWAIT);
  pogo_request_int(&r, handle);
  pogo_request_int(&r, (int64_t)ceil(timeout * 1e6));
  pogo_outcome o = POGO_UNSENT;
  if (p->serial == l->serial) {
    o = pogo_call_open(l, &r, POGO_WAIT_HANDLERS, AWAIT_SLACK_MS + (int64_t)ceil(timeout * 1e3), &a);
  } else {
    snprintf(l->error, sizeof l->error, "the link to the node was lost");
  }
  if (o == POGO_ANSWERED && a.code == 1) {
    keep_results(&a);
    p = zend_hash_index_find_ptr(handles(), (zend_ulong)handle);
    if (p && p->outcome) {
      return true;
    }
    snprintf(l->error, sizeof l->error, "the node sent another result");
    pogo_link_close(l);
  }
  zend_hash_index_del(handles(), (zend_ulong)handle);
  if (EG(exception)) { /* a signal handler's */
    return false;
  }
  if (o == POGO_ANSWERED && a.code != 1) {
    fail("%.*s", (int)MIN(a.len, 500), a.body);
    return false;
  }
  if (l->stopped && zend_atomic_bool_load_ex(&EG(timed_out))) {
    zend_timeout();
  }
  fail("the job is lost: %s", l->error);
  return false;
}

/* Returns what an envelope holds, or throws what it says. */
static void open_envelope(zval *return_value, zend_string *text) {
  zval envelope;
  const char *wrong = decode(&envelope, ZSTR_VAL(text), ZSTR_LEN(text));
  if (wrong) {
    fail("the worker returned an invalid envelope: %s", wrong);
    return;
  }
  switch (judge(&envelope)) {
    case RETURNED: {
      zval *result = zend_hash_str_find(Z_ARRVAL(envelope), ZEND_STRL("result"));
      if (result) {
        ZVAL_COPY(return_value, result);
      }
      break;
    }
    case REFUSED: {
      zval *error = zend_hash_str_find(Z_ARRVAL(envelope), ZEND_STRL("error"));
      fail("%s", error && Z_TYPE_P(error) == IS_STRING ? Z_STRVAL_P(error) : "the job failed, and its envelope has no \"error\"");
      break;
    }
    default:
      fail("the worker returned an invalid envelope: it has no \"ok\"; return " ENVELOPE);
  }
  zval_ptr_dtor(&envelope);
}

ZEND_FUNCTION(pogo_await) {
  zend_long handle;
  double timeout = 5.0;
  ZEND_PARSE_PARAMETERS_START(1, 2)
    Z_PARAM_LONG(handle)
    Z_PARAM_OPTIONAL
    Z_PARAM_DOUBLE(timeout)
  ZEND_PARSE_PARAMETERS_END();
  if (!(timeout >= 0)) {
    fail("the time-out must be 0 or more seconds");
    RETURN_THROWS();
  }
  if (!zend_hash_index_exists(handles(), (zend_ulong)handle)) {
    fail("handle " ZEND_LONG_FMT " is unknown, or was awaited already", handle);
    RETURN_THROWS();
  }
  if (!fetch(handle, timeout)) {
    RETURN_THROWS();
  }
  pending *p = zend_hash_index_find_ptr(handles(), (zend_ulong)handle);
  int64_t outcome = p->outcome;
  zend_string *result = zend_string_copy(p->result);
  zend_hash_index_del(handles(), (zend_ulong)handle);
  if (outcome == RETURNED || outcome == REFUSED) {
    open_envelope(return_value, result);
  } else {
    fail("%s", ZSTR_VAL(result));
  }
  zend_string_release(result);
}

/* ---- the threads of a pool ---- */

static void keep(pogo_worker *w, enum outcome outcome, zend_string *result) {
  pogo_task_forget(w);
  w->last.outcome = outcome;
  w->last.result = result;
}

void pogo_task_forget(pogo_worker *w) {
  if (w->last.result) zend_string_release(w->last.result);
  w->last.outcome = NO_OUTCOME;
  w->last.result = NULL;
}

void pogo_task_broke(pogo_worker *w, zend_string *why) { keep(w, BROKE, why); }

/* What a string says that is an envelope. Those that json_encode() makes begin so. */
static enum outcome judge_text(zend_string *s) {
  if (zend_string_starts_with_literal(s, "{\"ok\":true")) return RETURNED;
  if (zend_string_starts_with_literal(s, "{\"ok\":false")) return REFUSED;
  zval envelope;
  if (decode(&envelope, ZSTR_VAL(s), ZSTR_LEN(s))) {
    return BROKE;
  }
  enum outcome o = judge(&envelope);
  zval_ptr_dtor(&envelope);
  return o;
}

void pogo_task_returned(pogo_worker *w, zval *value) {
  zend_string *text = NULL;
  enum outcome o = BROKE;
  ZVAL_DEREF(value);
  if (Z_TYPE_P(value) == IS_STRING) {
    text = zend_string_copy(Z_STR_P(value));
    o = judge_text(text);
  } else if (Z_TYPE_P(value) == IS_ARRAY) {
    smart_str s = {0};
    const char *wrong = encode(&s, value);
    if (wrong) {
      smart_str_free(&s);
      if (EG(exception)) {
        zend_clear_exception(); /* one of jsonSerialize(): the job is over, its worker is well */
        wrong = "its jsonSerialize() threw an exception";
      }
      keep(w, BROKE, strpprintf(0, "the result cannot be encoded: %s", wrong));
      return;
    }
    text = smart_str_extract(&s);
    o = judge(value);
  }
  if (o == BROKE) {
    if (text) zend_string_release(text);
    keep(w, BROKE, strpprintf(0, "the worker returned an invalid envelope, of type %s: return " ENVELOPE, zend_zval_type_name(value)));
    return;
  }
  size_t frame = ZSTR_LEN(text) + ZSTR_LEN(w->name) + 64;
  if (frame > POGO_MAX_FRAME) {
    zend_string *why = strpprintf(0, "the result is too large: its envelope has %zu bytes and about %u fit", ZSTR_LEN(text), POGO_MAX_FRAME);
    zend_string_release(text);
    keep(w, BROKE, why);
    return;
  }
  keep(w, o, text);
}

void pogo_task_request(pogo_request *r, const pogo_worker *w, enum pogo_op op, const char *text, size_t n) {
  bool has = w->last.outcome != NO_OUTCOME;
  pogo_request_begin(r, op);
  pogo_request_bytes(r, ZSTR_VAL(w->name), ZSTR_LEN(w->name));
  pogo_request_int(r, w->slot);
  pogo_request_int(r, (int64_t)w->last.number);
  pogo_request_int(r, has ? w->last.outcome : n ? BROKE : NO_OUTCOME);
  pogo_request_bytes(r, has ? ZSTR_VAL(w->last.result) : text, has ? ZSTR_LEN(w->last.result) : n);
}
