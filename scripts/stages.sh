#!/usr/bin/env bash
# Runs make targets one after the other, stops at the first that fails, and says at the end how long each took:
#
#   scripts/stages.sh setup lint build
set -euo pipefail

names=()
seconds=()
result=passed

report() {
	local i total=0
	printf '\n%-12s %8s\n' stage seconds
	for i in "${!names[@]}"; do
		printf '%-12s %8d\n' "${names[i]}" "${seconds[i]}"
		total=$((total + seconds[i]))
	done
	printf '%-12s %8d  %s\n' total "$total" "$result"
}

for stage in "$@"; do
	printf '\n== %s\n' "$stage"
	start=$SECONDS
	status=0
	"${MAKE:-make}" --no-print-directory "$stage" || status=$?
	names+=("$stage")
	seconds+=($((SECONDS - start)))
	if [ "$status" -ne 0 ]; then
		result="FAILED in $stage"
		report
		exit "$status"
	fi
done
report
