#!/bin/sh
# The php command line of the pogod beside this file: what PHP_BINARY names.
exec "${0%/*}/pogod" php "$@"
