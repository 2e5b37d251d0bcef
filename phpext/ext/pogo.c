//go:build php

/* The module: its settings, its life, its section of phpinfo(). */
#include "pogo.h"

#include <ext/standard/info.h>
#include <sys/un.h>

ZEND_DECLARE_MODULE_GLOBALS(pogo)

PHP_INI_BEGIN()
  /* Path of the node's socket; empty: POGOD_SOCKET, then .pogod/pogod.sock under the working directory. */
  PHP_INI_ENTRY("pogo.socket", "", PHP_INI_SYSTEM, NULL)
PHP_INI_END()

static PHP_GINIT_FUNCTION(pogo) {
  memset(pogo_globals, 0, sizeof *pogo_globals);
  pogo_link_init(&pogo_globals->link);
}

/* The end of a thread, FrankenPHP's replacement of an unhealthy one too. */
static PHP_GSHUTDOWN_FUNCTION(pogo) {
  pogo_link_free(&pogo_globals->link);
}

static PHP_MINIT_FUNCTION(pogo) {
  REGISTER_INI_ENTRIES();
  pogo_worker_minit();
#ifdef POGO_STATIC
  pogo_host_minit(INIT_FUNC_ARGS_PASSTHRU);
  pogo_web_minit();
#endif
  return SUCCESS;
}

static PHP_MSHUTDOWN_FUNCTION(pogo) {
#ifdef POGO_STATIC
  pogo_web_mshutdown();
  pogo_host_mshutdown();
#endif
  pogo_worker_mshutdown();
  UNREGISTER_INI_ENTRIES();
  return SUCCESS;
}

static PHP_RINIT_FUNCTION(pogo) {
  pogo_worker_rinit();
  pogo_tasks_rinit();
#ifdef POGO_STATIC
  pogo_host_rinit();
#endif
  return SUCCESS;
}

void pogo_request_end(void) {
  pogo_tasks_end();
  if (POGO_G(link).holds) { /* what this request has reserved and not settled goes back */
    pogo_link_close(&POGO_G(link));
  }
  pogo_link_trim(&POGO_G(link));
}

static PHP_RSHUTDOWN_FUNCTION(pogo) {
  pogo_tasks_end();
  pogo_worker_rshutdown();
#ifdef POGO_STATIC
  pogo_host_rshutdown();
  pogo_web_rshutdown();
#endif
  pogo_request_end();
  return SUCCESS;
}

static PHP_MINFO_FUNCTION(pogo) {
  char path[sizeof((struct sockaddr_un *)0)->sun_path];
  const pogo_link *l = &POGO_G(link);
  const pogo_worker *w = &POGO_G(worker);
  pogo_socket_path(path, sizeof path);
  php_info_print_table_start();
  php_info_print_table_row(2, "pogo", "enabled");
  php_info_print_table_row(2, "version", POGO_VERSION);
  php_info_print_table_row(2, "socket", *path ? path : "none is known");
  php_info_print_table_row(2, "link", l->fd >= 0 && l->pid == getpid() ? "open" : *l->error ? l->error : "not opened yet");
  if (w->active) {
    php_info_print_table_row(2, w->pool ? "pool" : "worker", ZSTR_VAL(w->name));
  }
  php_info_print_table_end();
  DISPLAY_INI_ENTRIES();
}

zend_module_entry pogo_module_entry = {
  STANDARD_MODULE_HEADER,
  "pogo",
  pogo_functions,
  PHP_MINIT(pogo),
  PHP_MSHUTDOWN(pogo),
  PHP_RINIT(pogo),
  PHP_RSHUTDOWN(pogo),
  PHP_MINFO(pogo),
  POGO_VERSION,
  PHP_MODULE_GLOBALS(pogo),
  PHP_GINIT(pogo),
  PHP_GSHUTDOWN(pogo),
  NULL,
  STANDARD_MODULE_PROPERTIES_EX,
};

#ifndef POGO_STATIC
ZEND_GET_MODULE(pogo)
#endif
