#!/usr/bin/env bash
# Builds PHP extensions for the thread-safe PHP of pogod, from the distribution's source packages: its binary ones are not
# thread-safe.
#
#   scripts/php-ext.sh redis apcu xdebug
#
# The source of extension NAME is the package php-NAME or NAME; apt checks the archive's signatures, in a root of its own
# as php.sh has it. The extension is installed into the directory of that PHP, with a file in its conf.d that loads it:
# in the hosts of a node from their next start on, and in pogod php.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/progress.sh
. "$here/progress.sh"
# shellcheck source=scripts/apt.sh
. "$here/apt.sh"

# fetch NAME downloads the source of an extension and unpacks it into $work/NAME.
fetch() {
	local name=$1 suite root package tarball suites=() main
	main=$(main_archive)
	[ -n "$main" ] || die "the machine's apt sources name no archive"
	# PHP is that of trixie where Debian has it, and its extensions are of its time; a later one may do too.
	[ "$(os_field ID)" != debian ] || suites=(trixie sid)
	for suite in "${suites[@]}" "$(os_field VERSION_CODENAME)"; do
		root=$work/apt-$suite
		if [ ! -d "$root" ]; then
			private_root "$root" deb-src "$main $suite" >>"$log" 2>&1 || continue
		fi
		for package in "php-$name" "$name"; do
			mkdir -p "$work/$suite-$package"
			printf '== %s of %s\n' "$package" "$suite" >>"$log"
			# The release itself; the packaging is about the distribution's own file layout.
			(cd "$work/$suite-$package" &&
				private_apt "$root" apt-get --quiet source --download-only --tar-only "$package") >>"$log" 2>&1 || continue
			for tarball in "$work/$suite-$package/$package"_*.orig.tar.?z*; do
				[ -e "$tarball" ] || continue 2
				mkdir -p "$work/$name"
				tar --extract --file "$tarball" --directory "$work/$name"
				say "  source of $name: $(basename "$tarball") of $suite"
				return
			done
		done
	done
	say "The last lines of $log:"
	tail -n 15 "$log" >&2
	die "the source of the extension $name could not be downloaded: there is no package php-$name or $name, or the" \
		"archive names one and does not serve it (then try again later)"
}

# build NAME makes the extension in $work/NAME and installs it.
build() {
	local name=$1 source
	# A PECL release has its package.xml beside the directory with the source; a package may hold several releases.
	source=$(find "$work/$name" -maxdepth 3 -name config.m4 -printf '%d %h\n' | sort -k 1,1n -k 2,2Vr | head -n 1 | cut -d ' ' -f 2-)
	[ -n "$source" ] || die "the source of $name has no config.m4: it is no PHP extension"
	cd "$source"
	steps() {
		"$("$config" --prefix)/bin/phpize" && ./configure --quiet --with-php-config="$config" && make -j"$(nproc)" && make install
	}
	follow "$name" "$log" 0 steps
	cd "$here"
	[ -e "$("$config" --extension-dir)/$name.so" ] || die "$name was built and there is no $name.so: see $log"
}

# load NAME has PHP load the extension, and sees that it does.
load() {
	local name=$1 dir lines
	case $name in
	xdebug) lines=$'zend_extension=xdebug\n; The environment variable XDEBUG_MODE switches it on, as XDEBUG_MODE=debug.\nxdebug.mode=off' ;;
	*) lines=extension=$name ;;
	esac
	dir=$("$config" --ini-dir 2>/dev/null || true)
	if [ -n "$dir" ] && [ -d "$dir" ] && [ -w "$dir" ]; then
		printf '%s\n' "$lines" >"$dir/20-$name.ini"
		"$("$config" --php-binary)" -r "exit(extension_loaded('$name') ? 0 : 1);" >>"$log" 2>&1 || {
			rm -f "$dir/20-$name.ini"
			die "$name was built and PHP does not load it: see $log"
		}
		say "  $name is loaded by $dir/20-$name.ini"
	else
		say "  $name is in $("$config" --extension-dir); add to php.ini:"
		printf '%s\n' "$lines" >&2
	fi
}

main() {
	local name
	[ $# -gt 0 ] || die "name the extensions, as: make php-ext EXT=\"redis apcu\""
	for name in "$@"; do
		[[ $name =~ ^[a-z][a-z0-9_-]*$ ]] || die "\"$name\" is no name of an extension"
	done
	config=$("$here/php.sh")
	cache=$(cache_dir)
	mkdir -p "$cache"
	hold_lock "$cache/php-ext.lock" "PHP extensions"
	need "building PHP extensions" build-essential autoconf pkg-config
	log=$cache/php-ext.log
	: >"$log"
	work=$(mktemp -d "$cache/.ext-XXXXXX")
	trap 'stop_following; rm -rf "$work"' EXIT
	for name in "$@"; do
		fetch "$name"
		build "$name"
		load "$name"
	done
}

main "$@"
