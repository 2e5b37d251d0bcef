#!/usr/bin/env bash
# Runs every fuzz target of the packages that need no PHP, one after the other:
#
#   scripts/fuzz.sh DURATION      how long each target runs, as Go writes it: 30s
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/.."

found=0
while IFS=: read -r file target; do
	found=$((found + 1))
	printf '== %s %s\n' "$(dirname "$file")" "$target"
	"$here/env.sh" go test "./$(dirname "$file")" -run '^$' -fuzz "^$target\$" -fuzztime "$1"
done < <(grep --recursive --include='*_test.go' -oE '^func Fuzz[A-Za-z0-9_]+' . |
	sed -E 's,^\./,,; s,:func ,:,' | sort)
printf '%d fuzz targets ran for %s each\n' "$found" "$1"
[ "$found" -gt 0 ]
