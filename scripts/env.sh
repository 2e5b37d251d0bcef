#!/usr/bin/env bash
# Runs a command with Go on PATH and, after --php, with what it takes to build and test with PHP:
#
#   scripts/env.sh go test ./queue
#   scripts/env.sh --php go test -tags php,nowatcher,nobrotli,nomercure ./phpext/...
#
# Go and PHP are found, or made, by go.sh and php.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/progress.sh
. "$here/progress.sh"
# shellcheck source=scripts/apt.sh
. "$here/apt.sh"

# add_php sets the compiler and linker flags from php-config. The library's place is written into the binary.
add_php() {
	local config dir
	command -v "${CC:-gcc}" >/dev/null || need "building with PHP" build-essential
	config=$("$here/php.sh")
	for dir in "$("$config" --prefix)"/lib{,64,/*}; do
		[ ! -e "$dir/libphp.so" ] || break
	done
	CGO_ENABLED=1
	CGO_CFLAGS="-g -O2 $("$config" --includes)"
	CGO_LDFLAGS="$("$config" --ldflags) -L$dir -Wl,-rpath,$dir $("$config" --libs)"
	POGOD_PHP_CONFIG=$config
	POGOD_BIN=$(dirname "$here")/bin/pogod
	export CGO_ENABLED CGO_CFLAGS CGO_LDFLAGS POGOD_PHP_CONFIG POGOD_BIN
}

if [ "${1:-}" = --php ]; then
	shift
	add_php
fi
[ $# -gt 0 ] || die "usage: scripts/env.sh [--php] COMMAND..."
PATH=$("$here/go.sh"):$PATH
export PATH
exec "$@"
