"""The maker of bad and odd files, which also runs as a script and so is no module of a package."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def maker():
    spec = importlib.util.spec_from_file_location("bad_files", Path(__file__).with_name("bad_files.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module
