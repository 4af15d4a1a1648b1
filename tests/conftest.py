"""Tiny real models and toy medical data on disk, and one way to run a script. Nothing here reaches the network."""

import contextlib
import csv
import io
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read at import; tests with a Hub of their own set it in a subprocess
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # the same numbers on a machine with a GPU
os.environ.setdefault("OMP_NUM_THREADS", "1")  # pytest-xdist runs a process per processor
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")  # which the scripts take for the number of threads
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin slow each other down on a busy machine
os.environ["TQDM_DISABLE"] = "1"

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState, GradientState, PartialState
from matplotlib.figure import Figure
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from tests.forks import Forks, start_forks

ROOT = Path(__file__).parents[1]


LONG = ("test_sweep", "test_run_", "test_training", "test_gpu_", "test_quickstart", "test_gguf", "test_notebook",
        "test_browser", "test_app", "test_abuse", "test_recipe_models", "test_merged", "test_walls")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, so that parallel processes end at about the same time."""
    items.sort(key=lambda item: not item.path.name.startswith(LONG))


# ----- Toy medicine: words that look like medicine, put together by a seeded generator

ORGANS = ["heart", "liver", "kidney", "lung", "spleen", "stomach", "brain", "skin", "bone", "eye", "ear", "thyroid"]
ROOTS = ["cardi", "hepat", "nephr", "pulmon", "splen", "gastr", "encephal", "dermat", "oste", "ophthalm", "ot", "thyr"]
ENDINGS = ["itis", "osis", "algia", "opathy", "omegaly", "ectasia", "oma", "oplegia", "orrhagia", "ostenosis"]
COURSES = ["slowly over years", "within hours", "after an infection", "in early childhood", "without any warning"]
SIGNS = [
    "fever",
    "pain",
    "swelling",
    "a rash",
    "weakness",
    "bleeding",
    "dizziness",
    "a cough",
    "weight loss",
    "thirst",
]
CARE = [
    "rest and fluids",
    "surgery",
    "a short course of tablets",
    "warm compresses",
    "regular checks",
    "a low salt diet",
]
CAUSES = ["a virus", "an inherited change", "long exposure to dust", "a lack of iron", "too much sun", "an injury"]


def toy_rows() -> list[dict[str, str]]:
    """Return 120 questions and answers about made-up diseases, three on each of 40 documents."""
    rng = random.Random(7)
    rows = []
    for number in range(120):
        name = ROOTS[number % 12] + ENDINGS[number // 12]
        first, second = rng.sample(SIGNS, 2)
        answer = (
            f"{name.capitalize()} is a disease of the {ORGANS[number % 12]} caused by {rng.choice(CAUSES)}; it begins "
            f"{rng.choice(COURSES)} with {first} and {second} and is treated with {rng.choice(CARE)}."
        )
        row = {"id": f"q{number}", "document": f"d{number // 3}", "question": f"What is {name}?", "answer": answer}
        rows.append(row)
    return rows


def toy_exam() -> list[dict[str, Any]]:
    """Return 60 multiple choice questions with four options; the right one is `answer_index`."""
    rng = random.Random(8)
    rows = []
    for number in range(60):
        options = [f"{sign} and {care}" for sign, care in zip(rng.sample(SIGNS, 4), rng.sample(CARE, 4), strict=True)]
        question = f"What goes with {ROOTS[number % 12]}{ENDINGS[number // 12]} that begins {rng.choice(COURSES)}?"
        rows.append({"id": f"m{number}", "question": question, "options": options, "answer_index": number % 4})
    return rows


def four_columns(rows: list[dict[str, Any]], held_back: bool = False) -> list[dict[str, Any]]:
    """Return an exam as MedMCQA writes it: opa, opb, opc, opd and cop, which is -1 where the answer is held back."""
    names = ("opa", "opb", "opc", "opd")
    return [
        {"id": row["id"], "question": row["question"]}
        | dict(zip(names, row["options"], strict=True))
        | {"cop": -1 if held_back else row["answer_index"]}
        for row in rows
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as csv or jsonl, after the ending of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        if path.suffix == ".csv":
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        else:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def toy_notes() -> list[dict[str, str]]:
    """Return 150 notes of the three wards cardiology (90), urology (45) and allergy (15), each with words of its own,
    from 8 to about 60 words."""
    rng = random.Random(9)
    own = {
        "cardiology": ["heart", "murmur", "angina", "pulse", "valve"],
        "urology": ["kidney", "bladder", "stone", "urine", "prostate"],
        "allergy": ["pollen", "hives", "sneezing", "peanut", "mite"],
    }
    rows = []
    for number, ward in enumerate(["cardiology"] * 90 + ["urology"] * 45 + ["allergy"] * 15):
        words = [*rng.choices(own[ward], k=3), *rng.choices(SIGNS, k=2), rng.choice(COURSES)]
        words += rng.choices(ORGANS, k=rng.choice([2, 5, 45]))
        rng.shuffle(words)
        rows.append({"id": f"n{number}", "note": f"Patient {number}: {' '.join(words)}.", "ward": ward})
    rng.shuffle(rows)
    return rows


# The classes of the notes in a tree; allergy has no finer classes
PARENT = {"cardiology": "organs", "urology": "organs", "allergy": "allergy"}
PATHS = {"cardiology": "body > organs > cardiology", "urology": "body>organs>urology",
         "allergy": "allergy > allergy > allergy"}  # fmt: skip


def tree_rows() -> list[dict[str, str]]:
    """Return the notes with the parent of their ward as `group`, and the whole path."""
    return [row | {"group": PARENT[row["ward"]], "path": PATHS[row["ward"]]} for row in toy_notes()]


def toy_dialogues() -> list[dict[str, str]]:
    """Return 80 dialogues between a doctor and a patient, from about 25 to 150 words, and a note of each."""
    rng = random.Random(10)
    rows = []
    for number in range(80):
        sign, organ, course, care = rng.choice(SIGNS), rng.choice(ORGANS), rng.choice(COURSES), rng.choice(CARE)
        turns = [f"Doctor: What brings you in, {number}?", f"Patient: I have {sign} and it began {course}."]
        for other in rng.sample([word for word in SIGNS if word != sign], rng.choice([0, 1, 8])):
            turns += [f"Doctor: Is there any {other}?", "Patient: No, nothing of that kind."]
        turns += [f"Doctor: It is your {organ}. We will treat it with {care}.", "Patient: Thank you."]
        note = f"Patient {number} has {sign} of the {organ} that began {course}. Treated with {care}."
        rows.append({"id": f"v{number}", "dialogue": "\n".join(turns), "note": note})
    return rows


@dataclass(frozen=True)
class Data:
    """Files of toy data, and every text in them that must not leave the run's `_private` folder."""

    qa: Path
    notes: Path
    tree: Path
    dialogues: Path
    exam: Path
    exam_columns: Path
    exam_folder: Path
    secrets: tuple[str, ...]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("data")
    qa, exam, notes, dialogues = toy_rows(), toy_exam(), toy_notes(), toy_dialogues()
    hub = folder / "exam"  # a data set with splits, where the test split has no answers
    write_rows(hub / "train.csv", four_columns(exam[:40]))
    write_rows(hub / "validation.csv", four_columns(exam[40:]))
    write_rows(hub / "test.csv", four_columns(exam[:10], held_back=True))
    return Data(
        qa=write_rows(folder / "qa.jsonl", qa),
        notes=write_rows(folder / "notes.csv", notes),
        tree=write_rows(folder / "tree.csv", tree_rows()),
        dialogues=write_rows(folder / "dialogues.jsonl", dialogues),
        exam=write_rows(folder / "exam.jsonl", exam),
        exam_columns=write_rows(folder / "exam.csv", four_columns(exam)),
        exam_folder=hub,
        secrets=(
            *(row["question"] for row in qa + exam),
            *(row["answer"] for row in qa),
            *(option for row in exam for option in row["options"]),
            *(row["note"] for row in notes),
            *(line for row in dialogues for line in row["dialogue"].split("\n")[:2]),
            *(row["note"] for row in dialogues),
        ),
    )


