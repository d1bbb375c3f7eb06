"""MkDocs hook: notebooks, schema and package become the pages of the site.

Each notebook becomes one Markdown page in memory, so admonitions, diagrams, formulas, links, search
and `--strict` treat it like a page written by hand. What its cells printed is set aside and put back
after the Markdown step: Markdown never touches an output. Nothing but this file and `mkdocs.yml`
knows the site generator.
"""

from __future__ import annotations

import html
import json
import logging
import posixpath
import re
import subprocess
import sys
from configparser import ConfigParser
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from nbconvert.filters import ansi2html

# MkDocs loads a hook by its path and puts nothing on sys.path.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import configdoc, proto, protodoc, results
from tools.notebooks import PACKAGE, Cell, Notebook, notebooks

# A warning of a logger below "mkdocs" fails a --strict build.
log = logging.getLogger("mkdocs.hooks.notebooks")

PART_TITLES = {
    "design": "Architecture & Design",
    "reference": "Technical Reference",
    "operations": "Operations Guide",
}
DECISIONS = "design/decisions"
CONFIGURATION = "reference/configuration.md"
MODEL = "reference/data_model.md"
RESULTS = "reference/results.md"
CHANGES = "reference/changes.md"

_UNSEEN = frozenset({"hide", "default_exp", "default_cls_lvl", "exporti"})
_SHOW_DOC = re.compile(r"^show_doc\(\s*(?P<name>[\w.]+)\s*[,)]")
_HOLE = re.compile(r'<div class="(?P<kind>nb-output[\w -]*)" data-output="(?P<key>[\w.-]+)"></div>')
_FOREIGN_LOADER = re.compile(r"https://unpkg\.com/[\w@./-]+")


class NotebookFile(File):
    """A page whose source is a notebook, so that links to `x.ipynb#anchor` are links to the page."""

    def is_documentation_page(self) -> bool:
        """Notebooks are pages to MkDocs."""
        return True


@dataclass
class Rendered:
    """A notebook as Markdown, and the outputs that were set aside."""

    markdown: str
    outputs: dict[str, str] = field(default_factory=dict)


class _Site:
    """What one build knows."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.notebooks = notebooks(root)
        self.by_uri = {nb.name: nb for nb in self.notebooks}
        exported = (nb.module for nb in self.notebooks if nb.module)
        self.modules = [module for module in exported if (root / PACKAGE / f"{module}.py").exists()]
        self.rendered: dict[str, Rendered] = {}


_site: _Site


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Read the package's metadata and say in the footer what the site was built from."""
    global _site
    root = Path(config.config_file_path).parent
    _site = _Site(root)
    ini = ConfigParser(delimiters=["="])
    ini.read(root / "settings.ini", encoding="utf-8")
    meta = ini["DEFAULT"]
    config.site_description = meta["description"]
    config.copyright = f"{meta['lib_name']} {meta['version']}, built from {_commit(root)}"
    config.watch = [*config.watch, *(str(root / name) for name in ("nbs", "proto", PACKAGE))]
    return config


