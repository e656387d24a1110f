"""Build the site with `python -m sphinx -W docs out_site` (extra `docs`)."""

import isnas_jax

project = "isnas_jax"
author = "the authors of isnas_jax"
version = release = isnas_jax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
html_theme = "furo"
html_title = "isnas_jax"
# Long tables are linked from pages and are in no table of contents. Attributes of several classes
# have one name, such as "image".
suppress_warnings = ["toc.not_included", "ref.python"]
templates_path: list[str] = []

# Docstrings follow Google's style; a class documents its fields under Attributes.
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "__init__"}
# Longer signatures have one parameter per line.
maximum_signature_line_length = 88

myst_heading_anchors = 3
# The notebook is stored without outputs; a test runs it.
nb_execution_mode = "off"
