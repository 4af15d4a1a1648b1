"""Clusters and splits: what belongs together stays together, whatever the seed or the process."""

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.data import near_duplicates
from utils.data.near_duplicates import near_duplicate_clusters, normalise
from utils.data.splits import (
    fingerprint,
    join_clusters,
    shared_turns,
    split_by_cluster,
)

FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}
WORDS = [f"word{number}" for number in range(5000)]


def random_text(generator: random.Random, length: int = 40) -> list[str]:
    return generator.choices(WORDS, k=length)


def test_equal_texts_up_to_case_space_and_punctuation_share_a_cluster():
    texts = ["What is gout?", "what  is\nGOUT", "What is gout in dogs?", "?!", "?!", "10² mg", "102 mg"]
    assert near_duplicate_clusters(texts, 1, seed=0) == [0, 0, 1, 2, 2, 3, 4]
    assert near_duplicate_clusters(texts, 0.8, seed=0) == [0, 0, 1, 2, 2, 3, 4]


def test_near_duplicates_above_the_threshold_are_joined_and_none_below():
    generator = random.Random(0)
    texts, twins = [], []
    for number in range(300):
        words = random_text(generator)
        texts.append(" ".join(words))
        # 36 shingles. A new last word: 35 of 37 are common, 0.95. A new word in the middle: 31 of 41, 0.76.
        changed = words[:-1] + ["new"] if number % 2 else words[:20] + ["new"] + words[21:]
        twins.append(" ".join(changed))
    clusters = near_duplicate_clusters(texts + twins, 0.8, seed=0)
    joined = [clusters[number] == clusters[number + 300] for number in range(300)]
    assert joined == [bool(number % 2) for number in range(300)]
    assert len(set(clusters)) == 300 + 150


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_clusters_are_those_of_comparing_all_pairs(threshold):
    generator = random.Random(1)
    base = [random_text(generator) for _ in range(20)]
    texts = []
    for _ in range(200):
        words = list(generator.choice(base))
        for _ in range(generator.randrange(4)):
            words[generator.choice([0, 10, 39])] = generator.choice(WORDS)
        texts.append(words)
    grams = [{tuple(words[i : i + 5]) for i in range(36)} for words in texts]
    pairs = [
        (i, j)
        for j in range(200)
        for i in range(j)
        if len(grams[i] & grams[j]) >= threshold * len(grams[i] | grams[j])
    ]
    keys = [[None] * 200 for _ in pairs]
    for key, (i, j) in zip(keys, pairs, strict=True):
        key[i] = key[j] = 0
    assert near_duplicate_clusters(map(" ".join, texts), threshold, seed=0) == join_clusters(*keys)


def exhaustive(texts: list[list[str]], threshold: float) -> list[int]:
    """The clusters of comparing all pairs of word 5-grams."""
    grams = [{tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))} for words in texts]
    keys: list[list[int | None]] = []
    for j in range(len(texts)):
        for i in range(j):
            if len(grams[i] & grams[j]) >= threshold * len(grams[i] | grams[j]):
                keys.append([0 if row in (i, j) else None for row in range(len(texts))])
    return join_clusters([None] * len(texts), *keys)


def from_template(generator: random.Random, n_rows: int, slots: int, values: int) -> list[list[str]]:
    """Texts that differ in `slots` words, each one of `values`, and in length."""
    template, places = random_text(generator), generator.sample(range(40), slots)
    texts = []
    for _ in range(n_rows):
        words = list(template)
        for place in places:
            words[place] = f"value{generator.randrange(values)}"
        texts.append(words[: generator.choice([40, 40, 39, 36])])
    return texts


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 999), st.integers(0, 5), st.sampled_from([2, 5, 1000]),
    st.sampled_from([0.5, 0.55, 0.7, 0.8, 0.95]), st.sampled_from([0, 3]), st.sampled_from([1, 64]),
)  # fmt: skip
def test_texts_of_one_template_are_clustered_as_by_comparing_all_pairs(seed, slots, values, threshold, limit, first):
    """However many texts a bucket holds; 0.55 * 20 is not 11 in floating point."""
    texts = from_template(random.Random(seed), 40, slots, values)
    with mock.patch.multiple(near_duplicates, LARGE_BUCKET=limit, FIRST=first, ESTIMATE_ERROR=1.0):
        found = near_duplicate_clusters(map(" ".join, texts), threshold, seed=0)
    expected = exhaustive(texts, threshold)
    # LSH finds 99 % of the pairs at the threshold, so a cluster may fall apart; what it joins belongs together
    assert len(set(zip(found, expected, strict=True))) == len(set(found))
    assert len(set(found)) <= len(set(expected)) + 1


def test_rare_shingles_find_every_pair():
    """Without LSH before it: the filter alone loses nothing."""
    for seed in range(20):
        generator = random.Random(seed)
        texts = from_template(generator, 60, 3, 20) + [random_text(generator) for _ in range(5)]
        every = {"_buckets": lambda band: [np.arange(len(band))], "LARGE_BUCKET": 0, "ESTIMATE_ERROR": 1.0}
        with mock.patch.multiple(near_duplicates, **every):
            found = near_duplicate_clusters(map(" ".join, texts), 0.7, seed=0)
        assert found == exhaustive(texts, 0.7)


