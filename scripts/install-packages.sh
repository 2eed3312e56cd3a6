#!/bin/sh
# Installs the Debian packages that building, testing and the lab need, and only those that are missing.
#
# None of them may leave a daemon behind: nginx is wanted as a program that the lab starts, not as a service of this
# machine, so services are kept from starting while packages are configured.
set -eu

packages="libdpdk-dev librdkafka-dev libprotobuf-c-dev protobuf-c-compiler libpcap-dev pkg-config
  iproute2 nftables ethtool util-linux nginx-light wrk curl kcat"

is_installed() {
  case $(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null) in installed) return 0 ;; esac
  # Any nginx will do: nginx-full and others conflict with nginx-light.
  test "$1" = nginx-light && command -v nginx >/dev/null 2>&1
}

command -v dpkg-query >/dev/null || {
  echo "This is no Debian; install what corresponds to: $packages" >&2
  exit 0
}
missing=
for package in $packages; do is_installed "$package" || missing="$missing $package"; done
test -n "$missing" || exit 0

sudo=
if test "$(id -u)" != 0; then
  command -v sudo >/dev/null || {
    echo "Packages are missing and there is no sudo; as root: apt-get install$missing" >&2
    exit 69
  }
  sudo=sudo
fi
echo "Installing$missing"

# 101 is "action forbidden by policy" to invoke-rc.d and deb-systemd-invoke.
policy=/usr/sbin/policy-rc.d
put_back() {
  if test -e "$policy.nfvactor"; then $sudo mv "$policy.nfvactor" "$policy"; else $sudo rm -f "$policy"; fi
}
if test -e "$policy"; then $sudo mv "$policy" "$policy.nfvactor"; fi
trap put_back EXIT
trap 'exit 130' INT TERM
printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
$sudo chmod 755 "$policy"

$sudo apt-get update -qq
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing

# Nor is nginx to come up by itself at the next boot, since it was not here before.
case "$missing" in *nginx-light*)
  if test -d /run/systemd/system; then $sudo systemctl disable --quiet nginx || true; fi
  ;;
esac
