#!/usr/bin/env bash
# Prints the path of a php-config that belongs to a thread-safe PHP with the embed library.
#
# In this order: $PHP_CONFIG; php-config on PATH; a PHP that this script built before; a build from the distribution's
# source package, once, kept in the cache. Everything but the answer goes to standard error.
#
# The cache is ${POGOD_CACHE:-${XDG_CACHE_HOME:-~/.cache}/pogod}. A finished build there is used without asking the
# network whether there is a newer PHP; to build it anew, remove its php-* directory.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=scripts/progress.sh
. "$here/progress.sh"
# shellcheck source=scripts/apt.sh
. "$here/apt.sh"

# What a php-config on PATH must be at least to be taken rather than a build of our own (8.3), and what FrankenPHP asks
# for at least (8.2).
wanted_vernum=80300
least_vernum=80200

# Raise this when the way PHP is built changes in something that the flags below do not show.
recipe=2

configure_flags=(
	# What FrankenPHP needs.
	--enable-zts --enable-cli --enable-embed=shared --disable-zend-signals --enable-zend-max-execution-timers
	--disable-cgi --disable-phpdbg --without-pear
	# What Laravel and Symfony need. Most of the first line is on by default; it is named so that it stays.
	--enable-ctype --enable-dom --enable-fileinfo --enable-filter --enable-phar --enable-session --enable-tokenizer
	--enable-xml --enable-simplexml --enable-xmlreader --enable-xmlwriter --with-libxml --with-iconv
	--enable-mbstring --enable-intl --enable-bcmath --enable-exif --enable-calendar --with-zlib --with-zip
	--with-curl --with-openssl --with-sodium --with-password-argon2 --with-readline
	--enable-gd --with-jpeg --with-webp --with-freetype
	--enable-pdo --with-sqlite3 --with-pdo-sqlite --enable-mysqlnd --with-mysqli=mysqlnd --with-pdo-mysql=mysqlnd
	--with-pgsql --with-pdo-pgsql
	--enable-pcntl --enable-posix --enable-sockets --enable-sysvmsg --enable-sysvsem --enable-sysvshm
	--enable-opcache
)

build_packages=(
	build-essential pkg-config autoconf bison re2c xz-utils util-linux
	libxml2-dev libsqlite3-dev libssl-dev libcurl4-openssl-dev libonig-dev zlib1g-dev libargon2-dev libsodium-dev
	libreadline-dev libzip-dev libicu-dev libpq-dev libpng-dev libjpeg-dev libwebp-dev libfreetype-dev
)

