"""The site builds, says what it was built from, and asks no other host for anything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from browser import Browser, Tab, chromium, program, serve
from gridmm.effects import EFFECTS
from gridmm.schema import catalogue
from gridmm.settings import Settings
from planted import Project, result, sample
from tools.notebooks import ROOT, notebooks

# What makes a browser fetch something by itself; a link that a reader may follow is not among them.
LOADING = {
    "script": ("src",),
    "link": ("href",),
    "img": ("src", "srcset"),
    "source": ("src", "srcset"),
    "iframe": ("src",),
    "video": ("src", "poster"),
    "audio": ("src",),
    "object": ("data",),
    "embed": ("src",),
    "use": ("href", "xlink:href"),
    "image": ("href", "xlink:href"),
}
NOT_FETCHED = {"canonical", "next", "prev", "alternate", "license", "author", "search"}
FOREIGN = re.compile(r"(?:https?:)?//(?P<host>[\w.-]+)")
CSS_LOAD = re.compile(r"""(?:url\(|@import)\s*['"]?(?P<url>[^'")\s;]+)""")
SCRIPT_LOAD = re.compile(r"""["'`]https?://[\w.-]+/[\w@./-]*\.(?:js|mjs|css|json|wasm|woff2?)\b""")


class _Loads(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.in_style = tag == "style"
        self.urls += CSS_LOAD.findall(values.get("style", ""))
        if tag == "link" and NOT_FETCHED & set(values.get("rel", "").split()):
            return
        self.urls += [values[key] for key in LOADING.get(tag, ()) if values.get(key)]

    def handle_data(self, data: str) -> None:
        if self.in_style:
            self.urls += CSS_LOAD.findall(data)

    def handle_endtag(self, tag: str) -> None:
        self.in_style = False


def foreign_loads(site: Path) -> list[str]:
    """List what the files of a site would fetch from another host."""
    found = []
    for path in sorted(site.rglob("*")):
        name = path.relative_to(site).as_posix()
        if path.suffix == ".html":
            parser = _Loads()
            parser.feed(path.read_text(encoding="utf-8"))
            urls = [url for url in parser.urls if FOREIGN.match(url.strip())]
        elif path.suffix == ".css":
            urls = [url for url in CSS_LOAD.findall(path.read_text(encoding="utf-8")) if FOREIGN.match(url)]
        elif path.suffix == ".js" and not name.startswith("vendor/"):
            # Vendored libraries name hosts for features that no page uses; the browser test watches them.
            urls = SCRIPT_LOAD.findall(path.read_text(encoding="utf-8"))
        else:
            continue
        found += [f"{name}: {url}" for url in urls]
    return found


def build(root: Path) -> tuple[bool, str]:
    """Build a site; tell whether it succeeded, and what it complained about."""
    # Not --quiet: it silences the warnings that --strict counts.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    return done.returncode == 0, "\n".join(line for line in lines if not line.startswith("INFO"))


@pytest.fixture(scope="module")
def site() -> Path:
    """The site of this checkout, built where `make docs` builds it: `make test` builds it here, and nowhere else."""
    built, complaints = build(ROOT)
    if not built:
        pytest.fail(complaints, pytrace=False)
    return ROOT / "site"


def pages(site: Path) -> list[str]:
    return sorted(
        path.relative_to(site).as_posix().removesuffix("index.html") for path in site.rglob("*.html")
    )


def test_name_is_address(site: Path) -> None:
    for nb in notebooks():
        address = site / nb.part / ("" if nb.slug == "index" else nb.slug) / "index.html"
        assert address.exists(), f"{nb.name} has no page at {address.relative_to(site)}"


def test_every_page_says_what_it_was_built_from(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert re.search(r"gridmm \S+, built from (commit [0-9a-f]+|an unknown commit)", page.read_text()), (
            page
        )


def test_no_file_names_a_foreign_load(site: Path) -> None:
    assert foreign_loads(site) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<script src="https://cdn.example.org/x.js"></script>'),
        ("a.html", '<link rel="stylesheet" href="//fonts.example.org/x">'),
        ("a.html", '<p style="background: url(https://example.org/x.png)">'),
        ("a.html", "<style>@import 'https://example.org/x.css';</style>"),
        ("a.css", "body { background: url(https://example.org/x.png) }"),
        ("a.js", 'load("https://cdn.example.org/x.min.js")'),
    ],
)
def test_foreign_load_guard(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "b.html").write_text(
        '<a href="https://example.org/x.js">a link</a> <link rel="canonical" href="https://x.org/">'
    )
    assert foreign_loads(tmp_path) == []
    (tmp_path / name).write_text(text)
    assert len(foreign_loads(tmp_path)) == 1


FIGURE = {
    "data": [{"type": "scatter", "x": [1, 2], "y": [1, 4]}],
    "layout": {"title": {"text": "Twice two"}, "xaxis": {"title": {"text": "x"}}},
}
MERMAID = "md:```mermaid\nflowchart LR\n  a --> b\n```"


def figure(layout: dict[str, object]) -> list[dict[str, object]]:
    shown = {"data": FIGURE["data"], "layout": layout}
    data = {"application/vnd.plotly.v1+json": shown, "text/plain": "Figure"}
    return [{"output_type": "display_data", "data": data, "metadata": {}}]


def rich(project: Project) -> None:
    """Add a page with one of everything."""
    stream = [{"output_type": "stream", "name": "stdout", "text": "*a* <b> & [c](d) `e` $f$\n"}]
    project.notebook(
        "design/12_double.ipynb",
        "#| default_exp double",
        "md:# Double\n> Twice as much",
        "#| export\nimport math",
        '#| export\ndef double(x: int) -> int:\n    """Return twice `x`."""\n    return 2 * x',
        "md:## Use\n\nSee [tables](../reference/30_table.ipynb#rows) and [double][gridmm.double.double].",
        ("double(2)", result("4")),
        ("print('x')", stream),
        "#| hide\nsecret = 'unseen'",
        ("fig", figure(FIGURE["layout"])),  # type: ignore[arg-type]
        MERMAID,
        "md:Inline \\(a^2\\) and\n\n$$\\frac{a}{b}$$",
        "show_doc(double)",
    )
    html = [{"output_type": "display_data", "data": {"text/html": "<table><tr><td>1</td></tr></table>"}}]
    html[0]["metadata"] = {}
    project.notebook(
        "reference/30_table.ipynb",
        "#| default_exp table",
        "md:# Table\n> Rows of things",
        "#| export\ndef row() -> int:\n    return 1",
        "md:## Rows",
        ("row()", html),
    )
    for module, text in (("double", "Twice as much"), ("table", "Rows of things")):
        code = f'"""{text}"""\n\n__all__ = ["double", "row"]\n\n\n'
        code += 'def double(x: int) -> int:\n    """Return twice `x`."""\n    return 2 * x\n\n\n'
        code += 'def row() -> int:\n    """Return one."""\n    return 1\n'
        project.write(f"gridmm/{module}.py", code)
    project.write("docs/design/decisions/0001-two.md", "# Two\n> Two is enough.\n\nBecause.\n")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A small project with a page that has one of everything, and its site."""
    made = sample(tmp_path_factory.mktemp("rich"))
    rich(made)
    built, complaints = build(made.root)
    assert built, complaints
    return made


def test_a_notebook_becomes_a_page(project: Project) -> None:
    page = (project.root / "site" / "design" / "double" / "index.html").read_text(encoding="utf-8")
    assert "*a* &lt;b&gt; &amp; [c](d) `e` $f$" in page, "Markdown touched an output"
    assert "unseen" not in page
    assert 'role="img" aria-label="Twice two"' in page
    assert 'href="../../reference/table/#rows"' in page
    assert 'href="../../reference/api/double/#gridmm.double.double"' in page
    assert "<summary>Imports</summary>" in page
    assert "<summary>Source, in" not in page, "design shows its code"
    assert page.count("vendor/mermaid.js") == page.count("vendor/katex/katex.min.js") == 1
    for name in ("notebooks/design/12_double.ipynb", "source/double.py"):
        assert f"../../{name}" in page and (project.root / "site" / name).exists()
    other = (project.root / "site" / "reference" / "table" / "index.html").read_text(encoding="utf-8")
    assert "<summary>Source, in gridmm.table</summary>" in other, "reference folds it"
    assert "<td>1</td>" in other and "vendor/" not in other
    index = (project.root / "site" / "design" / "decisions" / "index.html").read_text(encoding="utf-8")
    assert "Two is enough." in index and 'href="0001-two/"' in index
    search = json.loads((project.root / "site" / "search" / "search_index.json").read_text(encoding="utf-8"))
    assert not [d for d in search["docs"] if "scatter" in d["text"]], "a figure's data is found by search"
    titles = re.findall(r'<span class="md-ellipsis">\s*([^<]+?)\s*</span>', page)
    assert titles.index("Double") < titles.index("Decisions")


PROBLEMS: dict[str, tuple[str | tuple[str, list[dict[str, Any]]], str]] = {
    "page": ("md:[gone](../reference/31_gone.ipynb)", "31_gone.ipynb"),
    "other": ("md:[gone](../index.ipynb#other)", "#other"),
    "own": ("md:[gone](#own)", "#own"),
    "name": ("md:[gone][gridmm.double.gone]", "gridmm.double.gone"),
    "title": (("fig", figure({})), "figure without a title"),
}


def test_a_strict_build_warns_of_every_problem_and_fails(tmp_path: Path) -> None:
    """Each is a warning of its own, and one warning is enough: the same project without them builds."""
    project = sample(tmp_path)
    built, complaints = build(project.root)
    assert built, complaints
    for number, (name, (cell, _)) in enumerate(PROBLEMS.items(), start=30):
        project.notebook(f"reference/{number}_{name}.ipynb", "md:# Table", cell)
    built, complaints = build(project.root)
    assert not built
    warnings = [line for line in complaints.splitlines() if line.startswith("WARNING")]
    for name, (_, problem) in PROBLEMS.items():
        assert [line for line in warnings if problem in line and f"_{name}.ipynb" in line], complaints
    assert f"Aborted with {len(PROBLEMS)} warnings" in complaints


def test_an_uncommented_schema_fails_the_build(tmp_path: Path) -> None:
    project = sample(tmp_path)
    schema = 'syntax = "proto3";\npackage gridmm.v1;\n\nmessage Grid {}\n'
    project.write("proto/gridmm/v1/grid.proto", schema)
    built, complaints = build(project.root)
    assert not built and "grid.proto:4" in complaints


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium(program()) as running:
        yield running


@pytest.mark.timeout(600)
def test_pages_in_a_browser(site: Path, browser: Browser) -> None:
    with serve(site) as address:
        seen = browser.visit(address, pages(site))
    assert [problem for page in seen for problem in page.problems] == []


PAGE = "reference/configuration/"
# What people type: the name of the parameter, and the spelling of other programs.
SEARCHED = {
    "price_interval": ("PriceInterval", "price_interval"),
    "volatility_scale": ("VolatilityScale", "volatility_scale"),
    "skew_factor": ("SkewFactor", "skew_factor"),
    "grid_size": ("GridSize", "grid_size"),
}
TYPE = """((text) => {
  const field = document.querySelector('[data-md-component=search-query]');
  field.focus();
  field.value = text;
  field.dispatchEvent(new Event('input', { bubbles: true }));
  field.dispatchEvent(new KeyboardEvent('keyup', { bubbles: true }));
  return true;
})"""
FOUND = """(() => [...document.querySelectorAll('.md-search-result__link')]
  .map((link) => new URL(link.href)).filter((url) => url.search === %s)
  .map((url) => url.pathname.slice(1) + url.hash))()"""


async def looked_up(tab: Tab, text: str, wanted: str) -> list[str]:
    """Type into the site's search until `wanted` is among what is found; return all that is, best first."""
    asked = json.dumps(f"?h={text.lower()}")
    await tab.read(f"{TYPE}({json.dumps(text)})")
    return list(await tab.until(f"({FOUND % asked}).includes({json.dumps(wanted)}) && {FOUND % asked}"))


@pytest.mark.timeout(120)
def test_the_search_finds_a_parameter_by_each_of_its_spellings(site: Path, browser: Browser) -> None:
    best: dict[str, str] = {}

    async def look(tab: Tab) -> None:
        await tab.width(1280)
        for name, spellings in SEARCHED.items():
            for text in spellings:
                best[text] = (await looked_up(tab, text, f"{PAGE}#grid.{name}"))[0]
        assert "design/center/#the-centre-as-a-price" in await looked_up(
            tab, "CenterPrice", "design/center/#the-centre-as-a-price"
        )

    with serve(site) as address:
        browser.act(address, look)
    assert best == {text: f"{PAGE}#grid.{name}" for name, texts in SEARCHED.items() for text in texts}


@pytest.mark.timeout(60)
def test_the_search_finds_nothing_where_there_is_nothing(site: Path, browser: Browser) -> None:
    async def look(tab: Tab) -> None:
        with pytest.raises(AssertionError, match="never came true"):
            await tab.read(f"{TYPE}('VolatilityScaly')")
            await tab.until(f"({FOUND % json.dumps('?h=volatilityscaly')}).length", timeout_s=5)

    with serve(site) as address:
        browser.act(address, look)


def test_every_parameter_has_an_anchor_and_every_picture_is_drawn(site: Path, browser: Browser) -> None:
    html = (site / PAGE / "index.html").read_text(encoding="utf-8")
    found = re.findall(r'<h3 id="([\w.]+)"', html)
    assert sorted(found) == sorted(p.key for p in catalogue(Settings))
    with serve(site) as address:
        (page,) = browser.visit(address, [PAGE])
    assert page.problems == [] and page.figures == len(EFFECTS) == html.count('class="nb-figure"')


@pytest.mark.timeout(300)
def test_everything_is_drawn(project: Project, browser: Browser) -> None:
    with serve(project.root / "site") as address:
        (page,) = browser.visit(address, ["design/double/"])
    assert page.problems == []
    assert (page.figures, page.formulas, page.diagrams) == (1, 2, 1)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('<img src="http://cdn.example.org/x.png">', "cdn.example.org"),
        ("<script>fetch('http://192.0.2.1/').catch(() => 0)</script>", "192.0.2.1"),
        ("<script>console.error('planted')</script>", "planted"),
        ("<script>throw new Error('thrown')</script>", "thrown"),
        ('<img src="gone.png">', "gone.png"),
        ('<p style="width: 2000px">wide</p>', "wider than a phone"),
    ],
)
def test_browser_guard(tmp_path: Path, browser: Browser, body: str, problem: str) -> None:
    (tmp_path / "index.html").write_text(f"<!doctype html><link rel='icon' href='data:,'><body>{body}</body>")
    with serve(tmp_path) as address:
        (page,) = browser.visit(address, [""])
    assert any(problem in text for text in page.problems), page.problems