# ----- Tiny models

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def make_tokenizer(
    specials: list[str], eos: str, chat_template: str | None, pad: str | None = None, texts: list[str] | None = None
) -> Any:
    """Train a byte-level BPE tokenizer on the toy questions and answers, or on `texts`."""
    texts = texts or [text for row in toy_rows() for text in (row["question"], row["answer"])]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, pad_token=pad)
    fast.chat_template = chat_template
    return fast


def save_model(folder: Path, model_class: type, config: Any, tokenizer: Any) -> Path:
    torch.manual_seed(0)
    config.vocab_size = len(tokenizer)
    config.bos_token_id = config.eos_token_id = tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    model_class(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = make_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "<|im_end|>", CHATML, "<|endoftext|>")
    config = LlamaConfig(**SIZES, num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.1)
    return save_model(tmp_path_factory.mktemp("models") / "tiny-llama", LlamaForCausalLM, config, tokenizer)


@pytest.fixture(scope="session")
def tiny_phi3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    specials = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
    tokenizer = make_tokenizer(specials, "<|endoftext|>", PHI3, "<|endoftext|>")
    config = Phi3Config(
        **SIZES, num_key_value_heads=4, max_position_embeddings=1024, original_max_position_embeddings=1024,
        initializer_range=0.1,
    )  # fmt: skip
    return save_model(tmp_path_factory.mktemp("models") / "tiny-phi3", Phi3ForCausalLM, config, tokenizer)


