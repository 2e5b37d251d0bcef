# shellcheck shell=bash
# What the set-up scripts ask of a Debian or Ubuntu machine. Sourced after progress.sh, not run.
#
#   need PURPOSE PKG...    installs the packages that are missing, and only those
#   private_root DIR ...   an apt of our own, that leaves the machine's lists alone
#   private_apt DIR ...    apt-get or apt-cache in that root

# os_field NAME prints one field of /etc/os-release (ID, VERSION_CODENAME, ...).
os_field() {
	# shellcheck source=/dev/null
	(. /etc/os-release 2>/dev/null && printf '%s\n' "${!1:-}") || true
}

is_installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# as_root runs a command as root, through sudo where we are somebody else.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		env "$@"
	else
		sudo env "$@"
	fi
}

# need PURPOSE PKG... installs what is missing of the packages. The machine's package lists are fetched only when
# apt does not know a package or cannot download it.
need() {
	local purpose=$1 package missing=() log
	shift
	command -v dpkg-query >/dev/null ||
		die "$purpose needs these packages, and this machine has no apt to install them: $*"
	for package in "$@"; do
		is_installed "$package" || missing+=("$package")
	done
	[ ${#missing[@]} -gt 0 ] || return 0

	if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
		die "$purpose needs packages that only root can install. As root: apt-get install ${missing[*]}"
	fi
	say "Installing for $purpose: ${missing[*]}"
	log=$(mktemp)
	local install=(DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get install --yes --quiet
		--no-install-recommends -o DPkg::Lock::Timeout=600 "${missing[@]}")
	if ! as_root "${install[@]}" >"$log" 2>&1 </dev/null; then
		as_root apt-get update --quiet >>"$log" 2>&1 </dev/null || true
		if ! as_root "${install[@]}" >>"$log" 2>&1 </dev/null; then
			tail -n 30 "$log" >&2
			rm -f "$log"
			die "apt-get could not install: ${missing[*]}"
		fi
	fi
	rm -f "$log"
}

# archives prints "URI SUITE" for each repository in the machine's own sources, whatever format they are written in:
# apt itself lists them.
archives() {
	apt-get update --print-uris 2>/dev/null |
		sed -nE "s,^'(.*)/dists/([^']+)/(In)?Release'.*,\1 \2,p" | awk '!seen[$0]++'
}

# main_archive prints the URI of the distribution's own archive. A third party's repository may use the same suite
# names, so the best is one that serves CODENAME-updates too, then one named .../debian or .../ubuntu.
main_archive() {
	archives | awk -v codename="$(os_field VERSION_CODENAME)" '
		$2 == codename || $2 ~ /^(stable|oldstable|testing|unstable|sid)$/ { uri[++n] = $1 }
		$2 ~ /-updates$/ { updates[$1] = 1 }
		END {
			for (i = n; i >= 1; i--) {
				score = 2 * (uri[i] in updates) + (uri[i] ~ /\/(debian|ubuntu)$/)
				if (score >= best) { best = score; answer = uri[i] }
			}
			if (n) print answer
		}'
}

# security_archive prints the URI that serves security updates, or nothing.
security_archive() {
	archives | awk '$2 ~ /(-security|\/updates)$/ { print $1; exit }'
}

keyring() {
	local file
	for file in /usr/share/keyrings/"$(os_field ID)"-archive-keyring.{gpg,pgp}; do
		if [ -r "$file" ]; then
			printf '%s\n' "$file"
			return
		fi
	done
	die "the archive's keyring is missing: install the package $(os_field ID)-archive-keyring"
}

# private_root DIR TYPE "URI SUITE"... makes an apt root in DIR and fetches its lists. TYPE is deb or deb-src. apt
# checks the archive's signatures as it always does.
private_root() {
	local dir=$1 type=$2 key repository
	shift 2
	key=$(keyring)
	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
	for repository in "$@"; do
		printf '%s [signed-by=%s] %s main\n' "$type" "$key" "$repository"
	done >"$dir/sources.list"
	private_apt "$dir" apt-get update --quiet
}

private_apt() {
	local dir=$1 tool=$2 options
	shift 2
	options=(-o "Dir::Etc::sourcelist=$dir/sources.list" -o Dir::Etc::sourceparts=-
		-o "Dir::State::lists=$dir/lists" -o "Dir::Cache=$dir/cache")
	# The downloads go to a directory of ours, which apt's own user may not enter.
	[ "$(id -u)" -ne 0 ] || options+=(-o APT::Sandbox::User=root)
	"$tool" "${options[@]}" "$@" </dev/null
}
