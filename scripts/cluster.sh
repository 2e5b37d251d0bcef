#!/usr/bin/env bash
# Runs three nodes on loopback, each with the application, until Ctrl-C: node i has web 8080, sockets (with an app
# in REVERB_APP_*) 8081, admin 8082 and cluster 8083, each plus 100 (i - 1). Their data stays in .cluster/; remove it to begin anew.
#
#   scripts/cluster.sh APP
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/progress.sh
. scripts/progress.sh

pogod=$PWD/bin/pogod
app=$(cd "$1" && pwd)
base=$PWD/.cluster
pids=()

stop() {
	trap - EXIT INT TERM
	if [ ${#pids[@]} -gt 0 ]; then
		kill -TERM "${pids[@]}" 2>/dev/null || true
		wait "${pids[@]}" 2>/dev/null || true
	fi
}
trap stop EXIT
trap 'exit 0' INT TERM

write_config() { # NODE
	local plus=$((100 * ($1 - 1)))
	mkdir -p "$base/$1"
	cat >"$base/$1/pogod.toml" <<-EOF
		[node]
		data_dir = "data"
		mode = "development"

		[php]
		app = "$app"

		[web]
		listen = "127.0.0.1:$((8080 + plus))"

		[admin]
		listen = "127.0.0.1:$((8082 + plus))"

		[websocket]
		listen = "127.0.0.1:$((8081 + plus))"

		[cluster]
		listen = "127.0.0.1:$((8083 + plus))"

		[queue]
		auto_create = true

		[[worker]]
		threads = 2
	EOF
}

# Ctrl-C goes to this script alone, which ends the nodes one after the other.
serve() { # NODE
	setsid "$pogod" serve --config "$base/$1/pogod.toml" >"$base/$1/log" 2>&1 &
	pids+=($!)
}

leader() { # NODE waits until it knows who leads
	local i
	for i in $(seq 150); do
		if "$pogod" status --admin "127.0.0.1:$((8082 + 100 * ($1 - 1)))" --json 2>/dev/null | grep -Eq '"leader": *"[0-9a-f]+"'; then
			return
		fi
		kill -0 "${pids[$1 - 1]}" 2>/dev/null || break
		sleep 0.2
	done
	tail -n 5 "$base/$1/log" >&2
	die "node $1 did not start; its log is $base/$1/log"
}

for i in 1 2 3; do
	write_config "$i"
done
[ -e "$base/1/data/cluster" ] || "$pogod" cluster init --config "$base/1/pogod.toml" >/dev/null
serve 1
for i in 2 3; do
	if [ ! -e "$base/$i/data/cluster" ]; then
		leader 1
		token=$("$pogod" cluster token --config "$base/1/pogod.toml")
		"$pogod" cluster join --config "$base/$i/pogod.toml" 127.0.0.1:8083 "$token" >/dev/null
	fi
	serve "$i"
done
for i in 1 2 3; do
	leader "$i"
	printf 'node %d  page http://127.0.0.1:%d  status http://127.0.0.1:%d/status  log %s\n' \
		"$i" $((7980 + 100 * i)) $((7982 + 100 * i)) "${base#"$PWD"/}/$i/log"
done
printf 'who leads: bin/pogod cluster members; end them with Ctrl-C\n'
wait