# unsuitable PHP_CONFIG VERNUM prints why it cannot be used where at least VERNUM is asked for, or nothing if it can.
unsuitable() {
	local config=$1 vernum prefix lib
	vernum=$("$config" --vernum 2>/dev/null) || {
		printf 'it cannot be run\n'
		return
	}
	prefix=$("$config" --prefix)
	if [ "$vernum" -lt "$2" ]; then
		printf 'it is PHP %s, which is too old\n' "$("$config" --version)"
	elif ! grep -qs '^#define ZTS 1' "$("$config" --include-dir)/main/php_config.h"; then
		printf 'it is not thread-safe (--enable-zts), or its headers are missing\n'
	else
		for lib in "$prefix"/lib{,64,/*}/libphp.so; do
			[ ! -e "$lib" ] || return 0
		done
		printf 'it has no embed library, libphp.so (--enable-embed)\n'
	fi
}

# finished_build prints the php-config of the newest finished build of this recipe, if there is one.
finished_build() {
	local dir
	for dir in $(printf '%s\n' "$cache"/php-*-"$key" | sort --version-sort --reverse); do
		# A library that it links may have gone since: then it is built again.
		if "$dir/bin/php" -n -r 'exit(PHP_ZTS ? 0 : 1);' >/dev/null 2>&1; then
			printf '%s\n' "$dir/bin/php-config"
			return
		fi
	done
}

# The release that is taken when the archive names a newer php8.4 and does not serve it (one that is behind its own
# index answers 404): older, but these very bytes, from the pool of the machine's own archive.
pinned_package=php8.4
pinned_version=8.4.24
pinned_sha256=e127be09a8506f4327c5cfa78a614b00d210714484ec215ce0011b4a03c00731

# fetch_pinned ARCHIVE DIR downloads the pinned release to DIR and prints the path of its tarball.
fetch_pinned() {
	local tarball=${pinned_package}_$pinned_version.orig.tar.xz
	mkdir -p "$2"
	/usr/lib/apt/apt-helper -o APT::Sandbox::User=root download-file "$1/pool/main/p/$pinned_package/$tarball" \
		"$2/$tarball" "SHA256:$pinned_sha256" >>"$log" 2>&1 || return 1
	printf '%s\n' "$2/$tarball"
}

# fetch_source DIR downloads PHP's source and unpacks it into DIR/src, and prints "PACKAGE VERSION SUITE". The source is
# PHP's own release as the distribution's signed source package carries it; the distribution's patches are about its own
# file layout and are left out.
#
# On Debian that is php8.4 of trixie, else the pinned release of it. Where neither can be had, and on Ubuntu, it is the
# PHP of the machine's own suite.
# Security updates are preferred; an archive that names one and does not serve it yet must not stop the build.
fetch_source() {
	local dir=$1 codename main security suite packages package version updates repositories tarball root=0
	codename=$(os_field VERSION_CODENAME)
	main=$(main_archive)
	security=$(security_archive)
	[ -n "$main" ] || die "the machine's apt sources name no archive of ${codename:-this system}"

	local candidates=("$codename php8.4 php8.3 php8.2")
	if [ "$(os_field ID)" = debian ]; then
		candidates=("trixie php8.4" pinned "${candidates[@]}")
	fi
	for candidate in "${candidates[@]}"; do
		if [ "$candidate" = pinned ]; then
			tarball=$(fetch_pinned "$main" "$dir/pinned") || continue
			mkdir -p "$dir/src"
			tar --extract --file "$tarball" --directory "$dir/src" --strip-components 1
			printf '%s %s pinned\n' "$pinned_package" "$pinned_version"
			return
		fi
		read -r suite packages <<<"$candidate"
		for updates in "$security" ""; do
			repositories=("$main $suite")
			[ -z "$updates" ] || repositories+=("$updates $suite-security")
			root=$((root + 1))
			printf '== %s\n' "${repositories[*]}" >>"$log"
			private_root "$dir/apt-$root" deb-src "${repositories[@]}" >>"$log" 2>&1 || continue
			for package in $packages; do
				version=$(private_apt "$dir/apt-$root" apt-cache madison "$package" | awk '{ print $3 }' | sort -V | tail -n 1)
				[ -n "$version" ] || continue
				mkdir -p "$dir/$root-$package"
				(cd "$dir/$root-$package" &&
					private_apt "$dir/apt-$root" apt-get --quiet source --download-only "$package") >>"$log" 2>&1 || {
					say "  source of $package $version: named by the archive, but cannot be downloaded"
					continue
				}
				tarball=$(printf '%s\n' "$dir/$root-$package/$package"_*.orig.tar.?z)
				mkdir -p "$dir/src"
				tar --extract --file "$tarball" --directory "$dir/src" --strip-components 1
				printf '%s %s %s\n' "$package" \
					"$(basename "$tarball" | sed -E 's/^[^_]+_(.*)\.orig\..*/\1/')" "$suite"
				return
			done
		done
	done
	say "The last lines of $log:"
	tail -n 30 "$log" >&2
	die "PHP's source could not be downloaded as a source package. Set PHP_CONFIG to a PHP that was built with" \
		"--enable-zts and --enable-embed"
}

# build_php makes PHP in a temporary directory of the cache and moves it to its place when it is whole.
build_php() {
	local fetched package version suite prefix files
	say "Building a thread-safe PHP. This takes 5 to 10 minutes on two cores, once; it is kept in $cache"
	need "building PHP" "${build_packages[@]}"

	work=$(mktemp -d "$cache/.build-$key-XXXXXX")
	trap 'stop_following; rm -rf "$work"' EXIT
	fetched=$(fetch_source "$work")
	read -r package version suite <<<"$fetched"
	prefix=$cache/php-$version-$key
	say "  source of PHP $version ($package of $suite): downloaded"
	[ "$package" != php8.2 ] || warn "building PHP 8.2, the least that FrankenPHP runs with, because 8.4 is not to be had"

	cd "$work/src"
	[ -x configure ] || follow "generate configure" "$log" 0 ./buildconf --force
	follow "configure PHP $version (about 30 s)" "$log" 0 \
		./configure --quiet --prefix="$prefix" --with-config-file-path="$prefix/etc" \
		--with-config-file-scan-dir="$prefix/etc/conf.d" "${configure_flags[@]}"
	files=$(make --dry-run 2>/dev/null | grep -c -- --mode=compile || true)
	follow "compile PHP $version" "$log" "$files" make -j"$(nproc)"
	follow "install PHP $version" "$log" 0 make install INSTALL_ROOT="$work/root"

	# opcache is a Zend extension that has to be named before PHP 8.5; php.ini itself is left to the application.
	mkdir -p "$work/root$prefix/etc/conf.d"
	cp php.ini-development php.ini-production "$work/root$prefix/etc/"
	if ls "$work/root$("$work/root$prefix/bin/php-config" --extension-dir)/opcache.so" >/dev/null 2>&1; then
		printf 'zend_extension=opcache\n' >"$work/root$prefix/etc/conf.d/10-opcache.ini"
	fi
	rm -rf "$prefix"
	mv "$work/root$prefix" "$prefix"
	say "  PHP $version is in $prefix"
}

main() {
	local reason found
	if [ -n "${PHP_CONFIG:-}" ]; then
		reason=$(unsuitable "$PHP_CONFIG" "$least_vernum")
		[ -z "$reason" ] || die "PHP_CONFIG=$PHP_CONFIG: $reason"
		command -v "$PHP_CONFIG"
		return
	fi
	if command -v php-config >/dev/null && [ -z "$(unsuitable php-config "$wanted_vernum")" ]; then
		command -v php-config
		return
	fi

	cache=$(cache_dir)
	# A PHP built for another release of the system links other libraries, so the release is part of the key.
	key=$(printf '%s\n' "$recipe" "$(uname -m)" "$(os_field ID)" "$(os_field VERSION_ID)" "${configure_flags[@]}" |
		sha256sum | cut -c1-10)
	found=$(finished_build)
	if [ -z "$found" ]; then
		mkdir -p "$cache"
		hold_lock "$cache/php-build.lock" "PHP"
		found=$(finished_build)
	fi
	if [ -z "$found" ]; then
		rm -rf "$cache"/.build-"$key"-*
		log=$cache/php-build.log
		: >"$log"
		build_php
		found=$(finished_build)
		[ -n "$found" ] || die "the PHP that was just built does not run; see $log"
	fi
	printf '%s\n' "$found"
}

main
