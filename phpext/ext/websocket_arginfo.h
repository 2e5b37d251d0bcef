/* The functions of section WebSocket, for the table of functions.c. */
#ifndef POGO_WEBSOCKET_ARGINFO_H
#define POGO_WEBSOCKET_ARGINFO_H

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_pogo_websocket_publish, 0, 4, IS_LONG, 0)
  ZEND_ARG_TYPE_INFO(0, appId, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO(0, channel, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO(0, event, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO(0, data, IS_STRING, 0)
ZEND_END_ARG_INFO()

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_pogo_websocket_broadcast_multi, 0, 4, IS_LONG, 0)
  ZEND_ARG_TYPE_INFO(0, appId, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO(0, channels, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO(0, event, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO(0, data, IS_STRING, 0)
ZEND_END_ARG_INFO()

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_pogo_websocket_publish_with, 0, 5, IS_LONG, 0)
  ZEND_ARG_TYPE_INFO(0, appId, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO(0, channels, IS_ARRAY, 0)
  ZEND_ARG_TYPE_INFO(0, event, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO(0, data, IS_STRING, 0)
  ZEND_ARG_TYPE_INFO(0, options, IS_ARRAY, 0)
ZEND_END_ARG_INFO()

ZEND_FUNCTION(pogo_websocket_publish);
ZEND_FUNCTION(pogo_websocket_broadcast_multi);
ZEND_FUNCTION(pogo_websocket_publish_with);

#endif
