#!/usr/bin/env bash
# deb-image.sh TAG SUITE PACKAGE "PROGRAM..." [docker import --change ARGS...]
#
# Makes a small image from one Debian package and what it depends on, without a registry and without installing anything on this machine: the
# programs, the shared libraries that they load, a busybox for health checks, the CA bundle. In the environment: FILES="/path..." takes data files
# along, DIRS="/path..." makes folders that anybody may write, OVERLAY=folder adds (or replaces) files of our own, DEB_IMAGE_CACHE=folder keeps package indices between calls.
set -euo pipefail

tag=$1 suite=$2 package=$3 programs=$4
shift 4

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
state=${DEB_IMAGE_CACHE:-$work}/apt-$suite
mkdir -p "$state"/{lists/partial,cache/archives/partial} "$work"/{all,root}
: >"$state/status"

mirror=${DEB_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' | awk '/\/debian\/$/ { u = $0 } END { print u }')}
[[ $mirror ]] || { echo "deb-image.sh: apt knows no Debian mirror; set DEB_MIRROR" >&2; exit 1; }
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$state/sources.list"

# An apt that shares nothing with the machine's but the mirror and the keys.
apt=(apt-get -qq -o Dir::Etc::SourceList="$state/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State="$state"
  -o Dir::State::Lists="$state/lists" -o Dir::State::Status="$state/status" -o Dir::Cache="$state/cache" -o APT::Sandbox::User=root
  -o APT::Install-Recommends=false -o APT::Keep-Downloaded-Packages=true -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false
  -o Debug::NoLocking=1)
[[ -s $state/fresh ]] || { "${apt[@]}" update >&2 && date >"$state/fresh"; }
rm -f "$state"/cache/archives/*.deb
"${apt[@]}" -y --download-only install "$package" busybox-static ca-certificates >/dev/null

for deb in "$state"/cache/archives/*.deb; do
  dpkg-deb --fsys-tarfile "$deb" |
    tar -xf - -C "$work/all" --keep-directory-symlink --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*'
done
cd "$work"
# Suites since trixie have /bin and friends as links that no package of the closure needs to bring.
for folder in bin sbin lib lib64; do
  [[ -e all/$folder || -L all/$folder ]] || ln -s "usr/$folder" "all/$folder"
done

loader=/lib64/ld-linux-x86-64.so.2
mkdir -p root/{bin,tmp,etc/ssl/certs,data,dev,proc,sys}
chmod 1777 root/tmp
chmod 777 root/data
put() {
  mkdir -p "root$(dirname "$1")"
  cp -L "all$1" "root$1"
}
put $loader
for program in $programs; do
  put "$program"
  for library in $(chroot all $loader --list "$program" 2>/dev/null | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p'); do put "$library"; done
done
for file in ${FILES:-}; do put "$file"; done

cp -L "$(find all -path '*bin/busybox' -type f | head -n 1)" root/bin/busybox
for applet in sh cat ls sleep wget nc id env timeout; do ln -sf busybox "root/bin/$applet"; done
find all/usr/share/ca-certificates/mozilla -name '*.crt' -exec cat {} + >root/etc/ssl/certs/ca-certificates.crt
printf 'root:x:0:0:root:/:/bin/sh\nhaproxy:x:99:99::/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n' >root/etc/passwd
printf 'root:x:0:\nhaproxy:x:99:\nnogroup:x:65534:\n' >root/etc/group
echo 'hosts: files dns' >root/etc/nsswitch.conf
for folder in ${DIRS:-}; do mkdir -p "root$folder" && chmod 777 "root$folder"; done
if [[ ${OVERLAY:-} ]]; then cp -RT "$OVERLAY" root; fi

# Names, order and times are fixed, so that the same packages make the same image.
tar --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner -C root -cf - . |
  docker import --change 'ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$@" - "$tag" >/dev/null
docker image inspect --format "{{index .RepoTags 0}}: {{.Size}} bytes, made from Debian's $package" "$tag"
