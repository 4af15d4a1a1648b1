"""Cluster texts that are nearly the same."""

import hashlib
import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from datasketch import MinHash, MinHashLSH

from utils.data.splits import find_root, renumber
from utils.words import split_words

SHINGLE_WORDS = 5
PERMUTATIONS = 128
# Every candidate pair is verified, so a false positive only costs time, while a false negative can leak. With these
# weights LSH finds 99 % of the pairs at the threshold, and more above it.
FALSE_POSITIVE_AND_NEGATIVE_WEIGHT = (0.001, 0.999)
# Four standard deviations of the similarity estimated from 128 permutations. Rows from one template are all candidates
# of each other, and comparing signatures is faster than comparing shingles.
ESTIMATE_ERROR = 0.15
LARGE_BUCKET = 50  # texts of one template fill a bucket; comparing each with each would take too long
FIRST = 64  # texts with a rare shingle that are compared first: mostly one is joined, and its cluster is skipped
BATCH = 1000  # texts whose shingles are computed at a time
ROUNDING = 1e-9  # 0.55 * 20 is 11.000000000000002


def normalise(text: str) -> str:
    """Return the case-folded words of `text`, separated by one space; the stripped text if it has no words."""
    return " ".join(split_words(text.casefold())) or text.strip()


def near_duplicate_clusters(texts: Iterable[str], threshold: float, seed: int) -> list[int]:
    """Cluster texts that are equal after normalization, or whose sets of word 5-grams are nearly the same.

    Candidate pairs come from MinHash LSH (Broder 1997; Leskovec et al., Mining of Massive Datasets, chapter 3). Texts
    of one template fill a large bucket, in which the candidates are those that share a rare shingle. Pairs are joined
    only if the Jaccard similarity of their sets is at least `threshold`: LSH can miss a pair, and never joins a wrong
    one. A text of fewer than five words is a single shingle, which only an equal text matches.

    Args:
        texts: read once; uses about 4 bytes per word and 1 kB per text.
        threshold: in (0, 1]; 1 joins only equal normalized texts.
        seed: seed of the MinHash permutations.

    Returns:
        a cluster number per text, from 0 in order of first appearance.
    """
    word_hashes: dict[str, int] = {}
    numbers: dict[bytes, int] = {}
    rows, waiting, parts = [], list[list[str]](), list[tuple[np.ndarray, np.ndarray]]()
    for text in texts:
        normal = normalise(text)
        digest = hashlib.blake2b(normal.encode(), digest_size=16).digest()
        if digest not in numbers:
            numbers[digest] = len(numbers)
            if threshold < 1:
                waiting.append(normal.split())
        rows.append(numbers[digest])
        if len(waiting) == BATCH:
            parts.append(_shingles(waiting, word_hashes))
            waiting = []
    if threshold >= 1:
        return rows

    parts.append(_shingles(waiting, word_hashes))
    hashes, counts = (np.concatenate(own) for own in zip(*parts, strict=True))
    del parts, numbers
    ends = np.cumsum(counts)
    marks, numbered = _number_shingles(hashes)
    signatures = np.empty((len(counts), PERMUTATIONS), dtype=np.uint32)
    lists = (hashes[end - count : end].tolist() for count, end in zip(counts, ends, strict=True))
    for number, sketch in enumerate(MinHash.generator(lists, num_perm=PERMUTATIONS, seed=seed, hashfunc=int)):
        signatures[number] = sketch.hashvalues
    del hashes
    shingles = np.split(numbered, ends[:-1])
    parents = list(range(len(shingles)))
    # A quarter of the bytes to compare. 1 in 256 unequal values agree, which only raises estimates: no pair is lost.
    low_bytes = signatures.astype(np.uint8)
    in_large = np.zeros(len(shingles), dtype=bool)
    # MinHashLSH only chooses the bands: its own index would take 8 kB per text and return every pair of a bucket.
    for start, end in MinHashLSH(threshold, PERMUTATIONS, weights=FALSE_POSITIVE_AND_NEGATIVE_WEIGHT).hashranges:
        for bucket in _buckets(signatures[:, start:end]):
            if len(bucket) <= LARGE_BUCKET:
                _join_bucket(bucket, low_bytes, shingles, marks, threshold, parents)
            else:
                in_large[bucket] = True
    _join_by_rare_shingles(np.flatnonzero(in_large), low_bytes, shingles, marks, threshold, parents)
    return renumber(find_root(parents, number) for number in rows)


