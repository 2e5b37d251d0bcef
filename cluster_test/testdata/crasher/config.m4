PHP_ARG_ENABLE([crasher], [for the extension that crashes], [AS_HELP_STRING([--enable-crasher], [crash on demand])], [yes])
PHP_NEW_EXTENSION([crasher], [crasher.c], [$ext_shared])
