#!/usr/bin/env bash
# Build sdists and wheels of the four distributions into dist/, and check them. Nothing is uploaded.
#   bash scripts/release.sh            the version that pyproject.toml names
#   bash scripts/release.sh 0.2.0      first write this version wherever one stands, and end CHANGELOG's
#                                      part "Unreleased" with it
# The tools have an environment of their own, .venv-release. Some minutes, most of them for the checks.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(. LLaVA lmms_eval src/otprune-vllm)
largest=$((100 * 1024 * 1024))

fail() {
  echo "release: $*" >&2
  exit 1
}

if [ "$#" -gt 0 ]; then
  [[ $1 =~ ^[0-9]+\.[0-9]+\.[0-9]+((a|b|rc)[0-9]+)?$ ]] || fail "the version must be like 0.2.0 or 0.2.0rc1, got $1"
  grep -q '^## Unreleased$' CHANGELOG.md || fail "CHANGELOG.md must have a part 'Unreleased'"
  if grep -q "^## $1 " CHANGELOG.md; then fail "CHANGELOG.md has version $1 already"; fi
  for package in "${packages[@]}"; do
    sed -i "s/^version = \".*\"$/version = \"$1\"/" "$package/pyproject.toml"
  done
  sed -i "s/^version: .*$/version: $1/" CITATION.cff
  sed -i "s/^## Unreleased$/## Unreleased\n\n## $1 ($(date +%Y-%m-%d))/" CHANGELOG.md
fi
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)

wanted=$(cksum < scripts/release/requirements.txt)
stamp=.venv-release/.installed
if ! [ -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
  rm -rf .venv-release
  "${PYTHON:-python3}" -m venv .venv-release
  .venv-release/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
    -r scripts/release/requirements.txt
  echo "$wanted" > "$stamp"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# From a copy: a folder build/ in the repository may hold files of earlier versions.
mkdir "$work/source" "$work/dist"
cp -R pyproject.toml README.md LICENSE src LLaVA lmms_eval configs constraints.txt "$work/source"
find "$work/source" -type d \( -name build -o -name '*.egg-info' -o -name __pycache__ -o -name tests \) -prune -exec rm -rf {} +
for package in "${packages[@]}"; do
  # Each wheel is made of its sdist, so the sdist has all that it needs.
  .venv-release/bin/python -m build --no-isolation --outdir "$work/dist" "$work/source/$package" > "$work/said" 2>&1 \
    || { cat "$work/said" >&2; fail "$package cannot be built"; }
done
files=("$work"/dist/*)
[ "${#files[@]}" = 8 ] || fail "four sdists and four wheels, got ${files[*]}"
for file in "${files[@]}"; do
  case $(basename "$file") in
    *-"$version".tar.gz | *-"$version"-py3-none-any.whl) ;;
    *) fail "every file must be of version $version, got $(basename "$file")" ;;
  esac
  size=$(wc -c < "$file")
  [ "$size" -le "$largest" ] || fail "no file may have more than $largest bytes, got $size: $(basename "$file")"
done
.venv-release/bin/python -m twine check --strict "${files[@]}"
bash scripts/check_wheels.sh --wheels "$work/dist"

rm -rf dist
mkdir dist
cp "${files[@]}" dist/
ls -l dist >&2
echo "release: version $version is in dist/; upload it with: .venv-release/bin/python -m twine upload dist/*" >&2
