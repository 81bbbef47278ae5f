#!/bin/sh
# Makes gemmad's Debian package of programs that are built: deb.sh PROGRAMS OUTPUT [VERSION]
#
# It has what `make install` installs. VERSION is for tests of upgrades: a version above that of debian/changelog. So is
# COMPRESSION in the environment, options of dpkg-deb. CROSS there is Debian's name of another architecture, which the
# programs are for. The same sources and programs give the same bytes.
set -eu
# The newest of the libraries that Debian 12 has.
FLOORS='libc6=2.36 libstdc++6=12.2.0'

sources=$(cd "$(dirname "$0")/.." && pwd)
programs=$(cd "$1" && pwd)
mkdir -p "$2"
output=$(cd "$2" && pwd)
fail() {
	echo "$*" >&2
	exit 1
}

built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
umask 022
mkdir "$built/package"
cp -r "$sources/cross/debian" "$built/package"
cd "$built/package"
version=$(dpkg-parsechangelog -SVersion)
own=$(sed -n 's/^version = "\(.*\)"/\1/p' "$sources/Cargo.toml" | head -n 1)
[ "$version" = "$own" ] ||
	fail "Cargo.toml has version $own, and cross/debian/changelog begins with $version: describe $own there"
if [ -n "${3:-}" ]; then
	dpkg --compare-versions "$3" gt "$version" || fail "version $3 is not above $version of cross/debian/changelog"
	dpkg-parsechangelog | sed -n 's/^Date: //p' >"$built/date"
	{
		printf 'gemmad (%s) unstable; urgency=medium\n\n  * A version for tests.\n\n' "$3"
		printf ' -- %s  %s\n\n' "$(dpkg-parsechangelog -SMaintainer)" "$(cat "$built/date")"
		cat debian/changelog
	} >"$built/changelog"
	mv "$built/changelog" debian/changelog
fi

# Flags of the surrounding build are not the packaging's.
if ! env -u CFLAGS -u CXXFLAGS -u RUSTFLAGS -u MAKEFLAGS -u MAKELEVEL SOURCES="$sources" BIN="$programs" \
	${CROSS:+dpkg-architecture -a "$CROSS" -c} debian/rules binary >"$built/log" 2>&1; then
	cat "$built/log" >&2
	fail 'the package cannot be made'
fi
for package in "$built"/*.deb; do
	for floor in $FLOORS; do
		needed=$(dpkg-deb -f "$package" Depends | tr ',' '\n' | sed -n "s/^ *${floor%=*} (>= \(.*\))/\1/p")
		[ -z "$needed" ] || dpkg --compare-versions "$needed" le "${floor#*=}" ||
			fail "the programs need ${floor%=*} $needed, and Debian 12 has ${floor#*=}: build them there"
	done
	mv "$package" "$output"
	echo "$output/${package##*/}"
done
