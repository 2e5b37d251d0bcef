# shellcheck shell=bash
# What the set-up scripts show to people, and where they keep what is dear to make. Sourced, not run.

# Standard output is for a script's answer; everything else goes to standard error.
say() { printf '%s\n' "$*" >&2; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

# cache_dir prints where finished builds are kept: outside the checkout, so that a fresh clone finds them.
cache_dir() {
	printf '%s\n' "${POGOD_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set; set POGOD_CACHE}/.cache}/pogod}"
}

# hold_lock FILE WHAT waits until no other process holds FILE, and holds it until this one ends.
hold_lock() {
	exec 9>"$1"
	if ! flock --nonblock 9; then
		say "Another process is at work on $2; waiting for it"
		flock 9
	fi
}

# The command that follow runs now, if any.
following=

# stop_following ends it; for a script's EXIT trap, before it removes what the command works on.
stop_following() {
	if [ -n "$following" ]; then
		kill "$following" 2>/dev/null || true
		wait "$following" 2>/dev/null || true
	fi
}

# follow LABEL LOG COUNT COMMAND... runs a command with its output in LOG and shows how far it is: a line that moves on
# a terminal, a line every 30 s elsewhere. COUNT is the number of files that it compiles, 0 when that is not known.
# When the command fails, the log's last lines are shown and the script ends.
follow() {
	local label=$1 log=$2 count=$3 start=$SECONDS shown=0 from pid now line rc=0
	shift 3
	from=$(wc -l <"$log")
	"$@" >>"$log" 2>&1 </dev/null &
	pid=$!
	following=$pid
	while kill -0 "$pid" 2>/dev/null; do
		now=$((SECONDS - start))
		line="  $label: $now s"
		if [ "$count" -gt 0 ]; then
			line+=", $(tail -n "+$((from + 1))" "$log" | grep -c -- --mode=compile || true) of $count files"
		fi
		if [ -t 2 ]; then
			printf '\r\033[K%s' "$line" >&2
		elif [ $((now - shown)) -ge 30 ]; then
			say "$line"
			shown=$now
		fi
		sleep 0.5
	done
	wait "$pid" || rc=$?
	following=
	[ ! -t 2 ] || printf '\r\033[K' >&2
	if [ "$rc" -ne 0 ]; then
		say "The last lines of $log:"
		tail -n 30 "$log" >&2
		die "$label failed after $((SECONDS - start)) s"
	fi
	say "  $label: done in $((SECONDS - start)) s"
}
