#!/bin/sh
# Installs what make test-matrix runs on into a cache folder: Debian's stable
# and unstable release as file trees with their RabbitMQ, Redis and Valkey, and
# the oldest and the newest nats-server. What is there stays as it is: remove
# the folder to have newer versions. Making a tree needs root, running does not.
set -eu

cache=${XDG_CACHE_HOME:-$HOME/.cache}/polymq

# The first is the oldest that the driver takes (drivers/nats/open.go).
for version in v2.12.2 latest; do
	bin=$cache/nats/$version
	if ! [ -x "$bin/nats-server" ]; then
		echo "go install nats-server $version"
		GOBIN=$bin GOFLAGS= go install "github.com/nats-io/nats-server/v2@$version"
	fi
done

for suite in trixie sid; do
	tree=$cache/trees/$suite
	if [ -d "$tree" ]; then
		continue
	fi
	sudo=
	if [ "$(id -u)" != 0 ]; then
		if ! command -v sudo >/dev/null; then
			echo "$tree is made by debootstrap, which needs root: run $0 once as root with HOME=$HOME" >&2
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
	echo "debootstrap $suite into $tree"
	mkdir -p "$cache/trees"
	$sudo rm -rf "$tree.part"
	# In a mount namespace of its own, so that no mount is left behind.
	$sudo unshare --mount --propagation private debootstrap --variant=minbase \
		--include=rabbitmq-server,redis-server,valkey-server "$suite" "$tree.part" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
	$sudo mv "$tree.part" "$tree"
done
