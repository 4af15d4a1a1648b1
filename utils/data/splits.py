"""Cluster rows that belong together, and assign whole clusters to splits.

Rows with nearly the same text, or from one patient or document, share a cluster. Since splits consist of whole
clusters, no test row has a near-duplicate in the training rows.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from datasketch import MinHash, MinHashLSH

from utils.words import split_words

SHINGLE_WORDS = 5
PERMUTATIONS = 128
# Every candidate pair is verified, so a false positive only costs time, while a false negative can leak. With these
# weights LSH finds 99 % of the pairs at the threshold, and more above it.
FALSE_POSITIVE_AND_NEGATIVE_WEIGHT = (0.001, 0.999)
# Four standard deviations of the similarity estimated from 128 permutations. Rows from one template are all candidates
# of each other, and comparing signatures is faster than comparing shingles.
ESTIMATE_ERROR = 0.15
# Clusters above this share of the smallest split are placed first, while train still has room for them
LARGE_CLUSTER = 0.1


def normalise(text: str) -> str:
    """Return the case-folded words of `text`, separated by one space; the stripped text if it has no words."""
    return " ".join(split_words(text.casefold())) or text.strip()


def near_duplicate_clusters(texts: Iterable[str], threshold: float, seed: int) -> list[int]:
    """Cluster texts that are equal after normalization, or whose sets of word 5-grams are nearly the same.

    Candidate pairs come from MinHash LSH (Broder 1997; Leskovec et al., Mining of Massive Datasets, chapter 3). Pairs
    are joined only if the Jaccard similarity of their sets is at least `threshold`, so LSH can miss a pair but never
    joins a wrong one. A text of fewer than five words is a single shingle, which only an equal text matches.

    Args:
        texts: read once; uses about 4 bytes per word and 1 kB per text.
        threshold: in (0, 1]; 1 joins only equal normalized texts.
        seed: seed of the MinHash permutations.

    Returns:
        a cluster number per text, from 0 in order of first appearance.
    """
    word_hashes: dict[str, int] = {}
    numbers: dict[bytes, int] = {}
    rows, shingles = [], []
    for text in texts:
        normal = normalise(text)
        digest = hashlib.blake2b(normal.encode(), digest_size=16).digest()
        if digest not in numbers:
            numbers[digest] = len(numbers)
            if threshold < 1:
                shingles.append(_shingles(normal.split(), word_hashes))
        rows.append(numbers[digest])
    if threshold >= 1:
        return rows

    signatures = np.empty((len(shingles), PERMUTATIONS), dtype=np.uint32)
    sketches = MinHash.generator((s.tolist() for s in shingles), num_perm=PERMUTATIONS, seed=seed, hashfunc=int)
    for number, sketch in enumerate(sketches):
        signatures[number] = sketch.hashvalues
    shingles, marks = _number_shingles(shingles)
    parents = list(range(len(shingles)))
    # A quarter of the bytes to compare. 1 in 256 unequal values agree, which only raises estimates: no pair is lost.
    low_bytes = signatures.astype(np.uint8)
    # MinHashLSH only chooses the bands: its own index would take 8 kB per text and return every pair of a bucket.
    for start, end in MinHashLSH(threshold, PERMUTATIONS, weights=FALSE_POSITIVE_AND_NEGATIVE_WEIGHT).hashranges:
        for bucket in _buckets(signatures[:, start:end]):
            _join_bucket(bucket, low_bytes, shingles, marks, threshold, parents)
    return _renumber(_find(parents, number) for number in rows)


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
                root, other = _find(parents, row), _find(parents, first.setdefault(value, row))
                parents[max(root, other)] = min(root, other)
    return _renumber(_find(parents, row) for row in range(len(parents)))


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
    clusters: Sequence[int], fractions: dict[str, float], seed: int, labels: Sequence[str] | None = None
) -> list[str]:
    """Assign whole clusters to splits so that each gets about its share of the rows, and of the rows of each label.

    Greedy, after Sechidis et al. 2011 (On the stratification of multi-label data). Clusters are placed from the rarest
    label on, in random order but large ones first, each into the split that lacks the most rows of that label. If a
    label has only as many clusters left as there are splits without it, these go to the splits among them that still
    have room. Without labels, each split is within the largest cluster's size of its share (times the number of other
    splits), and none is empty if there are at least as many clusters as splits.

    Args:
        clusters: cluster number of each row.
        fractions: share of the rows for each split, summing to 1. The first split wins ties.
        seed: seed of the random order.
        labels: label of each row.

    Returns:
        the name of the split of each row.
    """
    labels = labels if labels is not None else [""] * len(clusters)
    members: dict[int, Counter[str]] = defaultdict(Counter)
    for cluster, label in zip(clusters, labels, strict=True):
        members[cluster][label] += 1
    label_rows = Counter(labels)
    waiting = Counter(label for counts in members.values() for label in counts)  # clusters left to place
    rarest = {cluster: min(counts, key=lambda c: (waiting[c], c)) for cluster, counts in members.items()}
    sizes = {cluster: counts.total() for cluster, counts in members.items()}
    large = LARGE_CLUSTER * min(fractions.values()) * len(clusters)
    shuffled = np.random.default_rng(seed).permutation(list(members)).tolist()
    # `waiting` changes while clusters are placed, so the order is fixed beforehand
    order = {label: (number, label) for label, number in waiting.items()}
    shuffled.sort(key=lambda c: (order[rarest[c]], -sizes[c] if sizes[c] > large else 0))

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


def _shingles(words: list[str], word_hashes: dict[str, int]) -> np.ndarray:
    """Return the sorted distinct 5-grams of `words`, each hashed to 32 bits (`hash` differs between processes)."""
    for word in words:
        if word not in word_hashes:
            word_hashes[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
    hashes = np.array([word_hashes[word] for word in words] or [0], dtype=np.uint64)
    width = min(SHINGLE_WORDS, len(hashes))
    # Polynomial hash modulo 2**64 in an odd base (Knuth's constant for Fibonacci hashing): word order counts
    powers = np.uint64(0x9E3779B97F4A7C15) ** np.arange(width, dtype=np.uint64)
    grams = np.lib.stride_tricks.sliding_window_view(hashes, width) @ powers
    return np.unique((grams >> np.uint64(32)).astype(np.uint32))


def _number_shingles(shingles: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """Replace hashes by numbers from 0, and return a False per number, to compare sets without sorting."""
    if not shingles:
        return [], np.zeros(0, dtype=bool)
    values, numbers = np.unique(np.concatenate(shingles), return_inverse=True)
    ends = np.cumsum([len(hashes) for hashes in shingles])
    return np.split(numbers.astype(np.uint32), ends[:-1]), np.zeros(len(values), dtype=bool)


def _buckets(band: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the row numbers of each group of two or more equal rows."""
    keys = np.ascontiguousarray(band).view(np.dtype((np.void, band.shape[1] * band.itemsize)))[:, 0]
    _, inverse, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    ends = np.cumsum(sizes)
    for end, size in zip(ends[sizes > 1], sizes[sizes > 1], strict=True):
        yield order[end - size : end]


