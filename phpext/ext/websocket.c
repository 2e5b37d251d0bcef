//go:build php

/* The functions of section WebSocket. They carry an event to the node's hub, and its
 * code back. */
#include "pogo.h"

#include <Zend/zend_smart_str.h>
#include <ext/json/php_json.h>

#define PUBLISH_FAILED 6 /* of the codes of this section: no node, or one that was lost */

/* More than the node takes of each in any configuration: a part tells it that it is too
 * much, and its checks come in their order. Together they fit a frame. */
#define MOST_NAME ((size_t)64 << 10)
#define MOST_LIST ((size_t)7 << 20)
#define MOST_DATA ((size_t)9 << 20)

static void add(pogo_request *r, const zend_string *s, size_t most) {
  pogo_request_bytes(r, ZSTR_VAL(s), MIN(ZSTR_LEN(s), most));
}

static zend_long publish(pogo_request *r) {
  pogo_answer a;
  return pogo_call(&POGO_G(link), r, POGO_WAIT_PLAIN, &a) == POGO_ANSWERED ? a.code : PUBLISH_FAILED;
}

static void publish_to(INTERNAL_FUNCTION_PARAMETERS, enum pogo_op op, size_t most) {
  zend_string *app, *to, *event, *data;
  ZEND_PARSE_PARAMETERS_START(4, 4)
    Z_PARAM_STR(app)
    Z_PARAM_STR(to)
    Z_PARAM_STR(event)
    Z_PARAM_STR(data)
  ZEND_PARSE_PARAMETERS_END();
  pogo_request r;
  pogo_request_begin(&r, op);
  add(&r, app, MOST_NAME);
  add(&r, to, most);
  add(&r, event, MOST_NAME);
  add(&r, data, MOST_DATA);
  RETURN_LONG(publish(&r));
}

ZEND_FUNCTION(pogo_websocket_publish) { publish_to(INTERNAL_FUNCTION_PARAM_PASSTHRU, POGO_PUBLISH, MOST_NAME); }
ZEND_FUNCTION(pogo_websocket_broadcast_multi) { publish_to(INTERNAL_FUNCTION_PARAM_PASSTHRU, POGO_BROADCAST, MOST_LIST); }

/* Writes the channels as a JSON list. False: an exception. */
static bool list(smart_str *to, HashTable *channels) {
  zval *v;
  smart_str_appendc(to, '[');
  ZEND_HASH_FOREACH_VAL(channels, v) {
    ZVAL_DEREF(v);
    if (Z_TYPE_P(v) != IS_STRING) {
      zend_argument_type_error(2, "must be an array of channel names, %s given", zend_zval_value_name(v));
      return false;
    }
    if (ZSTR_LEN(to->s) > 1) {
      smart_str_appendc(to, ',');
    }
    php_json_encode(to, v, PHP_JSON_UNESCAPED_SLASHES | PHP_JSON_UNESCAPED_UNICODE | PHP_JSON_INVALID_UTF8_SUBSTITUTE);
  } ZEND_HASH_FOREACH_END();
  smart_str_appendc(to, ']');
  smart_str_0(to);
  return true;
}

/* Finds the socket that is not to get the event, "" for none. NULL: an exception. */
static zend_string *excepted(HashTable *options) {
  zend_string *name, *except = ZSTR_EMPTY_ALLOC();
  zval *v;
  ZEND_HASH_FOREACH_STR_KEY_VAL(options, name, v) {
    ZVAL_DEREF(v);
    if (!name || !zend_string_equals_literal(name, "except")) {
      zend_argument_value_error(5, "has an unknown option: \"except\" is the only one");
      return NULL;
    }
    if (Z_TYPE_P(v) != IS_STRING) {
      zend_argument_type_error(5, "must have a socket id as \"except\", %s given", zend_zval_value_name(v));
      return NULL;
    }
    except = Z_STR_P(v);
  } ZEND_HASH_FOREACH_END();
  return except;
}

ZEND_FUNCTION(pogo_websocket_publish_with) {
  zend_string *app, *event, *data;
  HashTable *channels, *options;
  ZEND_PARSE_PARAMETERS_START(5, 5)
    Z_PARAM_STR(app)
    Z_PARAM_ARRAY_HT(channels)
    Z_PARAM_STR(event)
    Z_PARAM_STR(data)
    Z_PARAM_ARRAY_HT(options)
  ZEND_PARSE_PARAMETERS_END();
  zend_string *except = excepted(options);
  if (!except) {
    RETURN_THROWS();
  }
  smart_str to = {0};
  if (list(&to, channels)) {
    pogo_request r;
    pogo_request_begin(&r, POGO_PUBLISH_WITH);
    add(&r, app, MOST_NAME);
    add(&r, to.s, MOST_LIST);
    add(&r, event, MOST_NAME);
    add(&r, data, MOST_DATA);
    add(&r, except, MOST_NAME);
    RETVAL_LONG(publish(&r));
  }
  smart_str_free(&to);
}
