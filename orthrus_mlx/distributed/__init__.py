"""One model over several machines, started by `mlx.launch` (docs/distributed.md).

Rank 0, the *leader*, runs the program; every other rank, a *follower*, repeats the leader's passes on its share of
the weights. All that is decided (tokens, policy, cancellation) is decided once, by the leader.
"""

from .job import Ranks, join
from .mirror import load

__all__ = ["Ranks", "join", "load"]
