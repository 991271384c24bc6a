#!/usr/bin/env bash
# The tests of otprune.hf with the oldest version of transformers that pyproject.toml allows, and with the newest of
# the package index. Each runs in an environment of its own on top of .venv, which is deleted afterwards.
#   bash scripts/test_transformers_versions.sh                  oldest and newest
#   bash scripts/test_transformers_versions.sh 5.20.2 5.21.1    these
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh

python=$PWD/.venv/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONHASHSEED=0 HF_HUB_OFFLINE=1

oldest=$("$python" -c '
import re, tomllib
wanted = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["hf"]
print(re.fullmatch(r"transformers>=([\d.]+),<6", wanted[0])[1])')
if [ $# = 0 ]; then set -- "==$oldest.*" ">=$oldest,<6"; else set -- "${@/#/==}"; fi
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

failed=()
for version in "$@"; do
  rm -rf "$work/env"
  "$python" -m venv --without-pip "$work/env"
  site=$("$work/env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  # Without its requirements: those of .venv serve all these versions.
  "$python" -m pip --python "$work/env/bin/python" install --quiet --disable-pip-version-check \
    --no-deps --upgrade "transformers$version"
  # What is installed here comes first; files *.pth of .venv, which find this repository, are read as well.
  echo "import site; site.addsitedir('$packages')" > "$site/packages.pth"
  "$work/env/bin/python" -c 'import sys, transformers
where = transformers.__file__
print("transformers", transformers.__version__, file=sys.stderr)
sys.exit(None if where.startswith(sys.prefix) else f"not the one that was installed: {where}")'
  "$work/env/bin/python" -m pytest -q -p no:cacheprovider tests/hf || failed+=("transformers$version")
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "test_transformers_versions: tests failed with ${failed[*]}" >&2
  exit 1
fi
