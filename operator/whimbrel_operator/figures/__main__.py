"""`python -m whimbrel_operator.figures DOCS CHARTFILES` writes docs/metrics.md and the chart's dashboard.json anew."""

import sys
from pathlib import Path

from whimbrel_operator.figures import dashboard, table


def main(arguments: list[str]) -> int:
    """Write both. Returns the exit code."""
    folders = [Path(each) for each in arguments]
    if len(folders) != 2 or not all(folder.is_dir() for folder in folders):
        sys.stderr.write("usage: python -m whimbrel_operator.figures DOCS CHARTFILES\n")
        return 2
    (folders[0] / "metrics.md").write_text(table.render(), encoding="utf-8")
    (folders[1] / "dashboard.json").write_text(dashboard.render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
