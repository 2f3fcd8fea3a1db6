"""``python -m pocketlm``: the same as the ``pocketlm`` command."""

import sys

from pocketlm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
