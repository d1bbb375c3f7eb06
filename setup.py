"""Hand the metadata of settings.ini to setuptools."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

_ini = ConfigParser(delimiters=["="])
_ini.read(Path(__file__).parent / "settings.ini", encoding="utf-8")
meta = _ini["DEFAULT"]

setup(
    version=meta["version"],
    description=meta["description"],
    keywords=meta["keywords"].split(),
    author=meta["author"],
    author_email=meta["author_email"],
    python_requires=f">={meta['min_python']}",
    install_requires=meta["requirements"].split(),
    extras_require={"dev": meta["dev_requirements"].split()},
    packages=find_packages(include=[meta["lib_path"], f"{meta['lib_path']}.*"]),
    package_data={"": ["py.typed", "*.pyi"], "gridmm": ["page/*"]},
    entry_points={"console_scripts": meta["console_scripts"].split()},
)
