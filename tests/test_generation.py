import numpy as np
import pytest
import torch
from conftest import toy_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from utils.chat import chat_prompt, tokenize_pairs
from utils.generation import batches_by_length, generate_answers, progress, score_answers
from utils.serving.decoding import Row, decode_rows

GENERATION = {"max_new_tokens": 12, "do_sample": False}


@pytest.fixture(scope="module", params=["tiny_llama", "tiny_phi3", "tiny_phi"])
def loaded(request):
    folder = request.getfixturevalue(request.param)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), tokenizer


@pytest.fixture(scope="module")
def rows(loaded):
    """Prompts and answers of very different lengths, in no order."""
    _, tokenizer = loaded
    chat = tokenizer.chat_template is not None
    questions = [row["question"] * (1 + i % 3) for i, row in enumerate(toy_rows()[:9])]
    answers = [row["answer"][: 5 + 17 * (i % 5)] for i, row in enumerate(toy_rows()[:9])]
    prompts = [chat_prompt(tokenizer, [{"role": "user", "content": q}]) if chat else q for q in questions]
    return tokenize_pairs(tokenizer, prompts, answers, chat)


@torch.inference_mode()
def naive_score(model, prompt, answer) -> float:
    """One row, no padding, every logit."""
    ids = torch.tensor([prompt + answer])
    log_probs = model(input_ids=ids).logits[0].float().log_softmax(-1)
    return -sum(log_probs[len(prompt) + k - 1, token].item() for k, token in enumerate(answer))


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_scores_are_those_of_each_row_alone_without_padding(loaded, rows, batch_size):
    model, tokenizer = loaded
    prompts, answers = rows
    nll, tokens = score_answers(model, prompts, answers, tokenizer.pad_token_id, batch_size, None)
    expected = [naive_score(model, p, a) for p, a in zip(prompts, answers, strict=True)]
    assert nll == pytest.approx(np.array(expected), abs=1e-4)
    assert tokens.tolist() == [len(a) for a in answers]


def test_the_output_layer_copies_no_weights_for_each_row(loaded, rows, monkeypatch):
    model, tokenizer = loaded
    head, pad_id, shapes = model.get_output_embeddings(), tokenizer.pad_token_id, []
    forward = head.forward

    def watched(hidden):
        assert hidden.is_contiguous()
        shapes.append(hidden.shape)
        return forward(hidden)

    monkeypatch.setattr(head, "forward", watched)
    score_answers(model, *rows, pad_id, 4, None)
    generate_answers(model, tokenizer, rows[0], tokenizer.eos_token, GENERATION, 4, None)
    batch = [Row(prompt, 3, None, None, lambda: False) for prompt in rows[0][:3]]
    decode_rows(model, tokenizer, batch, [pad_id], GENERATION, lambda *own: None)
    assert any(len(shape) == 3 and shape[0] > 1 and shape[1] > 1 for shape in shapes)
    assert not head._forward_pre_hooks


def test_the_pad_token_does_not_matter(loaded, rows):
    model, _ = loaded
    first, second = (score_answers(model, *rows, pad_id, 4, None)[0] for pad_id in (0, 77))
    assert first == pytest.approx(second, abs=1e-4)


@torch.inference_mode()
def naive_answer(model, tokenizer, prompt, stops) -> tuple[str, bool]:
    ids = list(prompt)
    for _ in range(GENERATION["max_new_tokens"]):
        ids.append(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax().item())
        if ids[-1] in stops:
            return tokenizer.decode(ids[len(prompt) : -1], skip_special_tokens=True).strip(), True
    return tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True).strip(), False


def test_answers_are_greedy_in_order_and_the_same_in_any_batch(loaded, rows):
    model, tokenizer = loaded
    prompts, _ = rows
    # a token that the model says early in some rows and not in others serves as the stop token
    first, _ = generate_answers(model, tokenizer, prompts, tokenizer.eos_token, GENERATION, 1, None)
    said = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in first]
    common = max({t for row in said for t in row}, key=lambda t: (0 < sum(t in row for row in said) < 9, t))
    stop = tokenizer.convert_ids_to_tokens(common)
    expected = [naive_answer(model, tokenizer, p, {common, tokenizer.eos_token_id}) for p in prompts]
    for batch_size in (1, 4, 9):
        texts, finished = generate_answers(model, tokenizer, prompts, stop, GENERATION, batch_size, None)
        assert texts == [text for text, _ in expected]
        assert finished == [end for _, end in expected]
    assert len(set(finished)) == 2  # some ended by themselves, some were cut off


def test_an_answer_that_ends_at_once_is_empty_and_ended(loaded, rows):
    model, tokenizer = loaded
    prompts, _ = rows
    with torch.inference_mode():
        token = model(input_ids=torch.tensor([prompts[0]])).logits[0, -1].argmax().item()
    stop = tokenizer.convert_ids_to_tokens(token)
    assert generate_answers(model, tokenizer, prompts[:1], stop, GENERATION, 1, None) == ([""], [True])


def test_a_base_models_own_sampling_is_not_used(loaded, rows):
    model, tokenizer = loaded
    prompts, _ = rows
    before = model.generation_config
    model.generation_config = type(before)(do_sample=True, temperature=5.0, max_new_tokens=3)
    sampled = [generate_answers(model, tokenizer, prompts, tokenizer.eos_token, GENERATION, 4, None) for _ in "ab"]
    model.generation_config = before
    greedy = generate_answers(model, tokenizer, prompts, tokenizer.eos_token, GENERATION, 4, None)
    assert sampled == [greedy, greedy]


def test_batches_hold_each_row_once_longest_first():
    lengths = [3, 9, 1, 9, 4, 7, 2]
    batches = batches_by_length(lengths, 3)
    flat = [i for batch in batches for i in batch]
    assert sorted(flat) == list(range(7)) and [len(b) for b in batches] == [3, 3, 1]
    assert [lengths[i] for i in flat] == sorted(lengths, reverse=True)


@pytest.mark.parametrize("seconds, said", [(0.5, False), (45.0, True)])
def test_where_there_are_no_bars_a_line_says_how_long_it_takes(seconds, said, monkeypatch, caplog):
    now = iter(range(10))
    monkeypatch.setattr("utils.generation.are_progress_bars_disabled", lambda: True)
    monkeypatch.setattr("utils.generation.time.monotonic", lambda: next(now) * seconds)
    with caplog.at_level("INFO"):
        assert list(progress([[3, 1], [0], [2]], "test")) == [[3, 1], [0], [2]]
    assert "test: 3 batches" in caplog.text
    assert ("minutes" in caplog.text) == said
    caplog.clear()
    assert list(progress([[0], [1]], None)) == [[0], [1]] and not caplog.text