def _commit(root: Path) -> str:
    """Name the commit, and say so where the tree differs from it."""
    try:
        command = ["git", "describe", "--always", "--dirty=-modified", "--exclude=*"]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "an unknown commit"
    return f"commit {done.stdout.strip()}" if done.returncode == 0 else "an unknown commit"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every page that is made rather than written, and the navigation over all of them."""
    for nb in _site.notebooks:
        _site.rendered[nb.name] = rendered = render(nb)
        page = NotebookFile.generated(config, nb.name, content=rendered.markdown)
        if nb.slug != "index":
            page.dest_uri = posixpath.join(nb.part, nb.slug, "index.html")
        files.append(page)
        files.append(_copy(config, f"notebooks/{nb.name}", nb.path))
    for module in _site.modules:
        name = f"{PACKAGE}.{module}"
        files.append(
            File.generated(config, f"reference/api/{module}.md", content=f"# {name}\n\n::: {name}\n")
        )
        files.append(_copy(config, f"source/{module}.py", _site.root / PACKAGE / f"{module}.py"))
    if configdoc.present(_site.root):
        files.append(_configuration(config))
    if proto.sources(_site.root):
        try:
            model = protodoc.page(_site.root)
        except ValueError as problem:
            raise PluginError(str(problem)) from None
        files.append(File.generated(config, MODEL, content=model))
    try:
        measured = results.page(_site.root)
    except ValueError as problem:
        raise PluginError(str(problem)) from None
    files.append(File.generated(config, RESULTS, content=measured))
    changes = _site.root / "CHANGELOG.md"
    if changes.exists():
        files.append(File.generated(config, CHANGES, content=changes.read_text(encoding="utf-8")))
    records = _records(files)
    if records:
        files.append(File.generated(config, f"{DECISIONS}/index.md", content=_decisions(records)))
    for uri, path in _vendored(config).items():
        files.append(_copy(config, uri, path))
    config.nav = _navigation(files, records)
    return files


def _configuration(config: MkDocsConfig) -> File:
    """Write the page of every parameter, its pictures set aside like the outputs of a notebook."""
    try:
        written = configdoc.page(_site.root)
    except ValueError as problem:
        raise PluginError(str(problem)) from None
    pictures = {key: _figure(CONFIGURATION, figure) for key, figure in written.figures.items()}
    _site.rendered[CONFIGURATION] = Rendered(written.markdown, pictures)
    return File.generated(config, CONFIGURATION, content=written.markdown)


def _copy(config: MkDocsConfig, uri: str, path: Path) -> File:
    return File.generated(config, uri, abs_src_path=str(path), inclusion=InclusionLevel.NOT_IN_NAV)


def _records(files: Files) -> list[File]:
    found = (f for f in files.documentation_pages() if f.src_uri.startswith(f"{DECISIONS}/"))
    return sorted(found, key=lambda f: f.src_uri)


def _decisions(records: list[File]) -> str:
    """List the decision records with the sentence that each decides."""
    rows = ["# Decisions", "> What was chosen, what for, and how to leave it", ""]
    rows += ["| No. | Decision | In one sentence |", "| --- | --- | --- |"]
    for record in records:
        text = record.content_string
        title = re.search(r"^# +(.+)$", text, re.M)
        gist = re.search(r"^> *(.+)$", text, re.M)
        if not title or not gist:
            log.warning(f"{record.src_uri} needs a title (# ...) and below it one sentence (> ...)")
            continue
        name = posixpath.basename(record.src_uri)
        rows.append(f"| {name[:4]} | [{title[1]}]({name}) | {gist[1]} |")
    return "\n".join(rows) + "\n"


def _vendored(config: MkDocsConfig) -> dict[str, Path]:
    """Name the scripts of others that some page needs, and where their packages keep them."""
    import plotly

    modules = Path(__file__).resolve().parent / "web" / "node_modules"
    katex = modules / "katex" / "dist"
    mermaid = modules / "@mermaid-js" / "tiny" / "dist" / "mermaid.tiny.js"
    if not mermaid.exists() or not katex.exists():
        raise PluginError(
            "The scripts that draw diagrams and formulas are not installed in tools/web. "
            "Run `make setup` (npm fetches them as pinned in tools/web/package-lock.json)."
        )
    found = {
        "vendor/plotly.min.js": Path(plotly.__file__).parent / "package_data" / "plotly.min.js",
        "vendor/mermaid.js": mermaid,
        "vendor/katex/katex.min.js": katex / "katex.min.js",
        "vendor/katex/katex.min.css": katex / "katex.min.css",
    }
    found |= {f"vendor/katex/fonts/{font.name}": font for font in (katex / "fonts").iterdir()}
    return found


def _navigation(files: Files, records: list[File]) -> list[Any]:
    """Order the pages as their numbers do."""
    nav: list[Any] = [{"Home": nb.name} for nb in _site.notebooks if nb.name == "index.ipynb"]
    for part, title in PART_TITLES.items():
        pages: list[Any] = [nb.name for nb in _site.notebooks if nb.part == part]
        if part == "design" and records:
            pages.append({"Decisions": [f"{DECISIONS}/index.md", *(r.src_uri for r in records)]})
        if part == "reference":
            pages += [uri for uri in (CONFIGURATION, MODEL) if files.get_file_from_path(uri)]
            if modules := _site.modules:
                pages.append({"API": [f"reference/api/{module}.md" for module in modules]})
            pages += [uri for uri in (RESULTS, CHANGES) if files.get_file_from_path(uri)]
        if pages:
            nav.append({title: pages})
    return nav


def render(nb: Notebook) -> Rendered:
    """Turn a notebook into Markdown with holes where its outputs go."""
    parts: list[str] = []
    outputs: dict[str, str] = {}
    for cell in nb.cells:
        if cell.kind == "markdown":
            parts.append(cell.text)
        elif cell.kind == "code" and cell.code.strip() and _UNSEEN.isdisjoint(cell.directives):
            if shown := _SHOW_DOC.match(cell.code):
                name = shown["name"]
                full = name if name.startswith(f"{PACKAGE}.") else f"{PACKAGE}.{nb.module}.{name}"
                # The API page is the address of the name; here it is only shown.
                parts.append(
                    f"::: {full}\n    options:\n      skip_local_inventory: true\n      show_source: false\n"
                )
                continue
            if cell.directives.get("echo") != "false" and "hide_input" not in cell.directives:
                parts.append(_source(nb, cell))
            if cell.directives.get("output") != "false" and "hide_output" not in cell.directives:
                parts.extend(_outputs(nb, cell, outputs))
    return Rendered("\n\n".join(parts) + "\n", outputs)


def _source(nb: Notebook, cell: Cell) -> str:
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", cell.code)), default=0))
    shown_export = cell.exports and nb.part == "design"
    label = f' title="{PACKAGE}.{nb.module}"' if shown_export else ""
    block = f"{ticks}python{label}\n{cell.code}\n{ticks}"
    imports_only = cell.exports and all(type(n).__name__ in ("Import", "ImportFrom") for n in cell.tree.body)
    if imports_only:
        title = "Imports"
    elif "code-summary" in cell.directives:
        title = cell.directives["code-summary"]
    elif cell.exports and not shown_export:
        title = f"Source, in {PACKAGE}.{nb.module}"
    elif cell.directives.get("code-fold") == "true":
        title = "Code"
    else:
        return block
    indented = "\n".join(f"    {line}" if line else "" for line in block.splitlines())
    return f'??? code "{title}"\n\n{indented}'


def _outputs(nb: Notebook, cell: Cell, aside: dict[str, str]) -> list[str]:
    holes = []
    for number, output in enumerate(cell.outputs):
        if output["output_type"] == "stream" and output["name"] == "stderr":
            continue
        data = output.get("data", {})
        markdown = next((m for m in ("text/markdown", "text/latex") if m in data), None)
        if markdown and not {"text/html", "application/vnd.plotly.v1+json"} & data.keys():
            holes.append("".join(data[markdown]))
            continue
        key = f"{cell.index}-{number}"
        aside[key] = _output_html(nb, cell, output)
        holes.append(f'<div class="nb-output" data-output="{key}"></div>')
    return holes


def _output_html(nb: Notebook, cell: Cell, output: dict[str, Any]) -> str:
    """Render one output that is not Markdown."""
    kind = output["output_type"]
    if kind == "stream":
        return f"<pre>{ansi2html(''.join(output['text']))}</pre>"
    if kind == "error":
        return f'<pre class="nb-error">{ansi2html(chr(10).join(output["traceback"]))}</pre>'
    data = output["data"]
    if figure := data.get("application/vnd.plotly.v1+json"):
        return _figure(nb.where(cell), figure)
    if "image/svg+xml" in data:
        return f'<div class="nb-picture">{"".join(data["image/svg+xml"])}</div>'
    for mime in ("image/png", "image/jpeg"):
        if mime in data:
            encoded = "".join(data[mime]).replace("\n", "")
            alt = html.escape("".join(data.get("text/plain", "picture")))
            return f'<div class="nb-picture"><img alt="{alt}" src="data:{mime};base64,{encoded}"></div>'
    if "text/html" in data:
        return f'<div class="nb-html">{"".join(data["text/html"])}</div>'
    return f"<pre>{ansi2html(''.join(data.get('text/plain', '')))}</pre>"


def _figure(where: str, figure: dict[str, Any]) -> str:
    """Render a plotly figure as data that the page draws, with its title as the text alternative."""
    layout = figure.get("layout", {})
    title = layout.get("title", "")
    text = title.get("text", "") if isinstance(title, dict) else title
    if not text:
        log.warning(
            f"{where} shows a figure without a title, which a screen reader cannot see. "
            "Give it one that says what the figure shows."
        )
    label = html.escape(re.sub(r"<[^>]+>", " ", text))
    body = json.dumps({"data": figure.get("data", []), "layout": layout}).replace("</", "<\\/")
    height = layout.get("height", 380)
    return (
        f'<figure class="nb-figure" role="img" aria-label="{label}" style="min-height:{height}px">'
        f'<script type="application/json">{body}</script><noscript>{label}</noscript></figure>'
    )


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the links to the notebook and its module below the title."""
    nb = _site.by_uri.get(page.file.src_uri)
    if nb is None or not nb.part:
        return markdown
    depth = "../" * (nb.name.count("/"))
    links = [f"[Notebook {nb.path.name}]({depth}notebooks/{nb.name}){{ download={nb.path.name} }}"]
    if nb.module in _site.modules:
        links.append(f"[Source {PACKAGE}/{nb.module}.py]({depth}source/{nb.module}.py)")
        links.append(f"[API]({depth}reference/api/{nb.module}.md)")
    bar = f'<div class="nb-links" markdown>{" ".join(links)}</div>'
    return re.sub(r"^# .*$", lambda title: f"{title[0]}\n\n{bar}\n", markdown, count=1, flags=re.M)


