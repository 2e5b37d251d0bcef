//go:build php

/* Pages in a PHP host. In worker mode a script answers many requests, and FrankenPHP's
 * own frankenphp_handle_request begins and ends each of them; what ends with a request in
 * classic mode, because its script does, is ended here. */
#ifdef POGO_STATIC
#include "pogo.h"

#include <Zend/zend_observer.h>

/* ---- the beginning and the end of a request ---- */

static int (*previous_deactivate)(void);
static zend_result (*previous_filter_startup)(INIT_FUNC_ARGS);

static zend_module_entry *module(const char *name) { return zend_hash_str_find_ptr(&module_registry, name, strlen(name)); }

/* FrankenPHP starts few modules anew for a request of a worker, and zlib is not among
 * them: the encoding that one client accepts would be the next one's too, and
 * zlib.output_compression would compress nothing. The filter module is the last that it
 * starts, when the superglobals are the request's. */
static zend_result on_filter_startup(INIT_FUNC_ARGS) {
  zend_result result = previous_filter_startup ? previous_filter_startup(INIT_FUNC_ARGS_PASSTHRU) : SUCCESS;
  zend_module_entry *zlib = POGO_G(serving) ? module("zlib") : NULL;
  if (zlib && zlib->request_startup_func) {
    zlib->request_startup_func(zlib->type, zlib->module_number);
  }
  return result;
}

/* Comes at the end of each request, before its client has the end of the answer. When the
 * script ends with it, RSHUTDOWN has done this already. */
static int on_deactivate(void) {
  zend_module_entry *zlib = POGO_G(serving) ? module("zlib") : NULL;
  if (zlib && zlib->request_shutdown_func) {
    zlib->request_shutdown_func(zlib->type, zlib->module_number);
  }
  pogo_request_end();
  return previous_deactivate ? previous_deactivate() : SUCCESS;
}

/* ---- the status of a fatal error ---- */

/* PHP says 500 only when it displays no errors, and 200 otherwise. */
static void on_error(int type, zend_string *file, uint32_t line, zend_string *message) {
  if ((type & (E_ERROR | E_PARSE | E_CORE_ERROR | E_COMPILE_ERROR)) && SG(sapi_started) && !POGO_G(worker).active && !SG(headers_sent) &&
      SG(sapi_headers).http_response_code == 200) {
    sapi_header_op(SAPI_HEADER_SET_STATUS, (void *)(zend_intptr_t)500);
  }
}

/* ---- one request of a worker ---- */

static void set_time_limit(zend_long seconds) {
  char text[32];
  int n = snprintf(text, sizeof text, ZEND_LONG_FMT, seconds);
  zend_string *name = zend_string_init(ZEND_STRL("max_execution_time"), 0);
  zend_alter_ini_entry_chars(name, text, (size_t)n, ZEND_INI_USER, ZEND_INI_STAGE_RUNTIME);
  zend_string_release(name);
}

/* A request that exits, or ends by a fatal error, ends the script and does not come back. */
void pogo_web_handle_request(zif_handler frankenphp, INTERNAL_FUNCTION_PARAMETERS) {
  zend_long limit = EG(timeout_seconds);
  bool ignore_user_abort = PG(ignore_user_abort);
  POGO_G(serving) = true;
  frankenphp(INTERNAL_FUNCTION_PARAM_PASSTHRU);
  POGO_G(serving) = false;
  if (EG(timeout_seconds) != limit) {
    set_time_limit(limit);
  }
  PG(ignore_user_abort) = ignore_user_abort;
  pogo_forget_last_error();
  EG(exit_status) = 0; /* an uncaught exception was that request's alone */
}

/* ---- becoming part of PHP ---- */

void pogo_web_minit(void) {
  zend_module_entry *filter = module("filter");
  if (filter && filter->request_startup_func != on_filter_startup) {
    previous_filter_startup = filter->request_startup_func;
    filter->request_startup_func = on_filter_startup;
  }
  previous_deactivate = sapi_module.deactivate;
  sapi_module.deactivate = on_deactivate;
  zend_observer_error_register(on_error);
}

void pogo_web_rshutdown(void) { POGO_G(serving) = false; }

void pogo_web_mshutdown(void) {
  if (sapi_module.deactivate == on_deactivate) {
    sapi_module.deactivate = previous_deactivate;
  }
}
#endif
