"""A hook of mkdocs: pages of the repository outside of docs/, a page for each method, links.

mkdocs.yml names this file. Nothing of the project is imported but `method_sources`, which reads the
methods' docstrings as text, so the site is built without torch.

- Pages of the repository that lie elsewhere (README files, results) are taken in below
  ``repository/``, with their pictures.
- Each built-in method has a page ``methods/NAME.md``, whose text mkdocstrings takes from its class.
- Relative links are turned to where pages are in the site. Files that are no page lead to
  ``extra.source`` of mkdocs.yml, the address of the repository's files; without one their path is
  shown instead.
"""

import importlib.util
import json
import logging
import posixpath
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

logger = logging.getLogger("mkdocs.hooks.site")

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = "repository/"
TAKEN_IN = (
    "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LLaVA/README.md", "lmms_eval/README.md",
    "LLaVA/checkpoints/*/README.md", "lmms_eval/checkpoints/*/README.md", "examples/README.md",
    "examples/*/README.md", "scripts/*/README.md", "results/README.md", "results/*/*.md",
)  # fmt: skip
"""Pages outside of docs/ that the site has."""

CAPABILITIES = ROOT / "src" / "otprune" / "hf" / "capabilities.json"
METHODS = "The methods"
REST = "More"
"""Sections of the navigation: of the methods' pages, and of pages that mkdocs.yml does not name."""

# Blocks of code, links and code within a line, whichever comes first; groups are those of links.
_CODE_OR_LINK = re.compile(
    r"^```.*?^```|(!?)\[((?:`[^`]*`|[^\[\]`])*)\]\(([^)\s]+)\)|`[^`\n]+`", re.S | re.M
)


def taken_in() -> list[str]:
    """Return the paths of the pages outside of docs/ that the site has."""
    found = {file.relative_to(ROOT).as_posix() for one in TAKEN_IN for file in ROOT.glob(one)}
    return sorted(found)


def pictures(pages: list[str]) -> list[str]:
    """Return the paths of the pictures outside of docs/ that pages show or lead to."""
    found = set()
    for page in [*pages, *(f"docs/{one.name}" for one in (ROOT / "docs").glob("*.md"))]:
        for _, _, target in _CODE_OR_LINK.findall((ROOT / page).read_text(encoding="utf-8")):
            path = _path(page, target.partition("#")[0])
            if path.endswith(".png") and not path.startswith("docs/") and (ROOT / path).is_file():
                found.add(path)
    return sorted(found)


def _path(page: str, target: str) -> str:
    """Return the path in the repository of a link's target, itself relative to a page."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), target))


def method_pages() -> dict[str, str]:
    """Return the text of each method's page by its name."""
    sources = _method_sources()
    capabilities = json.loads(CAPABILITIES.read_text(encoding="utf-8"))
    pages = {}
    for one in sources.built_in_methods():
        found = capabilities["methods"][one.name]
        budget = "" if one.kind == "layer pruner" else ", keep_ratio=0.1"
        pruned = f'otprune.hf.pruned(model, "{one.name}"{budget})  # with transformers'
        paper = sources.paper_of(one.text)
        arxiv = re.fullmatch(r"arXiv (\S+)", paper)
        if arxiv:
            paper = f"[{paper}](https://arxiv.org/abs/{arxiv[1]})"
        pages[one.name] = "\n".join((
            f"# {one.path.rpartition('.')[2]}",
            "",
            f"A {one.kind}" + (f", from {paper}." if paper else "."),
            "",
            "```python",
            *([pruned] if found["yes"] or found["original"] else []),
            f'otprune.make_pruner("{one.name}")',
            "```",
            "",
            f"::: {one.path}",
            "",
            *_where_it_runs(capabilities["families"], found),
        ))  # fmt: skip
    return pages


def _where_it_runs(families: list[str], found: Mapping[str, Any]) -> list[str]:
    """Return lines about the models of transformers that a method runs in."""
    runs = len(found["yes"]) + len(found["original"])
    lines = [
        "## Where it runs",
        "",
        f"With its defaults in {runs} of {len(families)} families of transformers, as found by "
        "running: [models.md](../models.md). Serving by vLLM: [serving.md](../serving.md).",
        "",
    ]
    if found["original"]:
        named = ", ".join(found["original"])
        lines += [f'- with `positions="original"` in {named}']
    for reason, refused in found["no"].items():
        lines += [f"- not in {', '.join(refused)}: {reason}"]
    return [*lines, ""]


def _method_sources() -> ModuleType:
    """Return the module that reads the methods' docstrings, without its package's imports."""
    if str(ROOT / "src") not in sys.path:
        sys.path.insert(0, str(ROOT / "src"))  # where it looks for the methods
    path = ROOT / "lmms_eval" / "otprune_lmms" / "cli" / "method_sources.py"
    spec = importlib.util.spec_from_file_location("method_sources", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def relinked(text: str, page: str, pages: Mapping[str, str], source: str) -> str:
    """Return a page's text with links that lead to where things are in the site.

    Args:
        text: in Markdown.
        page: its path in the repository.
        pages: places in the site by path in the repository, of pages and pictures.
        source: address of the repository's files, with a slash at its end; "" for none.
    """

    def link(found: re.Match[str]) -> str:
        mark, words, target = found.groups()
        if target is None or re.match(r"[a-z]+:|#", target):
            return found[0]
        file, _, anchor = target.partition("#")
        path = _path(page, file)
        if path in pages:
            place = posixpath.relpath(pages[path], posixpath.dirname(pages[page]) or ".")
            return f"{mark}[{words}]({place}{'#' + anchor if anchor else ''})"
        if source:
            return f"{mark}[{words}]({source}{path})"
        return words if posixpath.basename(path) in words else f"{words} (`{path}`)"

    return _CODE_OR_LINK.sub(link, text)


def _places(files: "Files") -> dict[str, str]:
    """Return places in the site by path in the repository."""
    found = {}
    for file in files:
        uri = file.src_uri
        found[uri.removeprefix(ELSEWHERE) if uri.startswith(ELSEWHERE) else f"docs/{uri}"] = uri
    return found


def on_config(config: "MkDocsConfig") -> "MkDocsConfig":
    """Fill the navigation: the methods' pages, and pages of docs/ that it does not name."""
    named = set(re.findall(r"[\w./-]+\.md", str(config.nav)))
    rest = sorted(one.name for one in (ROOT / "docs").glob("*.md") if one.name not in named)
    nav: list[Any] = list(config.nav or [])
    for section in nav:
        if METHODS in section:
            section[METHODS] = [
                *section[METHODS],
                *({name: f"methods/{name}.md"} for name in method_pages()),
            ]
    if rest:
        logger.info("not named in mkdocs.yml, so under %s: %s", REST, ", ".join(rest))
        nav.append({REST: rest})
    config.nav = nav
    return config


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the pages that do not lie in docs/, and their pictures."""
    # In .venv-docs alone; the tests of the other functions run without it.
    from mkdocs.structure.files import File

    pages = taken_in()
    for path in [*pages, *pictures(pages)]:
        files.append(File.generated(config, ELSEWHERE + path, abs_src_path=str(ROOT / path)))
    for name, text in method_pages().items():
        files.append(File.generated(config, f"methods/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: "Page", config: "MkDocsConfig", files: "Files") -> str:
    """Turn the links of a page."""
    uri = page.file.src_uri
    if uri.startswith("methods/"):
        return markdown
    path = uri.removeprefix(ELSEWHERE) if uri.startswith(ELSEWHERE) else f"docs/{uri}"
    return relinked(markdown, path, _places(files), str(config.extra.get("source", "")))
