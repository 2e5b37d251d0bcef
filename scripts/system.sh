#!/usr/bin/env bash
# Installs the system packages that the tests use, where they are missing: a C compiler for the race detector,
# file systems on a loop device for the power-cut tests, network tools, and shellcheck for lint.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=scripts/progress.sh
. "$here/progress.sh"
# shellcheck source=scripts/apt.sh
. "$here/apt.sh"

if command -v dpkg-query >/dev/null; then
	need "the tests" gcc libc6-dev make git util-linux mount e2fsprogs iproute2 shellcheck
	# In subshells: without node or a browser some tests are skipped by name, the others run.
	(command -v npm >/dev/null || need "the tests with pusher-js" nodejs npm) || warn "no npm: the WebSocket hub is not tested with pusher-js"
	(need "the test in a browser" chromium) || warn "no chromium: the example's page is not tested in a browser"
else
	warn "no apt here: the tests expect gcc, make, git, mount, losetup, mkfs.ext4, ip and shellcheck"
fi
