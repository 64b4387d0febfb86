"""`python -m orthrus_mlx.convert`: the converter without the rest of the command line."""

from __future__ import annotations

import argparse
import sys

from orthrus_mlx.errors import OrthrusError

from .cli import add_arguments, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m orthrus_mlx.convert", description=__doc__)
    add_arguments(parser)
    try:
        return run(parser.parse_args())
    except OrthrusError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
