//go:build php

/* The ten functions of section Queue. They carry arguments to the node and its
 * answer back; what they mean is the node's. Decided here is only what must be
 * known without a node. */
#include "pogo.h"

#include <Zend/zend_smart_str.h>
#include <ext/json/php_json.h>

#include "dispatch_arginfo.h"
#include "websocket_arginfo.h"

#define MAX_REASON ((size_t)64 << 10) /* the node keeps 8 KiB of it */

/* ---- answers that the extension gives itself ---- */

static void fail_json(zval *return_value, int code, const char *message) {
  smart_str s = {0};
  zval text;
  smart_str_appends(&s, "{\"ok\":false,\"code\":");
  smart_str_append_long(&s, code);
  smart_str_appends(&s, ",\"message\":");
  ZVAL_STRING(&text, message);
  php_json_encode(&s, &text, PHP_JSON_UNESCAPED_SLASHES | PHP_JSON_UNESCAPED_UNICODE | PHP_JSON_INVALID_UTF8_SUBSTITUTE);
  zval_ptr_dtor(&text);
  smart_str_appendc(&s, '}');
  RETVAL_STR(smart_str_extract(&s));
}

static int code_of(pogo_outcome o) {
  switch (o) {
    case POGO_UNSENT: return POGO_CODE_UNAVAILABLE;
    case POGO_TOO_LONG: return POGO_CODE_TOO_LARGE;
    default: return POGO_CODE_BACKEND;
  }
}

/* Makes the call and returns the node's JSON. */
static void call_json(zval *return_value, pogo_request *r) {
  pogo_link *l = &POGO_G(link);
  pogo_answer a;
  pogo_outcome o = pogo_call(l, r, POGO_WAIT_PLAIN, &a);
  char message[sizeof l->error + 64];
  switch (o) {
    case POGO_ANSWERED:
      RETURN_STRINGL(a.body, a.len);
    case POGO_LOST:
      snprintf(message, sizeof message, "%s: the outcome is unknown", l->error);
      break;
    case POGO_TOO_LONG:
      snprintf(message, sizeof message, "the request has %zu bytes and %u fit: the payload is too large", r->len, POGO_MAX_FRAME);
      break;
    default:
      snprintf(message, sizeof message, "%s", l->error);
  }
  fail_json(return_value, code_of(o), message);
}

/* Makes the call and returns the node's code. A settling call that does not fit a
 * frame names a delivery that cannot exist. */
static zend_long call_settle(pogo_request *r) {
  pogo_answer a;
  pogo_outcome o = pogo_call(&POGO_G(link), r, POGO_WAIT_PLAIN, &a);
  return o == POGO_ANSWERED ? a.code : o == POGO_TOO_LONG ? POGO_CODE_BACKEND : code_of(o);
}

/* Whether a delivery is the one that this thread's handler got. */
static bool is_attempt(const zend_string *id) {
  const char *lease = memrchr(ZSTR_VAL(id), ':', ZSTR_LEN(id));
  return lease && pogo_in_worker() && ZEND_STRTOUL(lease + 1, NULL, 10) == POGO_G(worker).lease;
}

/* What an attempt that goes wrong has printed is to be with the node before it is told:
 * it is kept with the job. Output buffers stay as they are. */
static void print_first(void) {
  if (pogo_in_worker()) {
    sapi_flush();
  }
}

static void begin2(pogo_request *r, enum pogo_op op, const zend_string *a, const zend_string *b) {
  pogo_request_begin(r, op);
  pogo_request_bytes(r, ZSTR_VAL(a), ZSTR_LEN(a));
  pogo_request_bytes(r, ZSTR_VAL(b), ZSTR_LEN(b));
}

static bool bad_delay(zend_long delay) {
  if (delay >= 0 && delay <= POGO_MAX_DELAY) {
    return false;
  }
  zend_argument_value_error(3, "must be between 0 and " ZEND_LONG_FMT " seconds (ten years)", POGO_MAX_DELAY);
  return true;
}

