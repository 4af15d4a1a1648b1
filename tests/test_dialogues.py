"""Dialogues of several turns: what the loss covers, what serving sees, and what is cut."""

from itertools import pairwise
from pathlib import Path

import pytest
import trl
from conftest import CHATML, make_tokenizer
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from utils.arguments import UserError
from utils.chat import chat_prompt, tokenize_pairs
from utils.evaluation.answers import tokenize_turns
from utils.prompts import (
    build_prompt,
    earlier_turns,
    prompt_turns,
    recent_turns,
    render_prompt,
    tokenize_dialogues,
)

COLUMNS = {"question": "question", "context": None, "options": None, "answer": "answer", "answer_index": None}
TASK = {
    "columns": COLUMNS, "chat": True, "system_prompt": None, "prompt_template": "{question}", "max_length": 256,
    "raw_columns": {"dataset_format": "messages"},
}  # fmt: skip
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATES = Path(trl.__file__).parent / "chat_templates"
# The end of a turn in and after the markers, and none of it; and templates that TRL trains with
MARKED = [
    CHATML.replace(
        "{{ m['content'] }}<|im_end|>\n",
        "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}" + end + "{% else %}"
        "{{ m['content'] }}<|im_end|>\n{% endif %}",
    )
    for end in (
        "<|im_end|>{% endgeneration %}\n",
        "{{ '<|im_end|>\n' }}{% endgeneration %}",
        "{% endgeneration %}<|im_end|>\n",
    )
]
MARKED += [(TEMPLATES / f"{name}_training.jinja").read_text() for name in ("qwen3", "phi3")]


def turns_of(*texts, system=None):
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    return [{"role": "system", "content": system}, *turns] if system else turns


DIALOGUES = [
    turns_of("What is carditis?", "A disease of the heart."),
    turns_of("I have fever.", "Since when?", "A week.", "Rest and fluids.", system="Be brief."),
    turns_of(*[f"What is {i}?" if i % 2 == 0 else f"It begins within {i} hours." for i in range(8)]),
]


@pytest.fixture(scope="module")
def tokenizer(tiny_llama):
    return AutoTokenizer.from_pretrained(tiny_llama)


def learned(tokenizer, example) -> list[str]:
    """The texts that the loss covers, each up to the next token that it leaves out."""
    ids = zip(example["input_ids"], example["labels"], strict=True)
    marked = [(token, label != -100) for token, label in ids]
    assert all(label in (-100, token) for token, label in zip(example["input_ids"], example["labels"], strict=True))
    runs: list[list[int]] = []
    for (_, before), (token, now) in pairwise([(0, False), *marked]):
        if now and not before:
            runs.append([])
        if now:
            runs[-1].append(token)
    return [tokenizer.decode(run) for run in runs]


# ----- What the loss covers


@pytest.mark.parametrize("name", ["tiny_llama", "tiny_phi3"])
def test_the_loss_covers_every_turn_of_the_assistant_to_its_end_and_nothing_else(name, request):
    tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue(name))
    end = {"tiny_llama": "<|im_end|>", "tiny_phi3": "<|end|>"}[name]
    examples, counts = tokenize_dialogues(tokenizer, TASK, DIALOGUES)
    for turns, example in zip(DIALOGUES, examples, strict=True):
        said = [turn["content"] + end for turn in turns if turn["role"] == "assistant"]
        assert learned(tokenizer, example) == said
        assert tokenizer.decode(example["input_ids"]) == chat_prompt(tokenizer, turns[:-1]) + said[-1]
    assert set(counts.values()) == {0}


@pytest.mark.parametrize("template", MARKED)
def test_a_template_with_markers_gives_the_ids_and_labels_of_trl(template, tiny_llama, tmp_path):
    tokenizer = make_tokenizer(SPECIALS, "<|im_end|>", template, "<|endoftext|>")
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_llama),
        args=SFTConfig(str(tmp_path), assistant_only_loss=True, use_cpu=True, bf16=False, report_to="none"),
        train_dataset=Dataset.from_list([{"messages": turns} for turns in DIALOGUES]),
        processing_class=tokenizer,
    )
    examples, _ = tokenize_dialogues(tokenizer, TASK | {"max_length": 1024}, DIALOGUES)
    for example, row in zip(examples, trainer.train_dataset, strict=True):
        assert example["input_ids"] == row["input_ids"] and example["labels"] == row["labels"]


def test_one_question_gives_the_tokens_of_a_pair(tokenizer):
    turns = DIALOGUES[0]
    (example,), _ = tokenize_dialogues(tokenizer, TASK, [turns])
    (prompt,), (answer,) = tokenize_pairs(tokenizer, [chat_prompt(tokenizer, turns[:1])], [turns[1]["content"]], True)
    assert example == {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}


