#!/usr/bin/env bash
# Builds bin/pogo.so, the extension for the php command line, from phpext/ext/ with phpize. The build is out of tree, in
# bin/build-ext/, and is made anew only when the sources or the PHP have changed.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/progress.sh
. "$here/progress.sh"
# shellcheck source=scripts/apt.sh
. "$here/apt.sh"

root=$(dirname "$here")
source=$root/phpext/ext
build=$root/bin/build-ext
log=$root/bin/build-ext.log

[ -f "$source/config.m4" ] || die "$source/config.m4 is missing"
config=$("$here/php.sh")
stamp=$({ printf '%s\n' "$config" && cd "$source" && sha256sum -- *.[ch] config.m4; } | sha256sum)
if [ -e "$root/bin/pogo.so" ] && [ "$(cat "$build/stamp" 2>/dev/null)" = "$stamp" ]; then
	exit
fi

for tool in cc make autoconf; do
	command -v "$tool" >/dev/null || need "building pogo.so" build-essential autoconf
done
rm -rf "$build"
mkdir -p "$build"
cp "$source"/*.[ch] "$source/config.m4" "$build/"
cd "$build"
: >"$log"
make_extension() {
	"$("$config" --prefix)/bin/phpize" && ./configure --quiet --with-php-config="$config" && make -j"$(nproc)"
}
follow "pogo.so" "$log" 0 make_extension
cp modules/pogo.so "$root/bin/pogo.so.new"
mv "$root/bin/pogo.so.new" "$root/bin/pogo.so"
printf '%s\n' "$stamp" >"$build/stamp"
