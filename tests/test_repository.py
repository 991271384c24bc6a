"""The layout, the front page and the scripts, held to what they say."""

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from hf.tiny_vlms import clone, tiny
from otprune import BUILT_IN, PRUNERS

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / package / "README.md" for package in ("LLaVA", "lmms_eval")),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("LLaVA/checkpoints/*/README.md"),
        *ROOT.glob("lmms_eval/checkpoints/*/README.md"),
        *ROOT.glob("scripts/*/README.md"),
        *ROOT.glob("examples/*/README.md"),
        *ROOT.glob("results/**/*.md"),
    ]
)
README = (ROOT / "README.md").read_text()
SPEED = (ROOT / "docs" / "speed.md").read_text()


def test_the_folder_lmms_eval_never_shadows_the_installed_package():
    folder = ROOT / "lmms_eval"
    assert not (folder / "__init__.py").exists()
    # Beside an editable checkout of lmms-eval a child of such a name would be taken for its own.
    taken = {"tasks", "models", "api", "cli", "loggers"}
    assert not taken & {child.name for child in folder.iterdir()}


def without_code(page: Path) -> str:
    """The text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", without_code(page), flags=re.M)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower().strip() for title in titles]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", without_code(page)):
        if target.startswith(("http://", "https://")):
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{target}#{anchor}"


@pytest.mark.parametrize(
    ("page", "blocks"), [("README.md", 1), ("docs/prune.md", 3), ("docs/add-a-model.md", 1)]
)
def test_the_python_of_the_pages_runs(page, blocks, capsys):
    found = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.S)
    assert len(found) == blocks
    vlm = tiny("qwen3_vl")
    names: dict = {"__name__": "readme", "model": vlm.model, "inputs": clone(vlm.inputs)}
    for block in found:
        exec(compile(block, page, "exec"), names)
    assert names["answer"].shape == (2, vlm.inputs["input_ids"].shape[1] + 8)
    if page == "docs/prune.md":
        assert names["kept"].shape == (56,)
        assert names["pruned"].shape == (56, 1024)
        assert [len(one) for one in names["positions"]] == [56, 229]


def test_the_method_of_the_page_joins_the_registry():
    page = (ROOT / "docs" / "add-a-method.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    registered = dict(PRUNERS)
    try:
        exec(compile(block, "add-a-method.md", "exec"), {"__name__": "page"})
        assert set(PRUNERS) - set(registered) == {"loudest"}
    finally:
        PRUNERS.clear()
        PRUNERS.update(registered)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_scripts_that_pages_name_exist(page):
    for name in re.findall(
        r"(?:bash|python) ((?:scripts|examples)/[\w./]+\.(?:sh|py))", page.read_text()
    ):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("form", ["bug", "method", "model"])
def test_issue_forms_ask_for_what_is_needed(form):
    content = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{form}.yml").read_text())
    assert {"name", "description", "labels", "body"} == set(content)
    fields = [one["id"] for one in content["body"]]
    assert len(fields) == len(set(fields)) >= 3
    kinds = {"input": set(), "textarea": set(), "dropdown": {"options"}}
    for one in content["body"]:
        assert {"label"} | kinds[one["type"]] <= set(one["attributes"])
    assert any(one.get("validations", {}).get("required") for one in content["body"])


def test_the_front_page_is_short():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert "bash run_OTPrune.sh" in README
    assert "bash scripts/test.sh" in README


def test_the_table_of_methods_lists_every_method_and_its_file():
    for name, method in BUILT_IN.items():
        file = method.__module__.replace(".", "/") + ".py"
        assert re.search(rf"\| \[`{name}`\]\(src/{file}\) \|", README), name


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_no_page_says_that_otprune_minimises_the_distance(page):
    assert not re.search(r"OTPrune (minimi[sz]es|lowers)", page.read_text(), flags=re.I)


@pytest.mark.parametrize(
    "script", sorted([*ROOT.glob("*.sh"), *ROOT.glob("scripts/*.sh"), ROOT / ".ci/run"]), ids=str
)
def test_shell_scripts_parse_and_stop_at_the_first_error(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert "set -euo pipefail" in script.read_text()


def library_files():
    packages = ("src", "LLaVA/llava", "lmms_eval/otprune_lmms")
    return sorted(file for package in packages for file in (ROOT / package).rglob("*.py"))


ENVIRONMENT = ROOT / "lmms_eval" / "otprune_lmms" / "environment.py"
"""The one file that reads the environment."""


@pytest.mark.parametrize("file", library_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_libraries_keep_the_house_rules(file):
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Assert), "validation raises ValueError"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None
        if isinstance(node, ast.FunctionDef) and node.name != "__post_init__":
            assert node.returns is not None, f"{node.name} lacks a return type"
        if isinstance(node, ast.Attribute) and file != ENVIRONMENT:
            assert node.attr not in ("environ", "getenv"), "settings are arguments"


def test_otprune_imports_no_model_and_llava_no_harness():
    transformers = {"transformers"}
    forbidden = {"src": {"llava", "lmms_eval"} | transformers, "LLaVA/llava": {"lmms_eval"}}
    for folder, names in forbidden.items():
        for file in (ROOT / folder).rglob("*.py"):
            # The plug-in's models are those of vLLM, which takes their processors from there.
            knows = [ROOT / "src/otprune/hf", ROOT / "src/otprune-vllm"]
            allowed = transformers if any(map(file.is_relative_to, knows)) else set()
            for node in ast.walk(ast.parse(file.read_text())):
                modules = []
                if isinstance(node, ast.Import):
                    modules = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    modules = [node.module or ""]
                found = {module.split(".")[0] for module in modules}
                assert not found & (names - allowed), file


def committed(name: str, folder: str = "selection") -> dict:
    return json.loads((ROOT / "results" / folder / f"{name}.json").read_text())


def front_page_script():
    """The module of scripts/front_page.py."""
    path = ROOT / "scripts" / "front_page.py"
    spec = importlib.util.spec_from_file_location("front_page", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_parts_of_pages_are_what_the_script_makes():
    script = front_page_script()
    made = script.parts()
    assert {page.name for page in made} == {"README.md", "methods.md"}
    for page, parts in made.items():
        text = page.read_text()
        assert script.updated(text, parts) == text, f"{page.name}: bash scripts/refresh_pages.sh"
    assert set(script.IDEAS) == set(BUILT_IN)
    with pytest.raises(ValueError, match="must have one part"):
        script.updated("a page without parts", parts)


def test_the_result_table_copes_with_rows_of_another_count_and_of_a_setting():
    rows = [
        {"name": "unpruned", "keep_ratio": None, "tokens": 100.0, "score": 100.0},
        {"name": "OTPrune 0.4", "keep_ratio": 0.4, "tokens": 40.0, "score": 90.0},
        {"name": "OTPrune 0.4, γ = 0.1", "keep_ratio": 0.4, "tokens": 40.0, "score": 91.0},
        {"name": "Average pooling 0.4", "keep_ratio": 0.4, "tokens": 36.0, "score": 80.0},
        {"name": "OTPrune 0.2", "keep_ratio": 0.2, "tokens": 20.0, "score": 70.0},
    ]
    script = front_page_script()
    table = pd.DataFrame(rows)
    table["visual tokens"] = 100.0
    table["method"] = [None, "otprune", "otprune", "pooling", "otprune"]
    for end, by in (("", 0.0), (" low", -1.0), (" high", 1.0)):
        table[f"{script.SCORE}{end}"] = table["score"] + by
    assert script.scores(table) == [
        "| method | 40 of 100 tokens | 20 of 100 tokens |",
        "|---|--:|--:|",
        "| OTPrune | 90.0 [89.0, 91.0] | **70.0** [69.0, 71.0] |",
        "| OTPrune, γ = 0.1 | **91.0** [90.0, 92.0] |  |",
        "| Average pooling (control) | 80.0 [79.0, 81.0] (36 tokens) |  |",
    ]


def test_the_picture_of_the_front_page_shows_the_committed_scores():
    picture = ROOT / "docs" / "images" / "overview.png"
    assert picture.stat().st_size < 300_000
    with Image.open(picture) as opened:
        drawn = json.loads(opened.info["scores"])
    table = pd.read_csv(ROOT / "results" / "mini" / "table.csv")
    shown = [
        (
            row["method"],
            row["tokens"],
            *(row[f"mean of ratios{end}"] for end in ("", " low", " high")),
        )
        for _, row in table[table["method"].notna()].iterrows()
    ]
    assert [one[0] for one in drawn] == [one[0] for one in shown], "bash scripts/refresh_pages.sh"
    for ours, want in zip(drawn, shown, strict=True):
        assert ours[1:] == pytest.approx(want[1:], abs=1e-3), "bash scripts/refresh_pages.sh"


def test_the_scores_of_the_findings_are_the_committed_ones():
    page = (ROOT / "docs" / "findings.md").read_text()
    table = pd.read_csv(ROOT / "results" / "mini" / "table.csv").set_index("setting")
    for name, setting in (("DivPrune", "divprune-0.098"), ("OTPrune as released", "otprune-0.098")):
        (said,) = re.findall(rf"{name} \(([\d.]+) \[([\d.]+), ([\d.]+)\]\)", page)
        row = table.loc[setting]
        for number, end in zip(said, ("", " low", " high"), strict=True):
            assert float(number) == pytest.approx(row[f"mean of ratios{end}"], abs=0.051)


def test_the_times_of_the_speed_page_are_the_committed_ones():
    rows = {(row["n"], row["d"]): row for row in committed("cpu")["tables"]["main"]}
    for n in (576, 2340):
        line = next(line for line in SPEED.splitlines() if line.startswith(f"| {n} | "))
        shown = re.findall(r"([\d.]+) → ([\d.]+) ms, ([\d.]+)x", line)
        assert len(shown) == 3
        for d, (plain, ours, ratio) in zip((1024, 4096, 5120), shown, strict=True):
            row = rows[n, d]
            assert float(plain) == pytest.approx(row["plain ms"], rel=0.02)
            assert float(ours) == pytest.approx(row["ours ms"], rel=0.02)
            assert float(ratio) == pytest.approx(row["speed-up"], abs=0.051)


def test_the_model_s_times_of_the_speed_page_are_the_committed_ones():
    rows = committed("cpu", "model")["tables"]["Prefill and decoding"]
    shown = re.findall(
        r"^\| (\d+), (\d) \| (\d+) ms \| (\d+) ms \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) % \| "
        r"([\d.]+) → ([\d.]+) MiB \|$",
        SPEED,
        flags=re.M,
    )
    assert len(shown) == 3
    for visual, batch, *numbers in shown:
        mine = [
            row for row in rows
            if row["batch"] == int(batch) and ("anyres" in row["model"]) == (visual == "2340")
        ]  # fmt: skip
        whole = next(row for row in mine if row["setting"] == "unpruned")
        pruned = next(row for row in mine if row["setting"] == "otprune 0.098")
        assert whole["kept"] == int(visual)
        want = [
            whole["prefill ms"], pruned["prefill ms"], pruned["prefill, of unpruned"],
            pruned["by the formula"], 100 * pruned["selection share"], whole["cache MiB"],
            pruned["cache MiB"],
        ]  # fmt: skip
        for number, value in zip(numbers, want, strict=True):
            digits = len(number.partition(".")[2])
            assert float(number) == pytest.approx(value, abs=0.51 * 10.0**-digits)


@pytest.mark.parametrize("table", sorted((ROOT / "results").rglob("*.json")), ids=lambda p: p.name)
def test_every_result_says_where_it_comes_from(table):
    origin = json.loads(table.read_text())["origin"]
    known = set(origin) - {"compiled loops"}
    assert known == {"hardware", "commit", "torch", "python", "command"}
    assert all(origin.values())
    assert "changes" not in origin["commit"]


ONE_AFTER_THE_OTHER = """
import json, runpy, sys
how, program, *cases = json.loads(sys.argv[1])
for arguments in cases:
    sys.argv = [program, *arguments]
    try:
        getattr(runpy, how)(program, run_name="__main__")
    except SystemExit as end:
        print("ended with", end.code, file=sys.stderr)
    else:
        print("did not end", file=sys.stderr)
