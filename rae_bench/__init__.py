"""rae_bench: how variational and Regularized Autoencoders compare, every number regenerated.

The question, the protocol and the objectives are those of Ghosh, Sajjadi, Vergari, Black and Schölkopf,
"From Variational to Deterministic Autoencoders" (ICLR 2020). Read from the `Snakefile` forwards.
"""

__version__ = "0.1.0"
