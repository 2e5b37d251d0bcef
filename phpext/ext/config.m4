PHP_ARG_ENABLE([pogo],
  [whether to enable the pogo extension],
  [AS_HELP_STRING([--enable-pogo], [Enable the pogo extension: queue functions over a pogod node's socket])],
  [yes])

if test "$PHP_POGO" != "no"; then
  PHP_NEW_EXTENSION([pogo], [pogo.c link.c functions.c reserve.c websocket.c worker.c dispatch.c], [$ext_shared],, [-Wall -Wextra -Wno-unused-parameter])
fi