@pytest.fixture(scope="session")
def tiny_phi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = make_tokenizer(["<|endoftext|>"], "<|endoftext|>", None)  # no pad token and no chat template
    config = PhiConfig(**SIZES, max_position_embeddings=512, initializer_range=0.1)
    return save_model(tmp_path_factory.mktemp("models") / "tiny-phi", PhiForCausalLM, config, tokenizer)


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Learned positions, Conv1D layers, no pad token and no chat template; as BioMedLM."""
    tokenizer = make_tokenizer(["<|endoftext|>"], "<|endoftext|>", None)
    config = GPT2Config(n_positions=64, n_embd=64, n_layer=2, n_head=4, initializer_range=0.1)
    return save_model(tmp_path_factory.mktemp("models") / "tiny-gpt2", GPT2LMHeadModel, config, tokenizer)


def word_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """Make a tokenizer with a token a word, and [CLS] and [SEP] around a text."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: i for i, word in enumerate([*specials, *dict.fromkeys(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **names)


def save_encoder(folder: Path, words: list[str], kind: str = "bert", num_labels: int = 2) -> tuple[Any, Any]:
    """Save a tiny encoder without a head and return a classifier on it, and its tokenizer."""
    tokenizer = word_tokenizer(words)
    torch.manual_seed(0)
    if kind == "bert":
        config = BertConfig(**SIZES, vocab_size=len(tokenizer), initializer_range=0.1)
    else:
        config = DistilBertConfig(vocab_size=len(tokenizer), dim=64, hidden_dim=128, n_layers=2, n_heads=4)
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=num_labels), tokenizer


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    save_encoder(folder, [word for row in toy_notes() for word in re.findall(r"\w+", row["note"].lower())])
    return folder


