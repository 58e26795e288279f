"""`python -m vcjax` and the `vcjax` command."""

import sys

from vcjax.cli import main as main


if __name__ == "__main__":
    sys.exit(main())
