#!/usr/bin/env bash
# Checks shell scripts and Go code. Go code is read twice, as it is built without PHP and as it is built with it.
#
#   scripts/lint.sh TAGS      the build tags of the second pass
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/.."

if command -v shellcheck >/dev/null; then
	shellcheck --external-sources --source-path=SCRIPTDIR/.. scripts/*.sh .ci/run
fi
golangci_lint=$("$here/tool.sh" golangci-lint)
status=0
CGO_ENABLED=0 "$here/env.sh" "$golangci_lint" run ./... || status=$?
"$here/env.sh" --php "$golangci_lint" run --build-tags "$1" ./... || status=$?
exit "$status"