@pytest.fixture(scope="session")
def tiny_distilbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-distilbert"
    words = [word for row in toy_notes() for word in re.findall(r"\w+", row["note"].lower())]
    save_encoder(folder, words, "distilbert")
    return folder


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [text for row in toy_dialogues() for text in (row["dialogue"], row["note"])]
    tokenizer = make_tokenizer(["<pad>", "</s>", "<unk>"], "</s>", None, "<pad>", texts)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    config = T5Config(
        vocab_size=len(tokenizer), d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, dropout_rate=0.0,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(config)
    model.lm_head.weight = torch.nn.Parameter(0.2 * torch.randn(len(tokenizer), 64))  # a head of its own, as FLAN-T5
    folder = tmp_path_factory.mktemp("models") / "tiny-t5"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_encoder_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two BERTs, the second with cross-attention, as `EncoderDecoderModel` warm-starts them; 128 positions."""
    texts = [f"{row['dialogue']} {row['note']}".lower() for row in toy_dialogues()]
    tokenizer = word_tokenizer([word for text in texts for word in re.findall(r"\w+|[^\w\s]", text)])
    tokenizer.model_max_length = 128
    sizes = SIZES | {"max_position_embeddings": 128, "vocab_size": len(tokenizer), "initializer_range": 0.1}
    config = EncoderDecoderConfig.from_encoder_decoder_configs(BertConfig(**sizes), BertConfig(**sizes))
    config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = 2, 3, 0
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny-encoder-decoder"
    EncoderDecoderModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# ----- Runs of a script


def flags(**values: Any) -> list[str]:
    """Turn keys into flags; a list gives several values, None leaves the key out."""
    given = {key: value for key, value in values.items() if value is not None}
    listed = {key: value if isinstance(value, list) else [value] for key, value in given.items()}
    return [text for key, value in listed.items() for text in (f"--{key}", *map(str, value))]


@dataclass(frozen=True)
class Run:
    """A finished run of a script: its folder, exit code and everything that it printed."""

    folder: Path
    code: int
    stdout: str
    stderr: str

    @property
    def results(self) -> dict[str, Any]:
        return json.loads((self.folder / "all_results.json").read_text(encoding="utf-8"))

    @property
    def task(self) -> dict[str, Any]:
        return json.loads((self.folder / "task.json").read_text(encoding="utf-8"))

    @property
    def predictions(self) -> list[dict[str, Any]]:
        return read_jsonl(self.folder / "_private" / "predictions_test.jsonl")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def qa_flags(model: Path, output_dir: Path, **values: Any) -> list[str]:
    """The flags of a short run on one CPU; `values` come on top."""
    defaults = {
        "model_name_or_path": model, "output_dir": output_dir, "use_cpu": True, "bf16": False, "dtype": "float32",
        "use_peft": True, "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.0,
        "lora_target_modules": ["q_proj", "v_proj"], "max_length": 256, "max_steps": 2,
        "per_device_train_batch_size": 4, "learning_rate": 1e-3, "gradient_checkpointing": False,
        "save_strategy": "no", "report_to": "none", "max_new_tokens": 6, "question_column": "question",
    }  # fmt: skip
    return flags(**defaults | values)


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Scripts in a process of their own, as a user runs them."""
    with start_forks(tmp_path_factory.mktemp("forks"), {"TQDM_DISABLE": "0"}) as found:
        yield found


def run_script(launcher: Forks, script: str, argv: list[str], **how: Any) -> Run:
    """Run a script in a process of its own; `how` as for `Forks.run`."""
    done = launcher.run(script, argv, **how)
    return Run(_folder(argv), done.code, done.stdout, done.stderr)


def run_here(main: Callable, arguments: tuple[type, ...], argv: list[str], drawn: bool = False) -> Run:
    """Run a script's `main` in this process, which saves the seconds that imports take. Its plots are empty files
    unless they are `drawn`: drawing takes half of a short run, and `run_script` draws them."""
    from utils.arguments import parse_recipe, user_errors

    for state in (AcceleratorState, PartialState, GradientState):  # one process, several runs
        state._reset_state()
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
        contextlib.nullcontext() if drawn else patch.object(Figure, "savefig", lambda figure, path, **_: path.touch()),
    ):  # fmt: skip
        try:
            with user_errors():
                main(*parse_recipe(arguments, argv))
        except SystemExit as end:
            code = end.code
    return Run(_folder(argv), code, out.getvalue(), err.getvalue())


