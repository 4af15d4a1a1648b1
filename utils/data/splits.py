"""Cluster rows that belong together, and assign whole clusters to splits.

Rows with nearly the same text, or from one patient or document, share a cluster. Since splits consist of whole
clusters, no test row has a near-duplicate in the training rows.
"""

import hashlib
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

# Clusters above this share of the smallest split are placed first, while train still has room for them
LARGE_CLUSTER = 0.1
MIN_CLUSTERS = 10  # of equal size: with fewer there is no interval, no p-value and no verdict


def each_label(value: Any) -> Sequence[str]:
    """Return the labels of a row: one, or those of its list."""
    return [value] if isinstance(value, str) else value


def effective_number(sizes: np.ndarray) -> float:
    """Return how many clusters of equal size would tell as much as those of these `sizes`, [clusters] (Kish 1965)."""
    return float(sizes.sum() ** 2 / max((sizes**2).sum(), 1.0))


def find_root(parents: list[int], node: int) -> int:
    """Return the root of a node in a forest of parents, and shorten the way there."""
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


def renumber(roots: Iterable[int]) -> list[int]:
    """Number the distinct values from 0 in order of first appearance."""
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root, len(numbers)) for root in roots]


def join_clusters(*keys: Sequence[Hashable]) -> list[int]:
    """Join rows that agree in any key, transitively.

    Args:
        keys: each holds one value per row (a cluster number, a patient); `None` joins nothing.

    Returns:
        a cluster number per row, from 0 in order of first appearance.
    """
    parents = list(range(len(keys[0])))
    for values in keys:
        first: dict[Hashable, int] = {}
        for row, value in enumerate(values):
            if value is not None:
                root, other = find_root(parents, row), find_root(parents, first.setdefault(value, row))
                parents[max(root, other)] = min(root, other)
    return renumber(find_root(parents, row) for row in range(len(parents)))


def shared_turns(keys: Sequence[Sequence[bytes]]) -> list[list[bytes | None]]:
    """Return keys for `join_clusters`, a list for each turn of the user, that join a dialogue with the rows that end
    where one of its turns does.

    Args:
        keys: for each row, a key of the input at every turn of the user, with all turns before it; the last is the
            row's own input.
    """
    known = {own[-1] for own in keys}
    turns = range(max(map(len, keys)))
    return [[own[turn] if turn < len(own) and own[turn] in known else None for own in keys] for turn in turns]


def split_by_cluster(
    clusters: Sequence[int], fractions: dict[str, float], seed: int, labels: Sequence[Any] | None = None
) -> list[str]:
    """Assign whole clusters to splits so that each gets about its share of the rows, and of the rows of each label.

    Greedy, after Sechidis et al. 2011 (On the stratification of multi-label data). Clusters are placed from the rarest
    label on, in random order but large ones first, each into the split that lacks the most rows of that label. If a
    label has only as many clusters left as there are splits without it, these go to the splits among them that still
    have room. With lists of labels, a label's last cluster goes to the first split, if that has none. Without labels,
    each split is within the largest cluster's size of its share (times the number of other splits), and none is empty
    if there are at least as many clusters as splits.

    Args:
        clusters: cluster number of each row.
        fractions: share of the rows for each split, summing to 1. The first split wins ties.
        seed: seed of the random order.
        labels: label of each row, or its list of labels.

    Returns:
        the name of the split of each row.
    """
    labels = labels if labels is not None else [""] * len(clusters)
    members: dict[int, Counter[str]] = defaultdict(Counter)
    for cluster, own in zip(clusters, labels, strict=True):
        members[cluster].update(each_label(own))
    label_rows = Counter(itertools.chain.from_iterable(map(each_label, labels)))
    waiting = Counter(label for counts in members.values() for label in counts)  # clusters left to place
    rarest = {cluster: min(counts, key=lambda c: (waiting[c], c)) for cluster, counts in members.items()}
    sizes = Counter(clusters)
    large = LARGE_CLUSTER * min(fractions.values()) * len(clusters)
    shuffled = np.random.default_rng(seed).permutation(list(members)).tolist()
    # `waiting` changes while clusters are placed, so the order is fixed beforehand
    order = {label: (number, label) for label, number in waiting.items()}
    shuffled.sort(key=lambda c: (order[rarest[c]], -sizes[c] if sizes[c] > large else 0))

    several, first = not all(isinstance(own, str) for own in labels), next(iter(fractions))
    held: dict[str, Counter[str]] = {split: Counter() for split in fractions}
    rows = dict.fromkeys(fractions, 0)
    result = {}
    for cluster in shuffled:
        label = rarest[cluster]
        without = [split for split in fractions if not held[split][label]]
        room = {split: fractions[split] * len(clusters) - rows[split] for split in fractions}
        due = [split for split in without if room[split] > 0] if waiting[label] <= len(without) else []
        lack = {split: round(fractions[split] * label_rows[label] - held[split][label], 6) for split in fractions}
        best = max(due or fractions, key=lambda split: (lack[split], room[split]))
        if any(waiting[other] == 1 and not held[first][other] for other in members[cluster]) and several:
            best = first  # the last row of a label, which cannot be learned without it, and is not this one's rarest
        result[cluster] = best
        held[best].update(members[cluster])
        rows[best] += sizes[cluster]
        waiting.subtract(members[cluster].keys())
    return [result[cluster] for cluster in clusters]


def fingerprint(rows: Iterable[dict[str, Any]]) -> str:
    """Return a sha256 that identifies a set of rows in any order.

    Each row is hashed as canonical JSON (sorted keys, UTF-8, no spaces), and the sorted row hashes are hashed again;
    the result is hexadecimal. Repeated rows count.
    """
    digests = []
    for row in rows:
        line = json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        digests.append(hashlib.sha256(line.encode()).digest())
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()
