"""Long texts lose what the recipe says and nothing else, and chunks come together again."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import save_encoder, word_tokenizer
from datasets import Dataset
from transformers import PreTrainedConfig

from utils import encoding
from utils.control_tokens import special_tokens
from utils.encoding import (
    ChunkCollator,
    encode_rows,
    encode_texts,
    mean_of_chunks,
    pad,
    pool_chunks,
    split_chunks,
)
from utils.logits import NEAR_TIE, measure_latency, predict_logits
from utils.tokenizers import unread

WORDS = [f"w{i}" for i in range(100)]
ROOM = 8  # words beside [CLS] and [SEP] in 10 tokens


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer(WORDS)


def words(tokenizer, ids):
    return tokenizer.decode(ids).split()


def text(n):
    return " ".join(WORDS[:n])


def test_a_short_text_stays_as_the_tokenizer_writes_it(tokenizer):
    for how in ("head", "head_tail", "chunks"):
        rows, cut = encode_texts(tokenizer, [text(3), text(ROOM), ""], 10, how)
        assert rows == tokenizer([text(3), text(ROOM), ""])["input_ids"]
        assert cut == [False, False, False]


def test_head_keeps_the_beginning_and_head_tail_a_quarter_of_it_and_the_end(tokenizer):
    (row,), (cut,) = encode_texts(tokenizer, [text(20)], 10, "head")
    assert cut and words(tokenizer, row) == ["[CLS]", *WORDS[:8], "[SEP]"]
    (row,), (cut,) = encode_texts(tokenizer, [text(20)], 10, "head_tail")
    assert cut and words(tokenizer, row) == ["[CLS]", *WORDS[:2], *WORDS[14:20], "[SEP]"]


@pytest.mark.parametrize("n", [ROOM + 1, 2 * ROOM, 20])
def test_chunks_hold_every_word_once_and_come_apart_where_they_were_joined(tokenizer, n):
    (row,), (cut,) = encode_texts(tokenizer, [text(n)], 10, "chunks")
    chunks = split_chunks(row, 10)
    assert not cut and len(chunks) == -(-n // ROOM)
    assert all(words(tokenizer, w)[0] == "[CLS]" and words(tokenizer, w)[-1] == "[SEP]" for w in chunks)
    assert [word for w in chunks for word in words(tokenizer, w)[1:-1]] == WORDS[:n]


def test_more_chunks_than_allowed_are_cut_and_said(tokenizer):
    (row,), (cut,) = encode_texts(tokenizer, [text(50)], 10, "chunks", max_chunks=3)
    assert cut and len(split_chunks(row, 10)) == 3
    (row,), (cut,) = encode_texts(tokenizer, [text(3 * ROOM)], 10, "chunks", max_chunks=3)
    assert not cut


def test_a_megabyte_of_text_is_read(tokenizer):
    (row,), (cut,) = encode_texts(tokenizer, ["w1 " * 350_000], 10, "head_tail")
    assert cut and len(row) == 10


def test_special_tokens_are_read_off_the_tokenizer(tokenizer):
    assert special_tokens(tokenizer) == ([tokenizer.cls_token_id], [tokenizer.sep_token_id])


def test_the_collator_pads_to_the_longest_chunk_and_counts_chunks_where_there_are_several():
    rows = [{"input_ids": list(range(1, 24)), "labels": 4}, {"input_ids": [5, 6], "labels": 0}]
    batch = ChunkCollator(pad_token_id=0, max_length=10)(rows)
    assert batch["labels"].tolist() == [4, 0] and batch["chunk_counts"].tolist() == [3, 1]
    assert batch["input_ids"].shape == (4, 10)
    assert batch["attention_mask"].sum(dim=1).tolist() == [10, 10, 3, 2]
    assert batch["input_ids"][3].tolist() == [5, 6] + [0] * 8
    assert "chunk_counts" not in ChunkCollator(0, 30)(rows)


def test_padding_is_no_wider_than_the_batch():
    assert pad([[1, 2], [3]], 0)["input_ids"].tolist() == [[1, 2], [3, 0]]


def test_pooled_logits_are_the_mean_of_each_texts_chunks():
    logits = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0], [0.0, 6.0], [0.0, 0.0]])
    pooled = mean_of_chunks(logits, torch.tensor([2, 3]))
    assert pooled.tolist() == [[2.0, 1.0], pytest.approx([5 / 3, 11 / 3])]


def test_a_model_that_pools_gives_a_row_a_text_and_its_loss_a_gradient(tmp_path):
    model, tokenizer = save_encoder(tmp_path, WORDS, num_labels=3)
    model.eval()
    rows, _ = encode_texts(tokenizer, [text(n) for n in (3, 40, 7)], 10, "chunks")
    batch = ChunkCollator(0, 10)([{"input_ids": ids, "labels": 0} for ids in rows])
    expected = predict_logits(model, rows, 0, 10, 16)
    pool_chunks(model)
    labels = batch.pop("labels")
    logits = model(**batch).logits
    assert len(logits) == len(labels) and np.allclose(logits.detach().numpy(), expected, atol=1e-5)
    assert len(model(input_ids=batch["input_ids"]).logits) == 7  # chunks, where no counts are given
    logits.sum().backward()
    assert model.classifier.weight.grad.abs().sum() > 0


class SumOfTokens(torch.nn.Module):
    """Logits that tell which tokens were seen, so that order and padding can be checked."""

    device = torch.device("cpu")
    config = PreTrainedConfig()

    def forward(self, input_ids, attention_mask):
        total = (input_ids * attention_mask).sum(dim=1).float()
        return SimpleNamespace(logits=torch.stack([total, attention_mask.sum(dim=1).float()], dim=1))


def test_logits_come_in_the_order_of_the_rows_and_chunks_count_once():
    rng = np.random.default_rng(1)
    rows = [rng.integers(1, 50, size=n).tolist() for n in (3, 25, 1, 10, 7, 18)]
    logits = predict_logits(SumOfTokens(), rows, pad_token_id=9, max_length=10, batch_size=2)
    expected = [[np.mean([sum(w) for w in split_chunks(r, 10)]), len(r) / len(split_chunks(r, 10))] for r in rows]
    assert np.allclose(logits, expected)


def test_predicting_leaves_the_mode_of_the_model_as_it_was_and_batches_change_nothing(tmp_path):
    model, tokenizer = save_encoder(tmp_path, WORDS, num_labels=3)
    model.train()
    rows, _ = encode_texts(tokenizer, [text(n) for n in (3, 40, 7, 12)], 10, "chunks")
    one, all_at_once = (predict_logits(model, rows, 0, 10, batch_size) for batch_size in (1, 16))
    assert model.training
    assert np.allclose(one, all_at_once, atol=1e-5)


def test_in_half_precision_near_ties_are_decided_in_float32(tmp_path):
    model, tokenizer = save_encoder(tmp_path, WORDS, num_labels=40)
    rows, _ = encode_texts(tokenizer, [" ".join(np.random.default_rng(i).choice(WORDS, 8)) for i in range(300)], 10)
    exact, half = (predict_logits(model, rows, 0, 10, 16, autocast) for autocast in (None, "bfloat16"))
    best = np.sort(half, axis=1)
    near = best[:, -1] - best[:, -2] < NEAR_TIE
    assert 5 < near.sum() < 300 and np.allclose(half[near], exact[near], atol=1e-5)
    assert not np.allclose(half[~near], exact[~near], atol=1e-5)
    assert (half.argmax(axis=1) == exact.argmax(axis=1)).all()


def test_latency_is_in_milliseconds_and_counts_all_rows():
    predict = partial(predict_logits, SumOfTokens(), pad_token_id=0, max_length=10, batch_size=8)
    measured = measure_latency(predict, [[1, 2, 3]] * 40)
    assert 0 < measured["latency_p50_ms"] <= measured["latency_p95_ms"] < 1000
    assert measured["predict_texts_per_second"] > 40


def test_latency_is_that_of_rows_alone_without_the_first_call_and_speed_that_of_all_together(monkeypatch):
    clock, asked = [0.0], []
    monkeypatch.setattr("utils.logits.time.perf_counter", lambda: clock[0])

    def predict(rows: list[list[int]]) -> np.ndarray:
        clock[0] += 9.0 if not asked else 2.0 if len(rows) > 1 else 0.001 * rows[0][0]
        asked.append(rows)
        return np.zeros((len(rows), 2))

    rows = [[i] for i in range(1, 41)]
    measured = measure_latency(predict, rows, most=5)
    assert asked == [[[1]], *([row] for row in rows[:5]), rows]
    assert measured["latency_p50_ms"] == pytest.approx(3) and measured["latency_p95_ms"] == pytest.approx(4.8)
    assert measured["predict_texts_per_second"] == pytest.approx(20)


def test_rows_of_a_split_are_its_columns_and_what_the_trainer_reads(tokenizer):
    split = Dataset.from_dict({"id": ["a", "b"], "_cluster": [3, 3]})
    task = {"max_length": 10, "long_texts": "chunks", "max_chunks": 2}
    rows, dataset, counts = encode_rows(split, [text(3), text(40)], np.array([1, 0]), tokenizer, task)
    assert (rows["id"], rows["cluster"], rows["text"]) == (["a", "b"], [3, 3], [text(3), text(40)])
    assert rows["label"].tolist() == [1, 0] and rows["cut"] == [False, True]
    assert dataset["labels"][:] == [1, 0]
    assert dataset["input_ids"][:] == encode_texts(tokenizer, [text(3), text(40)], 10, "chunks", 2)[0]


@pytest.mark.parametrize("n_texts", [1, 6, 7, 8, 20])
@pytest.mark.parametrize("long_texts", ["head", "chunks"])
def test_rows_that_are_tokenized_in_parts_are_those_of_one_call(tokenizer, monkeypatch, n_texts, long_texts):
    monkeypatch.setattr(encoding, "BATCH", 7)
    texts, labels = [text(3 * i) for i in range(n_texts)], np.arange(n_texts)
    split = Dataset.from_dict({"id": [str(i) for i in labels], "_cluster": labels})
    task = {"max_length": 10, "long_texts": long_texts, "max_chunks": 2}
    rows, dataset, counts = encode_rows(split, texts, labels, tokenizer, task)
    ids, cut = encode_texts(tokenizer, texts, 10, long_texts, 2)
    assert dataset["input_ids"][:] == ids and dataset["labels"][:] == labels.tolist()
    assert rows["cut"] == cut and rows["text"] == texts
    assert counts == {"cut_texts": sum(cut), **unread(tokenizer, texts, ids)}