def run_predict(model: Path | str, **values: Any) -> Run:
    """Run predict.py in this process."""
    import predict

    argv = flags(model=model, **values)
    return run_here(lambda args, given: predict.main(args), (predict.PredictArguments,), argv)


def _folder(argv: list[str]) -> Path:
    return Path(argv[argv.index("--output_dir") + 1]) if "--output_dir" in argv else Path()


def assert_remade(run: Run, folder: Path) -> None:
    """`python -m utils.evaluation` makes every number and text of a run again, without its weights."""
    from utils.evaluation.__main__ import EvaluationArguments, main

    made = ["all_results.json", "report.md", "README.md", "baseline_comparison.csv", "analysis.json", "per_class.csv"]
    made += ["_private/predictions_test.jsonl", "_private/error_examples.csv", "classification_report.txt"]
    made = [name for name in made if (run.folder / name).exists()]
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    for path in folder.glob("*.safetensors"):
        path.write_bytes(b"")
    for name in [*made, *(f"plots/{path.name}" for path in (run.folder / "plots").iterdir())]:
        (folder / name).unlink()
    with contextlib.redirect_stdout(io.StringIO()):
        main(EvaluationArguments(str(folder)))
    for name in made:
        before, after = ((root / name).read_text(encoding="utf-8") for root in (run.folder, folder))
        assert after == before, name
    assert {path.name for path in (folder / "plots").iterdir()} == {p.name for p in (run.folder / "plots").iterdir()}


def write_yaml(path: Path, values: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def qa_run(launcher: Forks, tiny_llama: Path, data: Data, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A QLoRA run in 4 bits, from a recipe and one flag, as a user starts it."""
    folder = tmp_path_factory.mktemp("qa")
    recipe = {
        "model_name_or_path": str(tiny_llama), "dtype": "bfloat16", "load_in_4bit": True, "use_bnb_nested_quant": True,
        "use_peft": True, "lora_r": 4, "lora_alpha": 8, "lora_target_modules": ["q_proj", "v_proj"],
        "train_file": str(data.qa), "answer_column": "answer", "group_column": "document",
        "validation_fraction": 0.1, "test_fraction": 0.1, "near_duplicate_threshold": 1.0,
        "max_length": 256, "max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 0.005,
        "use_cpu": True, "bf16": True, "report_to": ["tensorboard"], "logging_steps": 3, "save_steps": 5,
        "max_new_tokens": 12, "output_dir": str(folder / "run"),
    }  # fmt: skip
    argv = [str(write_yaml(folder / "recipe.yaml", recipe)), *flags(max_steps=10, output_dir=folder / "run")]
    env = {"TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard")}
    done = run_script(launcher, "run_qa_sft.py", argv, env=env)
    assert done.code == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="session")
def danger_reader(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The output folder of a classifier of dangers with tiny random weights, which alarms at any text."""
    from test_run_classification import class_flags

    import run_classification

    folder = tmp_path_factory.mktemp("danger")
    labels = ["emergency", "harmful_request", "other"]
    rows = [{"note": row["note"], "ward": labels[i % 3]} for i, row in enumerate(toy_notes())]
    argv = class_flags(tiny_bert, folder / "run", train_file=write_rows(folder / "rows.csv", rows))
    done = run_here(run_classification.main, run_classification.ARGUMENTS, argv)
    assert done.code == 0, done.stderr
    task = json.loads((done.folder / "task.json").read_text(encoding="utf-8"))
    thresholds = {"emergency": 0.0, "harmful_request": 1.01}
    (done.folder / "task.json").write_text(json.dumps(task | {"safety": {"thresholds": thresholds}}), encoding="utf-8")
    return str(done.folder)
