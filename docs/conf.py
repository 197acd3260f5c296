"""How Sphinx builds the site; `make docs` runs it, and fails on what it warns of."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

project = "Relive"
author = "the Relive contributors"
version = release = version_of("relive")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "infra.site.sources",
]
exclude_patterns = ["conf.py"]
suppress_warnings = ["myst.header"]

myst_heading_anchors = 4
# The docstrings are plain text with `code`, in Google's sections.
default_role = "code"
napoleon_use_ivar = True
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 88

# Furo brings its own styles and scripts, and uses the reader's fonts: nothing comes from elsewhere.
html_theme = "furo"
html_title = f"Relive {version}"
html_copy_source = False
html_show_sphinx = False
