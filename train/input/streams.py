"""Owns the random numbers of an epoch: a stream for each draw of a picture; what they decide is `train/augment/`'s."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator, Philox


class Streams:
    """One epoch's generator, set to where a picture's stream begins.

    Philox (Salmon et al. 2011, SC11) computes its numbers from a key and a counter, so a draw's stream is a value of
    the counter, reached at once. Seeding a generator for every picture takes four times as long as all that is drawn
    from it.
    """

    def __init__(self, seed: int, epoch: int) -> None:
        self._philox = Philox(key=np.array([seed, epoch], np.uint64))
        self._generator = Generator(self._philox)
        self._beginning = self._philox.state

    def of(self, draw: int) -> Generator:
        """The generator at the beginning of a draw's stream, which has room for 2⁶⁴ × 4 numbers.

        The first draw of picture i in an epoch is i; `train.input.order.tell_apart` numbers the others.

        It is the same object each time: a stream ends when the next one begins.
        """
        # The counter's lowest word counts the numbers drawn, the next the draws of pictures.
        self._beginning["state"]["counter"][1] = draw
        self._philox.state = self._beginning
        return self._generator
