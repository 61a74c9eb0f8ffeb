"""A plugin with one fault: the one that the environment's ``ACME_FAULT`` names."""

import os
from importlib import import_module

PASSES = import_module(f"{__name__}.{os.environ['ACME_FAULT']}").PASSES
