#!/bin/sh
# Puts one thing that make test-matrix runs on into a cache folder, unless it is
# there; to have newer versions, remove it there:
#
#	matrix.sh nats version   a nats-server
#	matrix.sh debian suite   a release of Debian as a file tree with its RabbitMQ,
#	                         Redis and Valkey; making it needs root, running does not
set -eu

cache=${XDG_CACHE_HOME:-$HOME/.cache}/polymq

nats() {
	bin=$cache/nats/$1
	if ! [ -x "$bin/nats-server" ]; then
		echo "go install nats-server $1"
		GOBIN=$bin GOFLAGS= go install "github.com/nats-io/nats-server/v2@$1"
	fi
}

debian() {
	tree=$cache/trees/$1
	if [ -d "$tree" ]; then
		return
	fi
	sudo=
	if [ "$(id -u)" != 0 ]; then
		if ! command -v sudo >/dev/null; then
			echo "$tree is made by debootstrap, which needs root: run once as root: HOME=$HOME $0 debian $1" >&2
			exit 1
		fi
		sudo=sudo
	fi
	if ! command -v debootstrap >/dev/null; then
		if ! command -v apt-get >/dev/null; then
			echo "install debootstrap with this system's package manager" >&2
			exit 1
		fi
		$sudo apt-get update -q
		$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends debootstrap debian-archive-keyring
	fi
	echo "debootstrap $1 into $tree"
	mkdir -p "$cache/trees"
	$sudo rm -rf "$tree.part"
	# In a mount namespace of its own, so that no mount is left behind.
	if ! $sudo unshare --mount --propagation private debootstrap --variant=minbase \
		--include=rabbitmq-server,redis-server,valkey-server "$1" "$tree.part" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"; then
		$sudo tail -n 5 "$tree.part/debootstrap/debootstrap.log" >&2 || true
		$sudo rm -rf "$tree.part"
		exit 1
	fi
	$sudo mv "$tree.part" "$tree"
}

case ${1:-} in
nats | debian) "$1" "${2:?which one}" ;;
*)
	echo "usage: $0 nats version | debian suite" >&2
	exit 2
	;;
esac
