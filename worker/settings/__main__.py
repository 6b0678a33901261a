"""`python -m worker.settings` prints the table of settings; `--write README.md` puts it between that file's markers."""

import argparse
import sys
from pathlib import Path

from worker.settings.table import settings_table, write_table


def main() -> None:
    """Print or write the table."""
    parser = argparse.ArgumentParser(prog="python -m worker.settings", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE", help="file with the two markers")
    path: Path | None = parser.parse_args().write
    if path is None:
        sys.stdout.write(settings_table() + "\n")
    else:
        write_table(path)


if __name__ == "__main__":
    main()