def test_an_answer_that_the_template_writes_differently_later_is_learned_in_a_row_of_its_own():
    # As Qwen3: thoughts only in the last turn
    thoughts = "{{ '<think></think>' if m['role'] == 'assistant' and loop.last else '' }}{{ m['content'] }}"
    tokenizer = make_tokenizer(SPECIALS, "<|im_end|>", CHATML.replace("{{ m['content'] }}", thoughts), "<|endoftext|>")
    examples, counts = tokenize_dialogues(tokenizer, TASK, DIALOGUES[:2])
    assert [learned(tokenizer, example) for example in examples] == [
        ["<think></think>A disease of the heart.<|im_end|>"], ["<think></think>Since when?<|im_end|>"],
        ["<think></think>Rest and fluids.<|im_end|>"],
    ]  # fmt: skip
    assert counts["extra_rows"] == 1
    assert examples[1] == tokenize_dialogues(tokenizer, TASK, [DIALOGUES[1][:3]])[0][0]


# ----- The same turns from a row


ROW = {"question": "A week.", "answer": "Rest.", "history": ["I have fever.", "Since when?"], "system": ""}


def test_a_rows_system_turn_wins_over_the_recipes():
    task = TASK | {"system_prompt": "Answer."}
    assert [turn["content"] for turn in prompt_turns(ROW, task)] == ["Answer.", *ROW["history"], "A week."]
    assert earlier_turns(ROW | {"system": "Be brief."}, task)[0]["content"] == "Be brief."
    assert earlier_turns(ROW, TASK) == turns_of(*ROW["history"])


def test_columns_that_only_look_like_a_dialogue_are_none():
    """A medical history and an organ system are columns of people's own."""
    row = ROW | {"system": "cardiac", "history": "Two infarctions."}
    assert prompt_turns(row, TASK | {"raw_columns": {"dataset_format": "columns"}}) == turns_of("A week.")


def test_the_template_writes_every_turn_of_the_user_and_a_context_only_the_last():
    columns = COLUMNS | {"context": "note"}
    task = TASK | {"columns": columns, "prompt_template": "{context} Patient ({age}): {question}"}
    texts = [turn["content"] for turn in prompt_turns(ROW | {"note": "Pale.", "age": 70}, task)]
    assert texts == ["Patient (70): I have fever.", "Since when?", "Pale. Patient (70): A week."]


def test_several_turns_need_a_chat_template(tiny_phi):
    tokenizer = AutoTokenizer.from_pretrained(tiny_phi)
    with pytest.raises(UserError, match="chat template"):
        build_prompt(tokenizer, TASK | {"chat": False}, ROW)
    assert build_prompt(tokenizer, TASK | {"chat": False}, ROW | {"history": []}) == "A week."


def test_turns_that_a_template_refuses_end_in_one_line():
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    tokenizer = make_tokenizer(SPECIALS, "<|im_end|>", template, "<|endoftext|>")
    assert render_prompt(tokenizer, TASK, turns_of("Why?"))
    with pytest.raises(UserError, match="`system_prompt`"):
        render_prompt(tokenizer, TASK, turns_of("Why?", system="Be brief."))


# ----- Length


def test_the_oldest_exchanges_are_left_out_the_system_turn_and_the_last_question_stay(tokenizer):
    turns = turns_of(*[f"Turn {i} of a long talk about the heart." for i in range(21)], system="Be brief.")
    for most in (100, 150, 256):
        task = TASK | {"max_length": most}
        kept = recent_turns(tokenizer, task, turns)
        dropped = len(turns) - len(kept)
        assert kept == turns[:1] + turns[1 + dropped :] and dropped % 2 == 0 and dropped > 0
        size = [
            len(tokenizer(chat_prompt(tokenizer, t))["input_ids"]) for t in (kept, [turns[0], *turns[dropped - 1 :]])
        ]
        assert size[0] <= most - most // 4 < size[1]
        assert recent_turns(tokenizer, task, kept) == kept
        assert render_prompt(tokenizer, task, turns) == chat_prompt(tokenizer, kept)
    assert recent_turns(tokenizer, TASK | {"max_length": 4}, turns) == [turns[0], turns[-1]]


def test_training_and_serving_cut_alike_and_count(tokenizer):
    long = turns_of(*[f"Turn {i} of a long talk about the heart." for i in range(22)])
    task = TASK | {"max_length": 150}
    examples, counts = tokenize_dialogues(tokenizer, task, [*DIALOGUES[:1], long])
    prompts, ids, answers, cut = tokenize_turns(tokenizer, task, [long[:-1]], [long[-1]["content"]])
    assert counts["cut_dialogues"] == cut["cut_dialogues"] == 1 and counts["cut_answers"] == 0
    assert examples[1]["input_ids"] == ids[0] + answers[0] and prompts == [render_prompt(tokenizer, task, long[:-1])]
    assert len(learned(tokenizer, examples[1])) > 1


def test_rows_without_room_for_an_answer_are_dropped_and_long_answers_cut(tokenizer):
    rows = [turns_of("heart " * 90, "Yes."), turns_of("Why?", "heart " * 90), turns_of("Why?", "So.")]
    examples, counts = tokenize_dialogues(tokenizer, TASK | {"max_length": 40}, rows)
    assert [len(example["input_ids"]) <= 40 for example in examples] == [True, True]
    assert counts == {"dropped_too_long": 1, "cut_answers": 1, "cut_dialogues": 0, "extra_rows": 0}
