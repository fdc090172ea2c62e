"""Loads the shared fixtures, which stand in fix_*.py beside this file; it defines none itself."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = sorted(path.stem for path in Path(__file__).parent.glob("fix_*.py"))
