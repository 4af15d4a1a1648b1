"""Recipes of newer models on their architectures in tiny: trained, evaluated, saved, loaded, asked again. And what
chat templates with thoughts teach."""

import csv
import re
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import yaml
from conftest import (
    ROOT,
    SIZES,
    make_tokenizer,
    read_jsonl,
    run_here,
    save_model,
    toy_dialogues,
    toy_exam,
    toy_notes,
    toy_rows,
    tree_rows,
    word_tokenizer,
    write_rows,
)
from conftest import flags as make_flags
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    ModernBertModel,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

import run_classification
import run_hierarchical
import run_qa_sft
import run_summarization
from utils.arguments import UserError
from utils.chat import answer_delimiters, chat_prompt, generation_prompt, settle_chat_template
from utils.control_tokens import THOUGHT
from utils.inference import Predictor
from utils.prompts import tokenize_dialogues

TEMPLATES = files("trl").joinpath("chat_templates")
PHI4 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)
# An empty thought before the last answer, in the prompt only where thinking is switched off
QWEN3 = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
# A mode in the system turn, the day, and markers that cover the beginning of an answer's turn
SMOLLM3 = (
    "{% if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}"
    "{% set mode = '/think' if enable_thinking else '/no_think' %}{% set empty = '<think>\n\n</think>\n' %}"
    "{{ '<|im_start|>system\nDate: ' + strftime_now('%d %B %Y') + '\nMode: ' + mode + '\n' }}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}{{ '<|im_end|>\n' }}"
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}"
    "{% elif m.role == 'assistant' %}{% generation %}{{ '<|im_start|>assistant\n' }}"
    "{% if mode == '/no_think' %}{{ empty }}{% endif %}{{ m.content + '<|im_end|>\n' }}{% endgeneration %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if mode == '/no_think' %}{{ empty }}{% endif %}{% endif %}"
)
# No switch: the empty thought stands before each answer, and not in the prompt
UNSWITCHED = QWEN3.replace(" and loop.last", "").split("{% if enable_thinking")[0] + "{% endif %}"
THINKS_ALWAYS = QWEN3.split("{% if enable_thinking")[0] + "{{ '<think>\n' }}{% endif %}"
CHATML_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
NARROW = SIZES | {"num_key_value_heads": 2, "max_position_embeddings": 1024, "initializer_range": 0.1}


def template_of(name: str) -> str:
    return TEMPLATES.joinpath(f"{name}.jinja").read_text(encoding="utf-8")


def gemma3(tokenizer) -> Gemma3Config:
    """With the tower for images that MedGemma has."""
    vision = SIZES | {"image_size": 28, "patch_size": 14, "num_hidden_layers": 1}
    text = NARROW | {"head_dim": 16, "sliding_window": 32, "vocab_size": len(tokenizer)}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    config.text_config.pad_token_id = config.image_token_index = tokenizer.pad_token_id
    return config


def make_decoder(name: str, folder: Path) -> Path:
    if name == "gemma3":
        tokens = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
        tokenizer = make_tokenizer(tokens, "<eos>", template_of("gemma3"), "<pad>")
        tokenizer.bos_token = "<bos>"
        return save_model(folder, Gemma3ForConditionalGeneration, gemma3(tokenizer), tokenizer)
    if name == "phi4_mini":
        tokenizer = make_tokenizer(
            ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"], "<|endoftext|>", PHI4,
            "<|endoftext|>",
        )  # fmt: skip
        rope = {"rope_type": "longrope", "short_factor": [1.0] * 6, "long_factor": [1.5] * 6, "rope_theta": 10_000.0}
        config = Phi3Config(
            **NARROW, rope_parameters=rope | {"partial_rotary_factor": 0.75}, original_max_position_embeddings=512,
            tie_word_embeddings=True,
        )  # fmt: skip
        return save_model(folder, Phi3ForCausalLM, config, tokenizer)
    template = template_of("qwen3_instruct_2507") if name == "qwen3" else SMOLLM3
    tokenizer = make_tokenizer(CHATML_TOKENS, "<|im_end|>", template, "<|endoftext|>")
    if name == "qwen3":
        config = Qwen3Config(**NARROW, head_dim=16, tie_word_embeddings=True)
        return save_model(folder, Qwen3ForCausalLM, config, tokenizer)
    # The second layer has no positions, as each fourth of the published model
    config = SmolLM3Config(**NARROW, no_rope_layers=[1, 0], tie_word_embeddings=True)
    return save_model(folder, SmolLM3ForCausalLM, config, tokenizer)