/* ---- the functions ---- */

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_pogo_queue_push, 0, 2, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO(0, queue, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO(0, payload, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO_WITH_DEFAULT_VALUE(0, delaySeconds, IS_LONG, 0, "0")
ZEND_END_ARG_INFO()

ZEND_FUNCTION(pogo_queue_push) {
  zend_string *queue, *payload;
  zend_long delay = 0;
  ZEND_PARSE_PARAMETERS_START(2, 3)
    Z_PARAM_STR(queue)
    Z_PARAM_STR(payload)
    Z_PARAM_OPTIONAL
    Z_PARAM_LONG(delay)
  ZEND_PARSE_PARAMETERS_END();
  if (bad_delay(delay)) {
    RETURN_THROWS();
  }
  pogo_request r;
  begin2(&r, POGO_PUSH, queue, payload);
  pogo_request_int(&r, delay);
  call_json(return_value, &r);
}

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_pogo_queue_ack, 0, 2, IS_LONG, 0)
  ZEND_ARG_TYPE_INFO(0, queue, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO(0, deliveryId, IS_STRING, 0)
ZEND_END_ARG_INFO()

ZEND_FUNCTION(pogo_queue_ack) {
  zend_string *queue, *id;
  ZEND_PARSE_PARAMETERS_START(2, 2)
    Z_PARAM_STR(queue)
    Z_PARAM_STR(id)
  ZEND_PARSE_PARAMETERS_END();
  if (!ZSTR_LEN(queue) || !ZSTR_LEN(id)) {
    RETURN_LONG(POGO_CODE_BACKEND); /* before "no node": it is wrong with every node */
  }
  pogo_request r;
  begin2(&r, POGO_ACK, queue, id);
  zend_long code = call_settle(&r);
  if (code == 1 && is_attempt(id)) {
    pogo_slot_ack(POGO_G(worker).slot);
  }
  RETURN_LONG(code);
}

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_pogo_queue_release, 0, 2, IS_LONG, 0)
  ZEND_ARG_TYPE_INFO(0, queue, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO(0, deliveryId, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO_WITH_DEFAULT_VALUE(0, delaySeconds, IS_LONG, 0, "0")
ZEND_END_ARG_INFO()

ZEND_FUNCTION(pogo_queue_release) {
  zend_string *queue, *id;
  zend_long delay = 0;
  ZEND_PARSE_PARAMETERS_START(2, 3)
    Z_PARAM_STR(queue)
    Z_PARAM_STR(id)
    Z_PARAM_OPTIONAL
    Z_PARAM_LONG(delay)
  ZEND_PARSE_PARAMETERS_END();
  if (bad_delay(delay)) {
    RETURN_THROWS();
  }
  if (!ZSTR_LEN(queue) || !ZSTR_LEN(id)) {
    RETURN_LONG(POGO_CODE_BACKEND);
  }
  pogo_request r;
  print_first();
  begin2(&r, POGO_RELEASE, queue, id);
  pogo_request_int(&r, delay);
  RETURN_LONG(call_settle(&r));
}

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_pogo_queue_fail, 0, 2, IS_LONG, 0)
  ZEND_ARG_TYPE_INFO(0, queue, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO(0, deliveryId, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO_WITH_DEFAULT_VALUE(0, reason, IS_STRING, 0, "\'\'")
ZEND_END_ARG_INFO()

ZEND_FUNCTION(pogo_queue_fail) {
  zend_string *queue, *id, *reason = NULL;
  ZEND_PARSE_PARAMETERS_START(2, 3)
    Z_PARAM_STR(queue)
    Z_PARAM_STR(id)
    Z_PARAM_OPTIONAL
    Z_PARAM_STR(reason)
  ZEND_PARSE_PARAMETERS_END();
  if (!ZSTR_LEN(queue) || !ZSTR_LEN(id)) {
    RETURN_LONG(POGO_CODE_BACKEND);
  }
  pogo_request r;
  print_first();
  begin2(&r, POGO_FAIL, queue, id);
  pogo_request_bytes(&r, reason ? ZSTR_VAL(reason) : "", reason ? MIN(ZSTR_LEN(reason), MAX_REASON) : 0);
  RETURN_LONG(call_settle(&r));
}

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_pogo_queue_status, 0, 0, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO_WITH_DEFAULT_VALUE(0, queue, IS_STRING, 1, "null")
ZEND_END_ARG_INFO()

ZEND_FUNCTION(pogo_queue_status) {
  zend_string *queue = NULL;
  ZEND_PARSE_PARAMETERS_START(0, 1)
    Z_PARAM_OPTIONAL
    Z_PARAM_STR_OR_NULL(queue)
  ZEND_PARSE_PARAMETERS_END();
  pogo_request r;
  pogo_answer a;
  pogo_request_begin(&r, POGO_STATUS);
  pogo_request_bytes(&r, queue ? ZSTR_VAL(queue) : "", queue ? ZSTR_LEN(queue) : 0);
  if (pogo_call(&POGO_G(link), &r, POGO_WAIT_PLAIN, &a) != POGO_ANSWERED) {
    RETURN_STRING("{\"ready\":false,\"queues\":[]}");
  }
  RETURN_STRINGL(a.body, a.len);
}

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_pogo_queue, 0, 1, IS_LONG, 0)
  ZEND_ARG_TYPE_INFO(0, data, IS_STRING, 0)
ZEND_END_ARG_INFO()

ZEND_FUNCTION(pogo_queue) {
  zend_string *data;
  ZEND_PARSE_PARAMETERS_START(1, 1)
    Z_PARAM_STR(data)
  ZEND_PARSE_PARAMETERS_END();
  pogo_request r;
  pogo_answer a;
  pogo_request_begin(&r, POGO_PUSH);
  pogo_request_bytes(&r, ZEND_STRL("default"));
  pogo_request_bytes(&r, ZSTR_VAL(data), ZSTR_LEN(data));
  pogo_request_int(&r, 0);
  pogo_outcome o = pogo_call(&POGO_G(link), &r, POGO_WAIT_PLAIN, &a);
  RETURN_LONG(o == POGO_ANSWERED ? a.code : code_of(o));
}

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_pogo_queue_failed, 0, 1, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO(0, queue, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO_WITH_DEFAULT_VALUE(0, limit, IS_LONG, 0, "100")
ZEND_END_ARG_INFO()

ZEND_FUNCTION(pogo_queue_failed) {
  zend_string *queue;
  zend_long limit = 100;
  ZEND_PARSE_PARAMETERS_START(1, 2)
    Z_PARAM_STR(queue)
    Z_PARAM_OPTIONAL
    Z_PARAM_LONG(limit)
  ZEND_PARSE_PARAMETERS_END();
  pogo_request r;
  pogo_request_begin(&r, POGO_FAILED);
  pogo_request_bytes(&r, ZSTR_VAL(queue), ZSTR_LEN(queue));
  pogo_request_int(&r, limit);
  call_json(return_value, &r);
}

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_pogo_queue_retry_failed, 0, 2, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO(0, queue, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO(0, failedId, IS_STRING, 0)
ZEND_END_ARG_INFO()

#define arginfo_pogo_queue_forget_failed arginfo_pogo_queue_retry_failed

static void on_failed(INTERNAL_FUNCTION_PARAMETERS, enum pogo_op op) {
  zend_string *queue, *id;
  ZEND_PARSE_PARAMETERS_START(2, 2)
    Z_PARAM_STR(queue)
    Z_PARAM_STR(id)
  ZEND_PARSE_PARAMETERS_END();
  pogo_request r;
  begin2(&r, op, queue, id);
  call_json(return_value, &r);
}

ZEND_FUNCTION(pogo_queue_retry_failed) { on_failed(INTERNAL_FUNCTION_PARAM_PASSTHRU, POGO_RETRY_FAILED); }
ZEND_FUNCTION(pogo_queue_forget_failed) { on_failed(INTERNAL_FUNCTION_PARAM_PASSTHRU, POGO_FORGET_FAILED); }

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_pogo_queue_purge_failed, 0, 1, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO(0, queue, IS_STRING, 0)
ZEND_END_ARG_INFO()

ZEND_FUNCTION(pogo_queue_purge_failed) {
  zend_string *queue;
  ZEND_PARSE_PARAMETERS_START(1, 1)
    Z_PARAM_STR(queue)
  ZEND_PARSE_PARAMETERS_END();
  pogo_request r;
  pogo_request_begin(&r, POGO_PURGE_FAILED);
  pogo_request_bytes(&r, ZSTR_VAL(queue), ZSTR_LEN(queue));
  call_json(return_value, &r);
}

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_pogo_queue_reserve, 0, 1, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO(0, queues, IS_ARRAY, 0)
  ZEND_ARG_TYPE_INFO_WITH_DEFAULT_VALUE(0, wait, IS_DOUBLE, 0, "0.0")
ZEND_END_ARG_INFO()

ZEND_FUNCTION(pogo_queue_reserve); /* reserve.c */

const zend_function_entry pogo_functions[] = {
  ZEND_FE(pogo_queue_push, arginfo_pogo_queue_push)
  ZEND_FE(pogo_queue_ack, arginfo_pogo_queue_ack)
  ZEND_FE(pogo_queue_release, arginfo_pogo_queue_release)
  ZEND_FE(pogo_queue_fail, arginfo_pogo_queue_fail)
  ZEND_FE(pogo_queue_status, arginfo_pogo_queue_status)
  ZEND_FE(pogo_queue, arginfo_pogo_queue)
  ZEND_FE(pogo_queue_failed, arginfo_pogo_queue_failed)
  ZEND_FE(pogo_queue_retry_failed, arginfo_pogo_queue_retry_failed)
  ZEND_FE(pogo_queue_forget_failed, arginfo_pogo_queue_forget_failed)
  ZEND_FE(pogo_queue_purge_failed, arginfo_pogo_queue_purge_failed)
  ZEND_FE(pogo_dispatch, arginfo_pogo_dispatch)
  ZEND_FE(pogo_await, arginfo_pogo_await)
  ZEND_FE(pogo_pool_size, arginfo_pogo_pool_size)
  ZEND_FE(pogo_spawn, arginfo_pogo_spawn)
  ZEND_FE(pogo_queue_reserve, arginfo_pogo_queue_reserve)
  ZEND_FE(pogo_websocket_publish, arginfo_pogo_websocket_publish)
  ZEND_FE(pogo_websocket_broadcast_multi, arginfo_pogo_websocket_broadcast_multi)
  ZEND_FE(pogo_websocket_publish_with, arginfo_pogo_websocket_publish_with)
  ZEND_FE_END
};
