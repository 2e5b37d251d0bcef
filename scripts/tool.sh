#!/usr/bin/env bash
# Prints the path of a development tool, built once at the version that tools/go.mod pins and kept in the cache:
#
#   scripts/tool.sh golangci-lint | gofumpt | benchstat | govulncheck
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/progress.sh
. "$here/progress.sh"

case ${1:-} in
golangci-lint) module=github.com/golangci/golangci-lint/v2 command=/cmd/golangci-lint expected="2 to 4 minutes" ;;
gofumpt) module=mvdan.cc/gofumpt command="" expected="a few seconds" ;;
benchstat) module=golang.org/x/perf command=/cmd/benchstat expected="a few seconds" ;;
govulncheck) module=golang.org/x/vuln command=/cmd/govulncheck expected="about 20 s" ;;
*) die "usage: scripts/tool.sh golangci-lint | gofumpt | benchstat | govulncheck" ;;
esac

cd "$(dirname "$here")/tools"
PATH=$("$here/go.sh"):$PATH
cache=$(cache_dir)
version=$(go list -m -f '{{.Version}}' "$module")
tool=$cache/$1-$version-$(go env GOVERSION)
if [ ! -x "$tool" ]; then
	mkdir -p "$cache"
	hold_lock "$cache/tool-$1.lock" "$1"
fi
if [ ! -x "$tool" ]; then
	say "Building $1 $version ($expected on two cores, once; it is kept in $cache)"
	log=$cache/tool-$1.log
	: >"$log"
	follow "$1" "$log" 0 env CGO_ENABLED=0 go build -o "$tool.new" "$module$command"
	mv "$tool.new" "$tool"
fi
printf '%s\n' "$tool"