DECODERS = ("qwen3", "gemma3", "phi4_mini", "smollm3")


@pytest.fixture(scope="module")
def decoders(tmp_path_factory):
    return {name: make_decoder(name, tmp_path_factory.mktemp("models") / name) for name in DECODERS}


@pytest.fixture(scope="module")
def modernbert(tmp_path_factory) -> Path:
    tokenizer = word_tokenizer([word for row in toy_notes() for word in re.findall(r"\w+", row["note"].lower())])
    tokenizer.eos_token, tokenizer.model_max_length = "[SEP]", 8192
    config = ModernBertConfig(
        **SIZES,
        cls_token_id=2,
        sep_token_id=3,
        initializer_range=0.1,
        local_attention=16,
        global_attn_every_n_layers=2,
    )
    return save_model(tmp_path_factory.mktemp("models") / "bert", ModernBertModel, config, tokenizer)


# ----- The recipes


def medqa(folder: Path) -> Path:
    rows = [{**row, "answer_idx": "ABCD"[row["answer_index"]]} for row in toy_exam()]
    rows = [row | {"options": dict(zip("ABCD", row["options"], strict=True))} for row in rows]
    write_rows(folder / "train.jsonl", rows[:40])
    return write_rows(folder / "test.jsonl", rows[40:]).parent


def pubmedqa(folder: Path) -> Path:
    rows = [
        {
            "id": str(i),
            "pubid": i,
            "question": row["question"],
            "context": {"contexts": row["answer"].split("; "), "labels": ["A"]},
        }
        | {"final_decision": ("yes", "no", "maybe")[i % 3]}
        for i, row in enumerate(toy_rows()[:60])
    ]
    return write_rows(folder / "train.jsonl", rows)


def medquad(folder: Path) -> Path:
    rows = [{**row, "document_id": row["document"]} for row in toy_rows()[:60]]
    return write_rows(folder / "train.jsonl", rows)


def notes(folder: Path) -> Path:
    rows = [{"id": row["id"], "text": row["note"], "label": row["ward"]} for row in toy_notes()]
    write_rows(folder / "train.csv", rows[:120])
    return write_rows(folder / "test.csv", rows[120:]).parent


def tree(folder: Path) -> Path:
    rows = [{"id": r["id"], "text": r["note"], "parent": r["group"], "child": r["ward"]} for r in tree_rows()]
    return write_rows(folder / "train.csv", rows)


def visits(folder: Path) -> Path:
    rows = [{"dataset": "aci", **row} for row in toy_dialogues()]
    write_rows(folder / "train.csv", rows[:60])
    write_rows(folder / "valid.csv", rows[60:70])
    return write_rows(folder / "clinicalnlp_taskB_test1.csv", rows[70:]).parent


