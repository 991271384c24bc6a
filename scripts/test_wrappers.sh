#!/usr/bin/env bash
# lmms-eval's own wrappers, pruned and not, on tiny checkpoints. They import packages that are not in .venv,
# one of which (torchvision) must not be: it changes which image processors transformers takes. So the tests
# run in an environment of their own, made for them on top of .venv. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh

python=$PWD/.venv/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONHASHSEED=0 HF_HUB_OFFLINE=1

"$python" -m venv --without-pip "$work/env"
site=$("$work/env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$python" -m pip --python "$work/env/bin/python" install --quiet --disable-pip-version-check \
  --no-deps --require-hashes -r scripts/wrappers/requirements.txt
# Files *.pth of .venv, which find this repository's packages, are read as well.
echo "import site; site.addsitedir('$packages')" > "$site/packages.pth"
cp scripts/wrappers/torchvision_operators.py "$site"
echo "import torchvision_operators" > "$site/torchvision_operators.pth"

cd lmms_eval
"$work/env/bin/python" -m pytest -q tests/stock/test_wrappers.py "$@"
