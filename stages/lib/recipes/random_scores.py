"""Random scores: every weight is worth the same, so chance decides; the control that any method has to beat."""

import numpy as np
import numpy.typing as npt


def random_scores(size: int, seed: int, matrix: int) -> npt.NDArray[np.uint64]:
    """One number per weight, from the seed and the matrix's number. Shape: (size,).

    The generator's raw output is the same on every machine and in every version of numpy.
    """
    return np.random.Philox(key=np.array([seed, matrix], dtype=np.uint64)).random_raw(size)
