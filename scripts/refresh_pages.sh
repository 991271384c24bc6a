#!/usr/bin/env bash
# Make everything anew that pages show of results/mini and of the registry: the generated parts of
# README.md, and its picture docs/images/overview.png. Half a minute.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
.venv/bin/python scripts/front_page.py
.venv/bin/python scripts/readme_figure.py
