"""How much a scan's header gives away about its contrast: what routing by contrast has to be compared with.

A router that separates contrasts may have learned the scanner, the matrix or the number of coils instead. The measures
here take no image at all, so whatever they reach needs no look at the anatomy.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_mutual_info_score


def association(labels: Sequence[str], factor: Sequence[Hashable]) -> float:
    """Adjusted mutual information of two labellings: 1 if each names the other, 0 on average by chance.

    Source: Vinh, Epps, Bailey, J. Mach. Learn. Res. 11 (2010) 2837.
    """
    return float(adjusted_mutual_info_score(_codes(labels), _codes(factor)))


def guess_from(labels: Sequence[str], factor: Sequence[Hashable]) -> float:
    """Balanced accuracy of naming each volume's label from its `factor` alone, from 0 to 1.

    Each volume is guessed from all others (leave one out): the label most frequent among those of equal factor,
    relative to how frequent that label is overall; ties count as their share. Chance is one over the number of labels.
    """
    label, group = _codes(labels), _codes(factor)
    sizes = np.bincount(label)
    table = np.zeros((group.max() + 1, len(sizes)))
    np.add.at(table, (group, label), 1)
    # Row i: the other volumes with the factor of volume i, by label.
    others = table[group] - np.eye(len(sizes))[label]
    weight = others / sizes
    best = np.isclose(weight, weight.max(axis=1, keepdims=True))
    hit = best[np.arange(len(label)), label] / best.sum(axis=1)
    return float(np.mean(np.bincount(label, hit) / sizes))


def _codes(values: Sequence[Hashable]) -> NDArray[np.int64]:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values])