def test_texts_of_one_template_take_few_comparisons(monkeypatch):
    """Comparisons of signatures grow with the rows, not with their square."""
    compared = Counter()
    jaccard = near_duplicates._jaccard

    def count(one, others, marks):
        compared[n_rows] += len(others)
        return jaccard(one, others, marks)

    monkeypatch.setattr(near_duplicates, "_jaccard", count)
    for n_rows in (500, 2000):
        texts = from_template(random.Random(0), n_rows, 3, 10**6)
        near_duplicate_clusters(map(" ".join, texts), 0.8, seed=0)
    assert compared[2000] <= 6 * compared[500] + 100


def test_threshold_one_joins_no_near_duplicate():
    text = " ".join(WORDS[:40])
    assert near_duplicate_clusters([text, text + " more"], 1, seed=0) == [0, 1]
    assert near_duplicate_clusters([text, text + " more"], 0.8, seed=0) == [0, 0]


def test_clusters_do_not_depend_on_the_seed_of_a_clear_case_and_texts_are_read_once():
    text = " ".join(WORDS[:100])
    for seed in range(5):
        assert near_duplicate_clusters(iter([text, "another one", text + " more"]), 0.8, seed) == [0, 1, 0]


def test_join_follows_chains_over_several_keys_and_none_joins_nothing():
    assert join_clusters([0, 1, 2, 3, 4], ["a", "b", "b", None, None], [None, None, "x", "x", None]) == [0, 1, 1, 1, 2]
    assert join_clusters([None, None, None]) == [0, 1, 2]
    assert join_clusters([]) == []


@pytest.mark.parametrize("seed", range(10))
def test_no_cluster_crosses_splits_and_shares_are_as_asked(seed):
    generator = random.Random(seed)
    clusters = [generator.randrange(400) for _ in range(2000)]
    places = split_by_cluster(clusters, FRACTIONS, seed)
    assert len(set(zip(clusters, places, strict=True))) == len(set(clusters))
    largest = max(Counter(clusters).values())
    for split, fraction in FRACTIONS.items():
        assert abs(places.count(split) - fraction * 2000) <= 2 * largest


def test_large_clusters_go_to_train():
    clusters = [0] * 600 + [1] * 100 + list(range(2, 302))
    places = split_by_cluster(clusters, FRACTIONS, seed=3)
    assert set(places[:700]) == {"train"}
    assert Counter(places) == {"train": 800, "validation": 100, "test": 100}


