#!/bin/sh
# Makes gemmad's RPM of programs that are built: rpm.sh PROGRAMS OUTPUT
#
# It has what `make install` installs. CROSS in the environment is Debian's name of another architecture, which the programs
# are for. The same sources and programs give the same bytes.
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
	echo "RPMs are not made for $CROSS" >&2
	exit 1
	;;
esac
cd "$sources"
# Where rpm is not the package manager it knows of no installed packages, so nothing of them is asked (--nodeps).
if ! env -u CFLAGS -u CXXFLAGS -u RUSTFLAGS -u MAKEFLAGS -u MAKELEVEL rpmbuild -bb --build-in-place --nodeps \
	--target "$target" --define "_topdir $built" --define "_rpmdir $output" --define '_rpmfilename %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm' \
	--define '_buildhost gemmad.invalid' --define 'source_date_epoch_from_changelog 1' \
	--define 'clamp_mtime_to_source_date_epoch 1' --define 'use_source_date_epoch_as_buildtime 1' \
	--define "programs $programs" ${CROSS:+--define "cross $CROSS"} --define "strip $strip" \
	cross/rpm/gemmad.spec >"$built/log" 2>&1; then
	cat "$built/log" >&2
	echo 'the package cannot be made' >&2
	exit 1
fi
sed -n 's/^Wrote: //p' "$built/log"
