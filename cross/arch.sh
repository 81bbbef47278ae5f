#!/bin/sh
# Makes gemmad's package for Arch Linux of programs that are built: arch.sh PROGRAMS OUTPUT
#
# It has what `make install` installs. CROSS in the environment is Debian's name of another architecture, which the programs
# are for.
set -eu
sources=$(cd "$(dirname "$0")/.." && pwd)
programs=$(cd "$1" && pwd)
mkdir -p "$2"
output=$(cd "$2" && pwd)
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
umask 022

case ${CROSS:-} in
'') target=$(uname -m) strip=strip ;;
arm64) target=aarch64 strip=aarch64-linux-gnu-strip ;;
*)
	echo "packages for Arch Linux are not made for $CROSS" >&2
	exit 1
	;;
esac
cp "$sources/cross/arch/PKGBUILD" "$sources/cross/arch/gemmad.install" "$built"
cat >"$built/makepkg.conf" <<CONF
. /etc/makepkg.conf
CARCH=$target
PKGEXT=.pkg.tar.zst
COMPRESSZST=(zstd -c -T0 -10 -)
CONF
cd "$built"
# makepkg does not run as root: it is another user in a name space, who is root outside.
as_another=
[ "$(id -u)" != 0 ] || as_another='unshare --user --map-user=1000 --map-group=1000'
# Where pacman is not the package manager it knows of no installed packages, so nothing of them is asked (--nodeps).
if ! env -u CFLAGS -u CXXFLAGS -u RUSTFLAGS -u MAKEFLAGS -u MAKELEVEL GEMMAD_SOURCES="$sources" GEMMAD_PROGRAMS="$programs" \
	STRIP=$strip PKGDEST="$built/packages" SOURCE_DATE_EPOCH="$(dpkg-parsechangelog -l "$sources/cross/debian/changelog" -STimestamp)" \
	$as_another makepkg --nodeps --config "$built/makepkg.conf" >"$built/log" 2>&1; then
	cat "$built/log" >&2
	echo 'the package cannot be made' >&2
	exit 1
fi
for package in "$built"/packages/*; do
	mv "$package" "$output"
	echo "$output/${package##*/}"
done
