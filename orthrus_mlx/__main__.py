"""`python -m orthrus_mlx`: the command line where its script is not on the PATH."""

import sys

from .cli.main import main

sys.exit(main())
