"""`python3 -m testbed` from tests/cluster, or `python3 tests/cluster/testbed` from anywhere."""

import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# isort: split
from testbed.cli import main

if __name__ == "__main__":
    sys.exit(main())