def _join_bucket(
    bucket: np.ndarray,
    low_bytes: np.ndarray,
    shingles: list[np.ndarray],
    marks: np.ndarray,
    threshold: float,
    parents: list[int],
) -> None:
    """Join the texts of a bucket whose shingles are similar enough, comparing one text with the rest at a time."""
    columns = np.ascontiguousarray(low_bytes[bucket].T)
    joined = True
    for place, number in enumerate(bucket[:-1], 1):
        if joined and len({_find(parents, other) for other in bucket[place - 1 :].tolist()}) == 1:
            return
        agree = np.add.reduce((columns[:, place:] == columns[:, place - 1 : place]).view(np.uint8), dtype=np.uint8)
        others = bucket[place:][agree >= PERMUTATIONS * (threshold - ESTIMATE_ERROR)]
        similar = others[_jaccard(shingles[number], [shingles[other] for other in others], marks) >= threshold]
        for other in similar.tolist():
            root, other_root = _find(parents, int(number)), _find(parents, other)
            parents[max(root, other_root)] = min(root, other_root)
        joined = len(similar) > 0


def _jaccard(one: np.ndarray, others: list[np.ndarray], marks: np.ndarray) -> np.ndarray:
    """Return the similarity of one set to each of the others. `marks` is all False, one per possible member."""
    if not others:
        return np.empty(0)
    lengths = np.array([len(other) for other in others])
    starts = np.cumsum(lengths) - lengths
    marks[one] = True
    common = np.add.reduceat(marks[np.concatenate(others)], starts, dtype=int)
    marks[one] = False
    return common / (len(one) + lengths - common)


def _find(parents: list[int], node: int) -> int:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


def _renumber(roots: Iterable[int]) -> list[int]:
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root, len(numbers)) for root in roots]
