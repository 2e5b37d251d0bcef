#!/usr/bin/env bash
# Prints the directory of a go command that builds this project.
#
# That is the go on PATH when it is new enough; one from 1.21 on fetches the toolchain that go.mod asks for by itself.
# Where there is none, Go comes from the distribution's packages, unpacked into the cache: nothing is installed.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=scripts/progress.sh
. "$here/progress.sh"
# shellcheck source=scripts/apt.sh
. "$here/apt.sh"

wanted=26 # Go 1.26, as go.mod says
package=golang-1.$wanted

# minor GO prints the minor version of a go command: 26 for go1.26.3, 0 when it cannot be told.
minor() {
	(cd / && GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) | sed -nE 's/^go1\.([0-9]+).*/\1/p' | grep . || printf '0\n'
}

# fetching_go GO prints the directory of a go command that may fetch a newer toolchain, for a GO that is too old.
# Where its settings forbid that, the directory holds a small go that allows it, and nothing else changes.
fetching_go() {
	local go=$1 dir
	if [ "$(cd / && "$go" env GOTOOLCHAIN)" != local ]; then
		dirname "$go"
		return
	fi
	dir=$cache/go-that-fetches
	mkdir -p "$dir"
	printf '#!/bin/sh\nGOTOOLCHAIN=auto exec %q "$@"\n' "$go" >"$dir/go.$$"
	chmod +x "$dir/go.$$"
	mv "$dir/go.$$" "$dir/go"
	printf '%s\n' "$dir"
}

# packaged_go fetches Go's packages into the cache, once.
packaged_go() {
	local dir id repositories work log=$cache/go.log
	dir=$cache/$package-$(uname -m)
	if [ ! -x "$dir/usr/lib/go-1.$wanted/bin/go" ]; then
		command -v apt-get >/dev/null || die "there is no Go here. Install Go 1.21 or newer"
		mkdir -p "$cache"
		hold_lock "$cache/go.lock" "Go"
	fi
	if [ ! -x "$dir/usr/lib/go-1.$wanted/bin/go" ]; then
		id=$(os_field ID)
		case $id in
		debian) repositories=("$(main_archive) trixie" "$(main_archive) trixie-backports") ;;
		*) repositories=("$(main_archive) $(os_field VERSION_CODENAME)"
			"$(main_archive) $(os_field VERSION_CODENAME)-updates") ;;
		esac
		say "There is no Go 1.21 or newer here; taking $package from the packages of $id (about 10 s, once)"
		rm -rf "$cache"/.go-*
		work=$(mktemp -d "$cache/.go-XXXXXX")
		# shellcheck disable=SC2064 # the value of now is meant
		trap "rm -rf '$work'" EXIT
		{
			private_root "$work/apt" deb "${repositories[@]}" && cd "$work" &&
				private_apt "$work/apt" apt-get --quiet download "$package-go" "$package-src"
		} >"$log" 2>&1 || {
			tail -n 10 "$log" >&2
			die "$package is not among the packages of $id. Install Go 1.21 or newer"
		}
		for file in "$work"/*.deb; do
			dpkg -x "$file" "$work/root"
		done
		rm -rf "$dir"
		mv "$work/root" "$dir"
	fi
	printf '%s\n' "$dir/usr/lib/go-1.$wanted/bin"
}

main() {
	local go version
	cache=$(cache_dir)
	# Without the authorities' certificates no module can be downloaded.
	if command -v dpkg-query >/dev/null && [ ! -e /etc/ssl/certs/ca-certificates.crt ]; then
		need "downloading Go modules" ca-certificates
	fi
	for go in "$(command -v go || true)" /usr/local/go/bin/go "/usr/lib/go-1.$wanted/bin/go"; do
		[ -x "$go" ] || continue
		version=$(minor "$go")
		if [ "$version" -ge "$wanted" ]; then
			dirname "$go"
			return
		elif [ "$version" -ge 21 ]; then
			fetching_go "$go"
			return
		fi
	done
	packaged_go
}

main
