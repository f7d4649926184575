#!/bin/sh
# Installs the brokers that the tests need and that are missing: rabbitmq-server
# and redis-server from Debian or Ubuntu, without starting them as services, and
# nats-server into a cache folder. A broker named by POLYMQ_TEST_*_URL is not
# needed here.
set -eu

nats=github.com/nats-io/nats-server/v2@v2.15.2
bin=${XDG_CACHE_HOME:-$HOME/.cache}/polymq/bin

rabbitmq_is_there() {
	for f in /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server /opt/rabbitmq*/sbin/rabbitmq-server; do
		if [ -x "$f" ]; then
			return 0
		fi
	done
	return 1
}

packages=
if [ -z "${POLYMQ_TEST_AMQP_URL:-}" ] && ! rabbitmq_is_there; then
	packages="$packages rabbitmq-server"
fi
if [ -z "${POLYMQ_TEST_REDIS_URL:-}" ] && ! command -v redis-server >/dev/null && ! command -v valkey-server >/dev/null; then
	packages="$packages redis-server"
fi

if [ -n "$packages" ]; then
	if ! command -v apt-get >/dev/null; then
		echo "install$packages with this system's package manager, or name running brokers in POLYMQ_TEST_AMQP_URL and POLYMQ_TEST_REDIS_URL" >&2
		exit 1
	fi
	sudo=
	if [ "$(id -u)" != 0 ]; then
		sudo=sudo
	fi
	# Debian asks this file whether a package may start its service.
	policy=/usr/sbin/policy-rc.d
	if [ ! -e $policy ]; then
		trap '$sudo rm -f $policy' EXIT
		trap 'exit 1' INT TERM
		printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
		$sudo chmod 755 $policy
	fi
	$sudo apt-get update -q
	# shellcheck disable=SC2086 # a list of words
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages
	if [ -d /run/systemd/system ]; then
		# Nor are they wanted after the next boot.
		# shellcheck disable=SC2086
		$sudo systemctl disable $packages
	fi
fi

if [ -z "${POLYMQ_TEST_NATS_URL:-}" ] && ! [ -x "$bin/nats-server" ]; then
	echo "go install $nats"
	GOBIN=$bin GOFLAGS= go install "$nats"
fi
