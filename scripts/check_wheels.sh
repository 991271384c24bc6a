#!/usr/bin/env bash
# Build the four wheels, install them away from the repository, and use them there.
#   bash scripts/check_wheels.sh            other packages are those of .venv: some minutes
#   bash scripts/check_wheels.sh --wheels FOLDER    wheels that are there already
#   bash scripts/check_wheels.sh --index    other packages come from the package index: much longer
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh

root=$PWD python=$PWD/.venv/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH
export PYTHONHASHSEED=0 HF_HUB_OFFLINE=1

fail() {
  echo "check_wheels: $*" >&2
  if [ -f "$work/said" ]; then cat "$work/said" >&2; fi
  exit 1
}
# tried STATUS COMMAND...: what it says goes to $work/said; a traceback fails, and another status.
tried() {
  local wanted=$1 status=0
  shift
  "$@" > "$work/said" 2>&1 || status=$?
  if grep -q Traceback "$work/said"; then fail "a traceback from: $*"; fi
  [ "$status" = "$wanted" ] || fail "status $status, expected $wanted: $*"
}
says() { grep -q -- "$1" "$work/said" || fail "it does not say: $1"; }

index=no given=
while [ "$#" -gt 0 ]; do
  case $1 in
    --index) index=yes ;;
    --wheels)
      given=$(cd "${2:?--wheels needs a folder}" && pwd)
      shift
      ;;
    *) fail "unknown option $1" ;;
  esac
  shift
done

mkdir "$work/wheels" "$work/elsewhere"
if [ -n "$given" ]; then
  cp "$given"/*.whl "$work/wheels"
else
  # From a copy: a folder build/ in the repository may hold files of earlier versions.
  mkdir "$work/source"
  cp -R pyproject.toml README.md LICENSE src LLaVA lmms_eval configs constraints.txt "$work/source"
  rm -rf "$work"/source/build "$work"/source/*/build "$work"/source/src/*/build
  for package in . LLaVA lmms_eval src/otprune-vllm; do
    "$python" -m pip wheel --quiet --no-deps --no-build-isolation --disable-pip-version-check \
      --wheel-dir "$work/wheels" "$work/source/$package"
  done
  rm -rf "$work/source"
fi
wheels=("$work"/wheels/*.whl)
[ "${#wheels[@]}" = 4 ] || fail "four wheels, got ${wheels[*]}"
for wheel in "${wheels[@]}"; do
  "$python" -m zipfile -l "$wheel" > "$work/said"
  says dist-info/licenses/LICENSE
done

# environment NAME [PATTERN]: $work/NAME with the wheels, without packages whose name fits the pattern.
environment() {
  local site packages
  "$python" -m venv --without-pip "$work/$1"
  if [ "$index" = yes ]; then
    "$python" -m pip --python "$work/$1/bin/python" install --quiet --disable-pip-version-check \
      -c constraints.txt torch
    "$python" -m pip --python "$work/$1/bin/python" install --quiet --disable-pip-version-check \
      -c constraints.txt "${wheels[@]}"
    [ -n "${2:-}" ] || "$python" -m pip --python "$work/$1/bin/python" install --quiet \
      --disable-pip-version-check --no-deps -c constraints.txt lmms_eval
    return
  fi
  # Links to the packages of .venv. Files *.pth there, which add the repository, are not read.
  site=$("$work/$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  mkdir "$work/$1/others"
  for one in "$packages"/*; do
    case $(basename "$one") in
      *.pth | __editable__* | otprune* | ${2:-otprune*}) ;;
      *) ln -s "$one" "$work/$1/others/" ;;
    esac
  done
  echo "$work/$1/others" > "$site/others.pth"
  "$python" -m pip --python "$work/$1/bin/python" install --quiet --disable-pip-version-check \
    --no-deps --no-index "${wheels[@]}"
}
cd "$work/elsewhere"
(cd "$root" && environment without 'lmms_eval*')
bin=$work/without/bin
tried 0 "$bin/otprune" --help
tried 0 "$bin/otprune" --version
says "lmms_eval not installed"
tried 0 "$bin/otprune" models --family qwen3_vl
says "FasterVLM needs cls_attention"
tried 0 "$bin/python" -m otprune_lmms --help
tried 2 "$bin/otprune" run mini
says "pip install --no-deps lmms_eval=="
[ "$(wc -l < "$work/said")" = 1 ] || fail "one sentence without lmms-eval"

(cd "$root" && environment with)
bin=$work/with/bin
tried 0 "$bin/python" -c 'import otprune, llava, otprune_lmms, otprune_vllm
for one in (otprune, llava, otprune_lmms, otprune_vllm): print(one.__file__)'
if grep -qv "^$work/with/lib" "$work/said"; then fail "a package is not the wheel's"; fi
"$bin/python" - << 'EOF'
from pathlib import Path
import pyarrow.parquet
from otprune_lmms.embedded import MINI_TASKS
(file,) = (MINI_TASKS.parent / "mini_data" / "pope").glob("*.parquet")
image = pyarrow.parquet.read_table(file, columns=["image"]).slice(0, 1).to_pylist()[0]["image"]
Path("scene.png").write_bytes(image["bytes"])
EOF
tried 0 "$bin/otprune" prune scene.png --method otprune --method divprune
[ -s scene-kept.png ] || fail "no figure"
tried 0 "$bin/python" -m llava llava-mini "Is there a circle in the image?" --image scene.png
tried 0 "$bin/otprune" run mini/table1 --limit 2 --without-java
says "OTPrune 0.098"
grep -q '"commit": "installed version ' outputs/limit2/mini-table1/manifest.json \
  || fail "the manifest does not say which version is installed"
tried 0 "$bin/otprune" status mini/table1 --limit 2
tried 0 "$bin/otprune" verify outputs/limit2/mini-table1
tried 0 "$bin/python" -m lmms_eval --model llava --model_args pretrained=llava-mini,method=otprune,keep_ratio=0.1 \
  --include_path "$("$bin/python" -c 'from otprune_lmms.embedded import MINI_TASKS; print(MINI_TASKS)')" \
  --tasks pope --limit 2
echo "check_wheels: four wheels work away from the repository" >&2