"""


def ends(how: str, program: str, cases: list[list[str]], monkeypatch) -> list[str]:
    """What a program says to each list of arguments, in one process that imports it once."""
    monkeypatch.setenv("COLUMNS", "200")  # the message on one line
    command = [sys.executable, "-c", ONE_AFTER_THE_OTHER, json.dumps([how, program, *cases])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    said = done.stderr.split("ended with 2\n")
    assert len(said) == len(cases) + 1, done.stderr
    assert not said.pop()
    return said


def test_the_study_answers_a_mistake_in_a_sentence(monkeypatch):
    cases = [["--keep-ratio", "9.8"], ["nofile.safetensors"], ["README.md"], ["--keep-rato", "0.1"]]
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "scripts"))
    ratio, missing, other, option = ends(
        "run_path", "scripts/study_transport.py", cases, monkeypatch
    )
    assert "keep_ratio must be in (0, 1], got 9.8" in ratio
    assert "does not exist" in missing
    assert "is no safetensors file" in other
    assert "No such option" in option


@pytest.fixture
def main_job(tmp_path):
    """The main job in a folder of its own, its set-up and its Python replaced by what they say."""
    folder = tmp_path / "a clone"
    for name in ("scripts", ".venv/bin", "configs"):
        (folder / name).mkdir(parents=True)
    shutil.copy(ROOT / "run_OTPrune.sh", folder)
    for config in (ROOT / "configs").glob("*.yaml"):
        shutil.copy(config, folder / "configs")
    (folder / "scripts" / "setup.sh").write_text("echo set up >&2\n")
    python = folder / ".venv" / "bin" / "python"
    python.write_text(
        '#!/usr/bin/env bash\nif [ "$1" = -c ]; then echo "$GPUS"; exit; fi\n'
        'printf "<%s>" "$@"\nexit "$CODE"\n'
    )
    python.chmod(0o755)

    def run(*arguments, gpus=0, code=0, cwd=folder):
        return subprocess.run(
            ["bash", folder / "run_OTPrune.sh", *arguments],
            cwd=cwd,
            env={"PATH": "/usr/bin:/bin", "GPUS": str(gpus), "CODE": str(code)},
            capture_output=True,
            text=True,
        )

    return run


RUN = "<-m><otprune_lmms><run>"


def test_the_main_job_runs_what_the_machine_can(main_job):
    small = main_job()
    assert small.stdout == f"{RUN}<configs/mini.yaml>"
    assert "set up" in small.stderr
    assert "bash run_OTPrune.sh configs/paper.yaml" in small.stderr
    large = main_job(gpus=1)
    assert large.stdout == f"{RUN}<configs/paper.yaml>"
    assert "bash run_OTPrune.sh configs/mini.yaml" in large.stderr
    several = main_job(gpus=4)
    launched = "<-m><torch.distributed.run><--standalone><--nproc_per_node><4>"
    assert several.stdout == f"{launched}{RUN}<configs/paper.yaml>"


def test_the_main_job_runs_the_named_experiment_and_passes_options_on(main_job):
    chosen = main_job("configs/mini.yaml", "--limit", "4", gpus=1)
    assert chosen.stdout == f"{RUN}<configs/mini.yaml><--limit><4>"
    assert "Running" not in chosen.stderr
    assert main_job("--limit", "4").stdout == f"{RUN}<configs/mini.yaml><--limit><4>"
    assert main_job("mini", "--limit", "4", gpus=1).stdout == f"{RUN}<mini><--limit><4>"
    assert main_job("--help").stdout == f"{RUN}<--help>"


def test_the_main_job_finds_an_experiment_of_the_callers_folder(main_job, tmp_path):
    own = tmp_path / "my.yaml"
    own.write_text("")
    assert main_job("my.yaml", cwd=tmp_path).stdout == f"{RUN}<{own}>"
    assert main_job("configs/mini.yaml", cwd=tmp_path).stdout == f"{RUN}<configs/mini.yaml>"


def test_the_main_job_ends_as_its_run_ended(main_job):
    assert main_job(code=3).returncode == 3
    assert main_job().returncode == 0


def test_the_run_answers_a_mistake_in_a_sentence(monkeypatch):
    cases = [
        ["run", "nothing.yaml"],
        ["run", "README.md"],
        ["run", "configs/mini.yaml", "--limit", "0"],
        ["run", "configs/mini.yaml", "--keep-rato", "0.1"],
    ]
    missing, page, limit, option = ends("run_module", "otprune_lmms", cases, monkeypatch)
    assert "nothing.yaml: No such file" in missing
    assert "README.md" in page
    assert "--limit" in limit
    assert "No such option" in option


def test_every_constraint_but_torch_has_its_hashes():
    """pip refuses hashes beside editable packages, so they are in a file of their own."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    versions = {line.lower() for line in lines if line and not line.startswith("#")}
    hashed: dict[str, list[str]] = {}
    for line in (ROOT / "hashes.txt").read_text().splitlines():
        if line and not line.startswith(("#", " ")):
            hashed[line.removesuffix(" \\").lower()] = []
        elif line.startswith(" "):
            [*hashed.values()][-1].append(line.strip(" \\"))
    without_torch = {line for line in versions if not line.startswith("torch==")}
    assert {line.replace("_", "-") for line in without_torch} == {*hashed}
    for version, hashes in hashed.items():
        assert hashes, version
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), version
    setup = (ROOT / "scripts" / "setup.sh").read_text()
    assert "--require-hashes -r hashes.txt" in setup


def test_all_distributions_have_one_version_and_a_readme():
    """scripts/release.sh sets it everywhere at once."""
    files = [
        "pyproject.toml",
        *(f"{one}/pyproject.toml" for one in ("LLaVA", "lmms_eval", "src/otprune-vllm")),
    ]
    projects = [tomllib.loads((ROOT / file).read_text())["project"] for file in files]
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), flags=re.M)
    assert cited is not None
    assert {one["version"] for one in projects} == {cited[1]}
    for file, project in zip(files, projects, strict=True):
        assert (ROOT / file).with_name(project["readme"]).is_file()
