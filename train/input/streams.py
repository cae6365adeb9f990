"""Owns the random numbers of an epoch: a stream for each picture. What is drawn from it is `train.augment`'s."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator, Philox


class Streams:
    """One epoch's generator, put where a picture's stream begins.

    Philox counts (Salmon et al. 2011, SC11): its numbers are a function of a key and a counter, so a picture's stream
    is a place in the epoch's, found at once. A generator seeded for every picture takes four times as long to make as
    all that is drawn from it.
    """

    def __init__(self, seed: int, epoch: int) -> None:
        self._philox = Philox(key=np.array([seed, epoch], np.uint64))
        self._generator = Generator(self._philox)
        self._beginning = self._philox.state

    def of(self, index: int) -> Generator:
        """The generator at the beginning of picture `index`'s stream, which has room for 2⁶⁴ × 4 numbers.

        It is the same object each time: a stream is over when the next one begins.
        """
        # The counter's lowest word counts the numbers drawn, the next the pictures.
        self._beginning["state"]["counter"][1] = index
        self._philox.state = self._beginning
        return self._generator
