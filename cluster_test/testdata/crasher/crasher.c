/* An extension with the faults that native code has: the end-to-end tests compile and load it. */
#include <php.h>
#include <stdlib.h>

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_crash, 0, 0, IS_VOID, 0)
ZEND_END_ARG_INFO()

static PHP_FUNCTION(crash_null) {
  ZEND_PARSE_PARAMETERS_NONE();
  volatile int *volatile nowhere = NULL; /* or the compiler leaves the write out */
  *nowhere = 1;
}

static PHP_FUNCTION(crash_abort) {
  ZEND_PARSE_PARAMETERS_NONE();
  abort();
}

static const zend_function_entry functions[] = {
  PHP_FE(crash_null, arginfo_crash)
  PHP_FE(crash_abort, arginfo_crash)
  PHP_FE_END
};

zend_module_entry crasher_module_entry = {
  STANDARD_MODULE_HEADER, "crasher", functions, NULL, NULL, NULL, NULL, NULL, "1", STANDARD_MODULE_PROPERTIES
};

ZEND_GET_MODULE(crasher)