def test_small_clusters_reach_every_split_not_only_the_smallest_ones():
    clusters = [number // 3 for number in range(900)] + list(range(300, 1200))
    places = split_by_cluster(clusters, FRACTIONS, seed=0)
    assert 0.05 < places[:900].count("test") / 900 < 0.15


@pytest.mark.parametrize("number_of_clusters", [3, 4, 5])
def test_no_split_is_empty_while_there_are_clusters_enough(number_of_clusters):
    clusters = [cluster for cluster in range(number_of_clusters) for _ in range(cluster + 1)]
    assert set(split_by_cluster(clusters, FRACTIONS, seed=0)) == set(FRACTIONS)


def test_labels_keep_their_shares_and_rare_ones_reach_each_split():
    labels = ["common"] * 700 + ["less"] * 250 + ["rare"] * 40 + ["three"] * 3 + ["two"] * 2 + ["one"]
    places = split_by_cluster(list(range(len(labels))), FRACTIONS, seed=1, labels=labels)
    counts = Counter(zip(labels, places, strict=True))
    assert [counts["common", split] for split in FRACTIONS] == [560, 70, 70]
    assert [counts["less", split] for split in FRACTIONS] == [200, 25, 25]
    assert [counts["rare", split] for split in FRACTIONS] == [32, 4, 4]
    assert [counts["three", split] for split in FRACTIONS] == [1, 1, 1]
    assert counts["two", "train"] == 1 and counts["one", "train"] == 1


def test_many_labels_of_one_row_do_not_all_go_to_train():
    labels = [str(number) for number in range(200)]
    assert Counter(split_by_cluster(range(200), FRACTIONS, seed=0, labels=labels)) == {
        "train": 160,
        "validation": 20,
        "test": 20,
    }


def test_stratified_clusters_stay_whole():
    generator = random.Random(0)
    clusters = [generator.randrange(300) for _ in range(2000)]
    labels = [generator.choice("aaaaaabbbc") for _ in clusters]
    places = split_by_cluster(clusters, FRACTIONS, seed=0, labels=labels)
    assert len(set(zip(clusters, places, strict=True))) == len(set(clusters))
    counts = Counter(zip(labels, places, strict=True))
    for label in "abc":
        assert counts[label, "test"] / labels.count(label) == pytest.approx(0.1, abs=0.03)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_lists_of_labels_keep_their_shares_and_every_label_is_trained(seed):
    generator = random.Random(seed)
    chances = {"common": 0.6, "less": 0.3, "rare": 0.03, "single": 0.004}
    labels = [[name for name, chance in chances.items() if generator.random() < chance] for _ in range(500)]
    labels = [own or ["common"] for own in labels]
    clusters = [generator.randrange(400) for _ in labels]
    places = split_by_cluster(clusters, FRACTIONS, seed, labels)
    assert len(set(zip(clusters, places, strict=True))) == len(set(clusters))
    counts = Counter((label, place) for own, place in zip(labels, places, strict=True) for label in own)
    for label in {label for own in labels for label in own}:
        assert counts[label, "train"]
    for label in ("common", "less"):
        assert counts[label, "test"] / sum(label in own for own in labels) == pytest.approx(0.1, abs=0.04)


def test_seed_alone_decides_the_split():
    script = (
        "import random; from utils.data.splits import *; r = random.Random(0)\n"
        "from utils.data.near_duplicates import near_duplicate_clusters\n"
        "texts = [' '.join(r.choices('abcdefghijkl', k=9)) for _ in range(300)]\n"
        "clusters = join_clusters(near_duplicate_clusters(texts, 0.5, 1), [t[:3] for t in texts])\n"
        "places = split_by_cluster(clusters, {'train': 0.8, 'test': 0.2}, 1, [t[0] for t in texts])\n"
        "print(fingerprint({'text': t, 'split': s} for t, s in zip(texts, places)))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1] and len(outputs[0].strip()) == 64
    assert split_by_cluster(range(50), FRACTIONS, 1) != split_by_cluster(range(50), FRACTIONS, 2)


def test_fingerprint_ignores_order_of_rows_and_keys_and_sees_every_change():
    rows = [{"a": "µg", "b": 1}, {"a": "x", "b": 2}]
    same = [{"b": 2, "a": "x"}, {"b": 1, "a": "µg"}]
    assert fingerprint(rows) == fingerprint(same)
    assert len({fingerprint(r) for r in (rows, rows[:1], rows + rows[:1], [rows[0], {"a": "x", "b": 3}], [])}) == 5


def test_normalise_keeps_letters_digits_and_signs_that_are_alone():
    assert normalise("Vitamin B12, 10 µg/dl!") == "vitamin b12 10 μg dl"
    assert normalise(" <> ") == "<>"


def test_a_dialogue_is_joined_with_the_rows_that_end_at_one_of_its_turns():
    # a: one question; b: the same question and a second one; c: the second question alone; d: b's end and a third one
    keys = [[b"a"], [b"a", b"ab"], [b"b"], [b"a", b"ab", b"abc"], [b"x", b"xy"], [b"x", b"xz"]]
    assert join_clusters(*shared_turns(keys)) == [0, 0, 1, 0, 2, 3]
    assert shared_turns([[b"a"], [b"b"], [b"a"]]) == [[b"a", b"b", b"a"]]


def test_normalise_keeps_vowel_signs_and_joiners():
    different = ["कि", "की", "का", "ผี", "ผู", "ដី", "ដូ", "می\u200cرود", "میرود"]
    assert len({normalise(text) for text in different}) == len(different)


# A text of each script without spaces: about 35 words
LONG_TEXTS = {
    "Chinese": "患者三天前受凉后出现发热和咳嗽，最高体温三十九度，伴有少量白色痰液，没有胸痛和呼吸困难。"
    "查体双肺呼吸音粗，右下肺可以听到湿性啰音。血常规提示白细胞升高，胸部影像显示右下肺炎症。",
    "Japanese": "三日前から発熱と咳が続き、最高体温は三十九度で、少量の白い痰を伴うが、胸の痛みや呼吸困難は認めない。"
    "右下肺に湿性ラ音を聴取し、胸部の画像では右下葉に肺炎の陰影を認めた。",
    "Thai": "ผู้ป่วยมีไข้สูงและไอมาสามวัน มีเสมหะสีขาวเล็กน้อย ไม่มีอาการเจ็บหน้าอกหรือหายใจลำบาก ตรวจร่างกายพบเสียงปอดผิดปกติ"
    "ที่ปอดขวาด้านล่าง ผลเลือดพบเม็ดเลือดขาวสูง ภาพถ่ายรังสีทรวงอกพบการอักเสบของปอดด้านขวา",
    "Khmer": "អ្នកជំងឺមានគ្រុនក្តៅខ្លាំងនិងក្អកអស់រយៈពេលបីថ្ងៃ មានកំហាកពណ៌សបន្តិចបន្តួច មិនមានឈឺទ្រូងឬពិបាកដកដង្ហើមទេ "
    "ការពិនិត្យឃើញសម្លេងសួតខុសប្រក្រតីនៅសួតខាងស្តាំផ្នែកខាងក្រោម",
}


@pytest.mark.parametrize("language", LONG_TEXTS)
def test_near_duplicates_are_found_in_scripts_without_spaces(language):
    text, half = LONG_TEXTS[language], len(LONG_TEXTS[language]) // 2
    others = [other for other in LONG_TEXTS.values() if other != text]
    near = [text, f"1. {text}", text[:-8] + "。"]
    assert near_duplicate_clusters([*near, *others, text[half:], text[:half]], 0.8, 0) == [0, 0, 0, 1, 2, 3, 4, 5]
