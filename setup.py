"""Hand the metadata of settings.ini to setuptools."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithRunbooks(build_py):
    """Build the package, and put the runbooks beside its modules: pages that take parameters, as they are written."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if self.editable_mode:
            return  # a checkout has them where they are written
        folder = Path(self.build_lib) / "gridmm" / "runbook_pages"
        for page in sorted((ROOT / "nbs" / "operations").glob("*.ipynb")):
            if '"parameters"' in page.read_text(encoding="utf-8"):
                self.mkpath(str(folder))
                self.copy_file(str(page), str(folder / page.name))


_ini = ConfigParser(delimiters=["="])
_ini.read(ROOT / "settings.ini", encoding="utf-8")
meta = _ini["DEFAULT"]

setup(
    version=meta["version"],
    description=meta["description"],
    keywords=meta["keywords"].split(),
    author=meta["author"],
    author_email=meta["author_email"],
    python_requires=f">={meta['min_python']}",
    install_requires=meta["requirements"].split(),
    extras_require={name: meta[f"{name}_requirements"].split() for name in ("dev", "ops")},
    packages=find_packages(include=[meta["lib_path"], f"{meta['lib_path']}.*"]),
    package_data={"": ["py.typed", "*.pyi"], "gridmm": ["page/*"]},
    cmdclass={"build_py": BuildWithRunbooks},
    entry_points={"console_scripts": meta["console_scripts"].split()},
)
