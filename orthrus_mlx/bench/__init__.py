"""`orthrus-mlx bench`: what block decoding gains on this machine, by workload, against two baselines measured with it.

Words: a *lane* is a way of decoding (a mode of this package, a block size, or mlx-lm). A *case* is a kind of text
(workload and format, or a length). A *round* is one prompt answered once by every lane, one lane after the other; the
unit of comparison, of storage and of resuming.
"""