def on_page_content(content: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the outputs back where they belong."""
    rendered = _site.rendered.get(page.file.src_uri)
    if rendered is None:
        return content
    left = dict(rendered.outputs)
    content = _HOLE.sub(lambda hole: f'<div class="{hole["kind"]}">{left.pop(hole["key"])}</div>', content)
    if left:
        raise PluginError(f"{page.file.src_uri}: outputs of cells {sorted(left)} found no place on the page")
    return content


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Load a script of others only where the page needs it, and always from this site."""
    up = posixpath.relpath("vendor", posixpath.dirname(page.file.dest_uri) or ".")
    head = ""
    if '<pre class="mermaid">' in output:
        # Before the theme's own script, which otherwise asks a foreign host for it.
        head += f'<script src="{up}/mermaid.js"></script>'
    if 'class="arithmatex"' in output:
        head += f'<link rel="stylesheet" href="{up}/katex/katex.min.css">'
        head += f'<script src="{up}/katex/katex.min.js"></script>'
    if 'class="nb-figure"' in output:
        head += f'<script src="{up}/plotly.min.js" defer></script>'
    return output.replace("</head>", f"{head}</head>", 1)


def on_post_build(*, config: MkDocsConfig) -> None:
    """Take the addresses of foreign hosts out of the theme's script: there is nothing to fall back to."""
    for bundle in Path(config.site_dir).glob("assets/javascripts/bundle.*.js"):
        text = bundle.read_text(encoding="utf-8")
        bundle.write_text(_FOREIGN_LOADER.sub("data:,", text), encoding="utf-8")
