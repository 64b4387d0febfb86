"""`python -m orthrus_mlx.training.corpus`: print samples of the corpus."""

from __future__ import annotations

import argparse
from random import Random

from orthrus_mlx.training.corpus import FAMILIES, generate, heldout, render_document


def main() -> None:
    """Print training documents, or held-out examples with what the checker expects."""
    parser = argparse.ArgumentParser(prog="python -m orthrus_mlx.training.corpus", description=main.__doc__)
    parser.add_argument("--count", type=int, default=20, help="how many samples (default 20)")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives other samples (default 1)")
    parser.add_argument("--family", choices=FAMILIES, help="one family only; by the mix when left out")
    parser.add_argument("--heldout", action="store_true", help="held-out examples instead of training documents")
    parser.add_argument("--unseen", action="store_true", help="with --heldout: in wordings never trained on")
    options = parser.parse_args()
    if options.heldout:
        family = options.family or "reasoning"
        examples = heldout(family, options.count, options.seed, options.unseen)
    else:
        rng = Random(options.seed)
        examples = [generate(rng, options.family) for _ in range(options.count)]
    for example in examples:
        print(f"# {example.family}/{example.paraphrase} expects {example.expected}")
        print(render_document(example), end="\n\n")


if __name__ == "__main__":
    main()
