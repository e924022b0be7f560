#!/usr/bin/env bash
# Builds the RPMs for dom0 and for the agent's qube with the rpm of Debian or Fedora, and holds it against rpmlint.
# Needs rpmbuild, rpmlint and what reproducible-build.sh needs.
set -euo pipefail
exec </dev/null

usage() {
  cat <<'TEXT'
usage: packaging/build-rpm.sh [--programs DIR] [--worktree] [--out DIR]

  --programs DIR  take both programs from there, where reproducible-build.sh --out put them
  --worktree      build the files as they are now, not the last commit
  --out DIR       put the RPMs there; without it, target/rpm
TEXT
}

top=$(cd "$(dirname "$0")/.." && pwd)
programs='' worktree=() out=$top/target/rpm
while [ $# -gt 0 ]; do
  case $1 in
    --programs) programs=$(cd -- "${2:?--programs needs a folder}" && pwd) && shift ;;
    --worktree) worktree=(--worktree) ;;
    --out) out=${2:?--out needs a folder} && shift ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done
mkdir -p -- "$out"
out=$(cd -- "$out" && pwd)

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
cd -- "$top"

if [ -z "$programs" ]; then
  programs=$work/programs
  packaging/reproducible-build.sh --once "${worktree[@]}" --out "$programs"
fi
version=$("$programs/saltbridged" --version | cut -d ' ' -f 2)

# Manual and completions come from the definition of the command line.
cargo run --quiet --locked -p qubes-rpc --example manual -- "$work/manual"
cargo run --quiet --locked -p salt-bridge --example agent-manual -- "$work/manual"

tree=$work/salt-bridge-$version
mkdir -p -- "$tree/docs"
install -m 0755 -- "$programs/saltbridged" "$programs/salt-bridge" packaging/smoke.sh "$tree"
(cd -- "$tree" && sha256sum saltbridged salt-bridge >SHA256SUMS)
cp -r -- packaging/systemd packaging/sysusers.d "$work/manual/man" "$work/manual/completions" "$tree"
cp -- README.md CHANGELOG.md LICENSE "$tree"
cp -- docs/*.md "$tree/docs"

# The same sources make the same package.
if [ -e .git ]; then
  SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
else
  SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1}
fi
export SOURCE_DATE_EPOCH
mkdir -p -- "$work/SOURCES"
tar -c -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
  "${tree##*/}" | gzip -9 -n >"$work/SOURCES/${tree##*/}.tar.gz"

rpmbuild --quiet -bb --nodeps --target x86_64 \
  --define "_topdir $work" --define "salt_bridge_version $version" \
  packaging/rpm/salt-bridge.spec
packages=("$work"/RPMS/x86_64/*.rpm)

# What is packed is what was built.
packed() {
  rpm2cpio "$1" | cpio --quiet -i --to-stdout "./usr/bin/$2" | sha256sum
}
for package in "${packages[@]}"; do
  name=saltbridged
  case ${package##*/} in salt-bridge-agent-*) name=salt-bridge ;; esac
  [ "$(packed "$package" "$name")" = "$(sha256sum <"$programs/$name")" ] || {
    printf 'the program in %s is not the one that was built\n' "${package##*/}" >&2
    exit 1
  }
done
lint=$(rpmlint --config packaging/rpm/rpmlint.toml "${packages[@]}" packaging/rpm/salt-bridge.spec 2>&1) || {
  printf '%s\n' "$lint"
  exit 1
}
printf '%s\n' "$lint" | tail -n 1
for package in "${packages[@]}"; do
  install -m 0644 -- "$package" "$out"
  printf '%s\n' "$out/${package##*/}"
  (cd -- "$out" && sha256sum "${package##*/}")
done
