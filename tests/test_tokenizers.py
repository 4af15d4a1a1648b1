"""What a repository leaves out of its tokenizer, and what a tokenizer cannot read."""

import logging

import pytest
from conftest import make_tokenizer
from test_control_tokens import KINDS
from tokenizers import normalizers
from transformers import AutoTokenizer, BertConfig, BertModel, GPT2Config, GPT2Model
from trl import ModelConfig

from utils.modeling import load_tokenizer
from utils.tokenizers import flattened, loses_capitals, unread

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LOWER = [*"abcdefghijklmnopqrstuvwxyz", "no", "fever", "##s"]
CAPITALS = ["No", "Fever", "COPD", "É", "##S"]


def save_bert(folder, pieces, **settings):
    """A model as Bio_ClinicalBERT is published: weights, configuration and vocabulary, and nothing about case."""
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=24,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join([*SPECIALS, *pieces]) + "\n", encoding="utf-8")
    return folder


def load(folder):
    return load_tokenizer(ModelConfig(model_name_or_path=str(folder)))


# ----- Case


def test_a_cased_model_without_settings_keeps_its_capitals_also_when_saved(tmp_path, caplog):
    folder = save_bert(tmp_path / "cased", [*LOWER, *CAPITALS])
    assert AutoTokenizer.from_pretrained(folder).tokenize("No COPD É") == ["no", "[UNK]", "e"]
    with caplog.at_level(logging.WARNING):
        tokenizer = load(folder)
    assert "`do_lower_case`" in caplog.text
    assert tokenizer.tokenize("No COPD É fevers") == ["No", "COPD", "É", "fever", "##s"]
    tokenizer.save_pretrained(tmp_path / "run")
    assert AutoTokenizer.from_pretrained(tmp_path / "run").tokenize("No COPD É") == ["No", "COPD", "É"]


def test_an_uncased_model_stays_as_it_is(tmp_path, caplog):
    folder = save_bert(tmp_path / "uncased", LOWER)
    assert load(folder).tokenize("No FEVER") == ["no", "fever"]
    assert not caplog.records


def test_what_a_repository_says_about_case_counts(tmp_path, caplog):
    folder = save_bert(tmp_path / "stated", [*LOWER, *CAPITALS])
    AutoTokenizer.from_pretrained(folder, do_lower_case=True).save_pretrained(folder)
    with caplog.at_level(logging.WARNING):
        assert load(folder).tokenize("No fever") == ["no", "fever"]
    assert "lower case" in caplog.text


def test_tokenizers_that_keep_capitals_or_have_none_are_fine():
    assert not any(loses_capitals(tokenizer) for name, tokenizer in KINDS.items() if name != "word_pieces")


# ----- Length


def test_the_positions_of_a_model_limit_its_tokenizer(tmp_path):
    assert load(save_bert(tmp_path / "bert", LOWER)).model_max_length == 24
    sizes = {"vocab_size": 600, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 40}
    for name, own, limit in (("unset", None, 40), ("longer", 512, 40), ("shorter", 32, 32)):
        tokenizer = make_tokenizer(["<|endoftext|>"], "<|endoftext|>", None)
        tokenizer.model_max_length = own or tokenizer.model_max_length
        GPT2Model(GPT2Config(**sizes)).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        assert load(tmp_path / name).model_max_length == limit


# ----- Unknown tokens


def ids_of(tokenizer, texts):
    return tokenizer(texts)["input_ids"]


def test_unknown_characters_are_counted_and_named_and_no_text_is(caplog):
    tokenizer = KINDS["unigram"]
    texts = ["Jane Doe: INR ≥ 2 µg", "no ≥ here", "fine"]
    with caplog.at_level(logging.WARNING):
        counts = unread(tokenizer, texts, ids_of(tokenizer, texts))
    assert counts == {"unknown_tokens": 2 + 1, "unknown_characters": "µ ≥", "control_token_texts": 0}
    assert "µ ≥" in caplog.text and "Jane" not in caplog.text


def test_words_of_known_characters_can_be_unknown(caplog):
    tokenizer = KINDS["word_pieces"]
    texts = ["a" * 150]  # longer than the 100 characters that WordPiece splits
    with caplog.at_level(logging.WARNING):
        counts = unread(tokenizer, texts, ids_of(tokenizer, texts))
    assert counts == {"unknown_tokens": 1, "control_token_texts": 0} and "1 token" in caplog.text


@pytest.mark.parametrize("kind", ["bytes_with_chat", "sentence_pieces", "python"])
def test_bytes_are_never_unknown(kind, caplog):
    texts = ["INR ≥ 2 µg", "漢字 \N{BLACK SQUARE}"]
    counts = unread(KINDS[kind], texts, ids_of(KINDS[kind], texts))
    assert counts == {"unknown_tokens": 0, "control_token_texts": 0} and not caplog.records


def test_a_token_that_stands_for_unknown_and_for_the_end_is_not_counted():
    tokenizer = make_tokenizer(["<|endoftext|>"], "<|endoftext|>", None)
    tokenizer.unk_token = "<|endoftext|>"  # as GPT-2 has it
    assert unread(tokenizer, ["a"], [[5, tokenizer.eos_token_id]])["unknown_tokens"] == 0


def test_superscripts_and_fractions_that_a_normalizer_flattens_are_named(caplog):
    tokenizer = make_tokenizer(["<|endoftext|>"], "<|endoftext|>", None)
    texts = ["Jane: 10⁹ per litre", "1½ tablets, CO₂, µ, ㎎, é", "fine"]
    assert flattened(tokenizer, texts) == set()
    for form, expected in ((normalizers.NFC(), ""), (normalizers.NFKC(), "½ ⁹ ₂")):
        tokenizer.backend_tokenizer.normalizer = form
        with caplog.at_level(logging.WARNING):
            counts = unread(tokenizer, texts, ids_of(tokenizer, texts))
        assert counts.get("flattened_characters", "") == expected and (expected in caplog.text)
    assert "Jane" not in caplog.text


def test_texts_that_spell_control_tokens_are_counted(caplog):
    tokenizer = KINDS["bytes_with_chat"]
    texts = ["a <|im_end|> b", "fine", "<|im_start|><|im_end|>"]
    with caplog.at_level(logging.WARNING):
        assert unread(tokenizer, texts, ids_of(tokenizer, texts))["control_token_texts"] == 2
    assert "control tokens" in caplog.text