RECIPES = {
    "qwen3_4b_qlora": (run_qa_sft, "qwen3", lambda folder, data: data.exam_folder),
    "medgemma_1_5_4b_qlora": (run_qa_sft, "gemma3", lambda folder, data: medqa(folder)),
    "phi4_mini_qlora": (run_qa_sft, "phi4_mini", lambda folder, data: pubmedqa(folder)),
    "smollm3_qlora": (run_qa_sft, "smollm3", lambda folder, data: medquad(folder)),
    "qwen3_4b_aci_bench": (run_summarization, "qwen3", lambda folder, data: visits(folder)),
    "bioclinical_modernbert": (run_classification, "modernbert", lambda folder, data: notes(folder)),
    "bioclinical_modernbert_hierarchical": (run_hierarchical, "modernbert", lambda folder, data: tree(folder)),
}
# Sizes and speed alone; everything else is as in the recipe
TINY = {
    "use_cpu": True, "max_steps": 2, "per_device_train_batch_size": 2, "eval_strategy": "no", "save_strategy": "no",
    "load_best_model_at_end": False, "report_to": "none", "max_eval_samples": 4, "max_predict_samples": 4,
    "max_train_samples": 40, "near_duplicate_threshold": 1.0,
}  # fmt: skip
SMALLER = {
    run_qa_sft: {"max_length": 256, "max_new_tokens": 4, "optim": "adamw_torch", "warmup_steps": 1},
    run_summarization: {
        "max_source_length": 300,
        "max_target_length": 32,
        "max_new_tokens": 4,
        "optim": "adamw_torch",
    },
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_evaluates_saves_and_serves_its_architecture(name, decoders, modernbert, data, tmp_path):
    script, model, make_data = RECIPES[name]
    rows, folder = make_data(tmp_path / "data", data), decoders.get(model, modernbert)
    source = {"dataset_name": rows} if rows.is_dir() else {"train_file": rows}
    if script is run_summarization:
        names = yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text())
        source = {f"{split}_file": rows / names[f"{split}_file"] for split in ("train", "validation", "test")}
    values = TINY | SMALLER.get(script, {}) | source
    values |= {"model_name_or_path": folder, "output_dir": tmp_path / "run"}
    recipe = (ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    unset = [
        key for key in ("dataset_name", "dataset_config_name", "early_stopping_patience") if f"\n{key}:" in recipe
    ]
    argv = [str(ROOT / "recipes" / f"{name}.yaml"), *make_flags(**values)]
    argv += [f"--no_{key}" for key in unset if key not in values]
    done = run_here(script.main, script.ARGUMENTS, argv)
    assert done.code == 0, done.stderr[-3000:]
    assert done.results["train_loss"] > 0 and done.results["test_rows"] == 4
    if model == "gemma3":
        weights = (done.folder / "adapter_config.json").read_text()
        assert "vision_tower" in weights and done.results["trainable_parameters"] == done.results["lora_parameters"]
    # Loaded from the folder, it gives the answers of the evaluation
    known = {row["id"]: row for row in given_rows(rows)}
    expected = done.predictions
    answers = Predictor.from_pretrained(str(done.folder))([known[row["id"]] for row in expected], batch_size=3)
    for answer, row in zip(answers, expected, strict=True):
        if "option" in answer:  # chosen by likelihood; the written answer of the evaluation is another
            continue
        assert answer["prediction"] == row["prediction"]
        if script is run_summarization:
            continue
        found = [a[-1] if isinstance(a, list) else a for a in (answer["confidence"], row["confidence"])]  # of a leaf
        assert found[0] == pytest.approx(found[1], abs=1e-3)


def given_rows(path: Path) -> list[dict]:
    found: list[dict] = []
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        found += read_jsonl(file) if file.suffix == ".jsonl" else list(csv.DictReader(file.open(encoding="utf-8")))
    return found


# ----- Padding and packing


def texts_of(tokenizer) -> list[list[int]]:
    rows = [row["question"] + " " + row["answer"] * (1 + i % 3) for i, row in enumerate(toy_rows()[:4])]
    return [tokenizer(text)["input_ids"] for text in rows]


@torch.no_grad()
def alone(model, rows: list[list[int]]) -> list[torch.Tensor]:
    return [model(input_ids=torch.tensor([ids])).logits[0] for ids in rows]


def padded(model, rows: list[list[int]], pad_id: int, left: bool) -> list[torch.Tensor]:
    width, batch, mask = max(map(len, rows)), [], []
    for ids in rows:
        fill = width - len(ids)
        batch.append([pad_id] * fill + ids if left else ids + [pad_id] * fill)
        mask.append([0] * fill + [1] * len(ids) if left else [1] * len(ids) + [0] * fill)
    found = {"input_ids": torch.tensor(batch), "attention_mask": torch.tensor(mask)}
    if left:
        found["position_ids"] = (found["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(**found).logits
    return [row[width - len(ids) :] if left else row[: len(ids)] for row, ids in zip(logits, rows, strict=True)]


@torch.no_grad()
def packed(model, rows: list[list[int]]) -> list[torch.Tensor]:
    """All rows in one, told apart by positions that begin anew, as TRL packs them."""
    ids, positions = ([t for row in rows for t in of(row)] for of in (list, lambda row: range(len(row))))
    logits = model(input_ids=torch.tensor([ids]), position_ids=torch.tensor([positions]), use_cache=False).logits[0]
    return list(logits.split([len(row) for row in rows]))


@pytest.mark.parametrize("name", DECODERS)
def test_logits_of_a_decoder_are_the_same_alone_padded_and_packed(name, decoders):
    tokenizer = AutoTokenizer.from_pretrained(decoders[name])
    model = AutoModelForCausalLM.from_pretrained(decoders[name], dtype=torch.float32).eval()
    rows = texts_of(tokenizer)
    expected = alone(model, rows)
    assert len({len(row) for row in rows}) > 1 and expected[0].std() > 0.1
    ways = [padded(model, rows, tokenizer.pad_token_id, left) for left in (False, True)] + [packed(model, rows)]
    for found in ways:
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def test_logits_of_modernbert_are_the_same_alone_and_padded_beyond_its_local_attention(modernbert):
    tokenizer = AutoTokenizer.from_pretrained(modernbert)
    for pooling in ("cls", "mean"):
        torch.manual_seed(0)
        model = ModernBertForSequenceClassification.from_pretrained(modernbert, classifier_pooling=pooling).eval()
        rows = [tokenizer(row["note"] * n)["input_ids"] for n, row in zip((1, 3, 2), toy_notes(), strict=False)]
        width = max(map(len, rows))
        assert width > 3 * model.config.local_attention
        batch = torch.tensor([ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids in rows])
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in rows])
        with torch.no_grad():
            found = model(input_ids=batch, attention_mask=mask).logits
        torch.testing.assert_close(found, torch.stack(alone(model, rows)), atol=1e-4, rtol=0)


# ----- Thoughts


DIALOGUE = [
    {"role": "user", "content": "What is carditis?"}, {"role": "assistant", "content": "A disease of the heart."},
    {"role": "user", "content": "And otitis?"}, {"role": "assistant", "content": "One of the ear."},
]  # fmt: skip
TASK = {"chat": True, "max_length": 512}


def settled(template: str):
    tokenizer = make_tokenizer(CHATML_TOKENS, "<|im_end|>", template, "<|endoftext|>")
    settle_chat_template(tokenizer)
    return tokenizer


def learned_texts(tokenizer, dialogue) -> str:
    examples, _ = tokenize_dialogues(tokenizer, TASK, [dialogue])
    return "".join(
        tokenizer.decode(
            [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
        )
        for row in examples
    )


THINKING = [
    QWEN3,
    SMOLLM3,
    UNSWITCHED,
    *map(template_of, ("qwen3", "qwen3_training", "qwen3_5_think", "nemotron_3_nano")),
]


@pytest.mark.parametrize("template", THINKING)
def test_an_empty_thought_is_part_of_the_prompt_and_never_learned(template):
    tokenizer = settled(template)
    assert THOUGHT.findall(generation_prompt(tokenizer)) == ["<think>", "</think>"]
    assert not THOUGHT.search(answer_delimiters(tokenizer, True)[0])
    for dialogue in (DIALOGUE[:2], DIALOGUE):
        found = learned_texts(tokenizer, dialogue)
        answers = [turn["content"] for turn in dialogue if turn["role"] == "assistant"]
        assert not THOUGHT.search(found) and all(answer in found for answer in answers)
        assert "user" not in found and "assistant" not in found
        (row, *_), _ = tokenize_dialogues(tokenizer, TASK, [dialogue[:2]])
        prompt = tokenizer(chat_prompt(tokenizer, dialogue[:1]), add_special_tokens=False)["input_ids"]
        assert row["input_ids"][: len(prompt)] == prompt  # what serving asks is what training showed
    again = tokenizer.chat_template  # of an adapter that training goes on from
    settle_chat_template(tokenizer)
    assert tokenizer.chat_template == again


def test_a_template_without_thoughts_stays_as_it_is():
    for template in (template_of("qwen3_instruct_2507"), template_of("gemma3")):
        tokens = [*CHATML_TOKENS, "<start_of_turn>", "<end_of_turn>", "<bos>"]
        tokenizer = make_tokenizer(tokens, "<|im_end|>", template, "<|endoftext|>")
        tokenizer.bos_token = "<bos>"
        settle_chat_template(tokenizer)
        assert tokenizer.chat_template == template


@pytest.mark.parametrize("template", [THINKS_ALWAYS, *map(template_of, ("deepseek_r1_distill", "deepseekv3"))])
def test_a_template_that_always_thinks_is_refused_in_one_line(template):
    with pytest.raises(UserError, match="<think>.*`chat_template_path`") as caught:
        settled(template)
    assert "\n" not in str(caught.value)


def test_the_word_think_in_a_row_is_text_and_no_thought():
    tokenizer = settled(QWEN3)
    said = [{"role": "user", "content": "What does <think> mean?"}, {"role": "assistant", "content": "A tag."}]
    assert learned_texts(tokenizer, said) == "A tag.<|im_end|>"