def _shingles(texts: list[list[str]], word_hashes: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted distinct 5-grams of the words of each text, each hashed to 32 bits (`hash` differs between
    processes), one text after the other, and how many each text has. All texts at once: a call of numpy for each would
    take longer than the work."""
    words = [word for text in texts for word in text]
    for word in set(words) - word_hashes.keys():
        word_hashes[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
    sizes = np.array([len(text) for text in texts], dtype=np.int64)
    lengths = np.maximum(sizes, SHINGLE_WORDS)  # a shorter text is one shingle, padded by zeros
    number = np.repeat(np.arange(len(texts)), lengths)
    place = np.arange(len(number)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    hashes = np.zeros(len(number), dtype=np.uint64)
    hashes[place < sizes[number]] = np.fromiter(map(word_hashes.__getitem__, words), np.uint64, len(words))
    # Polynomial hash modulo 2**64 in an odd base (Knuth's constant for Fibonacci hashing): word order counts
    powers = np.uint64(0x9E3779B97F4A7C15) ** np.arange(SHINGLE_WORDS, dtype=np.uint64)
    starts = np.flatnonzero(place <= lengths[number] - SHINGLE_WORDS)  # later words have no four words behind them
    grams = sum((hashes[starts + i] * power for i, power in enumerate(powers)), np.zeros(len(starts), np.uint64))
    both = np.unique(number[starts].astype(np.uint64) << np.uint64(32) | grams >> np.uint64(32))
    counts = np.bincount((both >> np.uint64(32)).astype(np.int64), minlength=len(texts))
    return both.astype(np.uint32), counts


def _number_shingles(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a False per distinct hash, and hashes as numbers from 0, to compare sets without sorting. `np.unique`
    would take twice the memory, which is the most that the clusters take."""
    order = np.argsort(hashes, kind="stable")
    in_order = hashes[order]
    is_new = np.ones(len(hashes), dtype=bool)
    np.not_equal(in_order[1:], in_order[:-1], out=is_new[1:])
    del in_order
    numbers = np.empty_like(hashes)
    numbers[order] = np.cumsum(is_new, dtype=np.uint32) - np.uint32(1)
    return np.zeros(int(is_new.sum()), dtype=bool), numbers


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
        if joined and len({find_root(parents, other) for other in bucket[place - 1 :].tolist()}) == 1:
            return
        agree = np.add.reduce((columns[:, place:] == columns[:, place - 1 : place]).view(np.uint8), dtype=np.uint8)
        similar = _similar(number, bucket[place:], agree, shingles, marks, threshold)
        for other in similar.tolist():
            root, other_root = find_root(parents, int(number)), find_root(parents, other)
            parents[max(root, other_root)] = min(root, other_root)
        joined = len(similar) > 0


def _join_by_rare_shingles(
    rows: np.ndarray,
    low_bytes: np.ndarray,
    shingles: list[np.ndarray],
    marks: np.ndarray,
    threshold: float,
    parents: list[int],
) -> None:
    """Join texts whose shingles are similar enough, comparing only those that share a rare shingle.

    Prefix filtering (Chaudhuri et al. 2006; Xiao et al. 2008, PPJoin), which misses no pair: two sets with a Jaccard
    similarity of at least t share a shingle among the n - ceil(t n) + 1 rarest of the larger one, and the
    n - ceil(2 t n / (1 + t)) + 1 rarest of the smaller. What texts of one template have in common is not rare.
    """
    if not len(rows):
        return
    counts = np.bincount(np.concatenate([shingles[row] for row in rows]))
    cluster = np.full(len(shingles), -1)  # exact at all times, so that texts of one cluster are not compared
    members: dict[int, list[int]] = defaultdict(list)
    for row in rows.tolist():
        cluster[row] = find_root(parents, row)
        members[int(cluster[row])].append(row)

    def join_with(row: int, others: np.ndarray) -> None:
        others = others[cluster[others] != cluster[row]]
        agree = (low_bytes[others] == low_bytes[row]).sum(axis=1)
        similar = _similar(row, others, agree, shingles, marks, threshold)
        for other in np.unique(cluster[similar]).tolist():
            mine = int(cluster[row])
            small, large = sorted((mine, other), key=lambda number: len(members[number]))
            cluster[members[small]] = large
            members[large] += members.pop(small)
            parents[find_root(parents, small)] = find_root(parents, large)

    index: dict[int, array] = defaultdict(lambda: array("q"))  # rare shingle -> texts
    mixed: set[int] = set()  # shingles whose texts may be of several clusters
    for row in sorted(rows.tolist(), key=lambda row: (len(shingles[row]), row)):
        own, n = shingles[row], len(shingles[row])
        rare = own[np.lexsort((own, counts[own]))].tolist()
        found = [shingle for shingle in rare[: n - math.ceil(threshold * n - ROUNDING) + 1] if shingle in index]
        if found:  # first a few texts of each shingle: if one is joined, all of its cluster can be skipped
            join_with(row, np.unique(np.concatenate([index[shingle][:FIRST] for shingle in found])))
            found = [s for s in found if s in mixed or cluster[index[s][0]] != cluster[row]]
        if found:
            join_with(row, np.unique(np.concatenate([index[shingle] for shingle in found])))
        for shingle in rare[: n - math.ceil(2 * threshold * n / (1 + threshold) - ROUNDING) + 1]:
            index[shingle].append(row)
            if cluster[index[shingle][0]] != cluster[row]:
                mixed.add(shingle)


def _similar(
    row: int, others: np.ndarray, agree: np.ndarray, shingles: list[np.ndarray], marks: np.ndarray, threshold: float
) -> np.ndarray:
    """Return those of `others` that are similar to a text; `agree` counts the equal values of their signatures."""
    close = others[agree >= PERMUTATIONS * (threshold - ESTIMATE_ERROR)]
    return close[_jaccard(shingles[row], [shingles[other] for other in close], marks) >= threshold]


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
