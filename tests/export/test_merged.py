"""A merged model repeats every logit and every answer of the trained one, or is not written."""

import shutil

import numpy as np
import pytest
import torch
from conftest import (
    SIZES,
    Run,
    flags,
    make_tokenizer,
    run_here,
    save_model,
    toy_dialogues,
    toy_notes,
    toy_rows,
    word_tokenizer,
    write_yaml,
)
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Gemma3TextConfig,
    ModernBertConfig,
    Qwen3Config,
    pipeline,
)

import export
from utils.data.columns import Columns
from utils.evaluation.outputs import save_outputs
from utils.export.verify import compare, direction, faults
from utils.heads import prepare_classifier
from utils.inference import Predictor
from utils.json_files import TASK_VERSION, read_json, write_json
from utils.metrics.statistics import accuracy_statistics
from utils.modeling import class_config, embeddings_sha256
from utils.prompts import prompt_settings

WARDS = ["allergy", "cardiology", "urology"]
FACTS = {
    "version": TASK_VERSION, "base_model_revision": None, "first_adapter": None, "dtype": "float32",
    "quantization": None, "data": {}, "extra_metrics": None, "command": "", "versions": {}, "device": "CPU",
}  # fmt: skip


def finished_run(folder, base, tokenizer, task, test, targets, heads=(), **lora):
    """Write what a run leaves behind, with an adapter that changes every answer; no training is needed for that."""
    torch.manual_seed(1)
    facts = FACTS | {"base_model": str(base.name_or_path), "base_model_sha256": embeddings_sha256(base)}
    config = LoraConfig(r=4, lora_alpha=32, target_modules=targets, modules_to_save=list(heads) or None, **lora)
    if type(base).__name__.startswith("GPT2"):
        config.fan_in_fan_out = True
    model = get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            parameter.data.normal_(std=0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / "task.json", facts | task)
    write_json(folder / "all_results.json", {"test_rows": len(test["id"])})
    write_yaml(folder / "recipe.yaml", {"use_peft": True})
    train = {"class_counts": np.array([5, 9, 7])}
    save_outputs(folder, {"validation": {}, "train": train, "test": test}, {}, {}, None)
    return folder


def qa_run_on(folder, source, targets, **lora):
    base, tokenizer = AutoModelForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    template = None if tokenizer.chat_template else "Question: {question}\nAnswer:"
    roles = dict.fromkeys(["context", "options", "answer", "answer_index", "examples"]) | {"question": "question"}
    task = {
        "task": "qa", "columns": roles, "raw_columns": Columns(input="question").to_dict(), "max_length": 48,
        "retrieve_examples": None, "generation": {"do_sample": False, "max_new_tokens": 6, "repetition_penalty": 1.0},
        "evaluation": {"seed": 0}, "confidence": None, **prompt_settings(tokenizer, None, template, ["question"]),
    }  # fmt: skip
    rows = toy_rows()[:12]
    test = {"id": [row["id"] for row in rows], "cluster": [row["id"] for row in rows]}
    asked = [task["prompt_template"].format(question=row["question"]) for row in rows]
    test["turns"] = [[{"role": "user", "content": text}] for text in asked]
    test |= {"reference": [row["answer"] for row in rows], "question": [row["question"] for row in rows]}
    test["source"] = asked
    return finished_run(folder, base, tokenizer, task, test, targets, **lora)


def class_run_on(folder, source, targets, heads, pooling="first", **lora):
    tokenizer = AutoTokenizer.from_pretrained(source)
    base = AutoModelForSequenceClassification.from_pretrained(source, **class_config(WARDS))
    base = prepare_classifier(base, list(heads), pooling)
    task = {
        "task": "classification", "columns": {"text": "note", "label": "ward"},
        "raw_columns": Columns(input="note").to_dict(), "labels": WARDS, "text_template": "{text}", "max_length": 32,
        "long_texts": "head", "max_chunks": 8, "pooling": pooling, "heads": list(heads), "autocast": None,
        "ensemble": {"method": "none", "prior": 0.0, "linear": 0.0}, "log_prior": [-1.0, -1.0, -1.0],
        "temperature": 1.5, "abstention": {"max_risk": 0.1, "threshold": 0.5}, "evaluation": {"seed": 0, "top_k": 2},
    }  # fmt: skip
    rows = toy_notes()[:40]
    test = {name: [row[key] for row in rows] for name, key in (("id", "id"), ("cluster", "id"), ("text", "note"))}
    test |= {"label": np.array([WARDS.index(row["ward"]) for row in rows]), "cut": [False] * len(rows)}
    return finished_run(folder, base, tokenizer, task, test, targets, heads, **lora)


def summary_run_on(folder, source, targets, **lora):
    base, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    task = {
        "task": "summarization", "columns": {"text": "dialogue", "summary": "note"},
        "raw_columns": Columns(input="dialogue").to_dict(), "text_template": "summarize: {text}", "stop": "</s>",
        "max_source_length": 64, "max_target_length": 16, "long_texts": "head", "max_chunks": 4,
        "generation": {"do_sample": False, "max_new_tokens": 6, "num_beams": 1, "no_repeat_ngram_size": 0},
        "evaluation": {"seed": 0, "use_stemmer": False, "bertscore_model": None},
    }  # fmt: skip
    rows = toy_dialogues()[:12]
    test = {name: [row[key] for row in rows] for name, key in (("id", "id"), ("cluster", "id"), ("text", "dialogue"))}
    test |= {"reference": [row["note"] for row in rows], "cut": [False] * len(rows)}
    return finished_run(folder, base, tokenizer, task, test, targets, **lora)


def run_export(model, folder, **values) -> Run:
    argv = flags(model=model, output_dir=folder, **values)
    return run_here(lambda args, given: export.main(args), (export.ExportArguments,), argv)


def exported(model, folder, **values):
    done = run_export(model, folder, **values)
    assert done.code == 0, done.stderr
    return read_json(folder / "export.json")


def refused(model, folder, **values) -> str:
    """Return the one line of a refused export, of which nothing is left."""
    before = {path: path.stat().st_mtime_ns for path in folder.parent.rglob("*")}
    done = run_export(model, folder, **values)
    assert done.code == 2 and done.stdout == "", done.stderr
    assert {path: path.stat().st_mtime_ns for path in folder.parent.rglob("*")} == before
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


# ----- Architectures


@pytest.fixture(scope="module")
def other_models(tmp_path_factory):
    """Qwen3 and Gemma3 with tied embeddings, and ModernBERT, of two layers."""
    folder = tmp_path_factory.mktemp("models")
    chatml = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}<|im_start|>"
    tokenizer = make_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "<|im_end|>", chatml, "<|endoftext|>")
    sizes = SIZES | {"num_key_value_heads": 2, "head_dim": 16, "initializer_range": 0.1, "tie_word_embeddings": True}
    for name, config in (("qwen3", Qwen3Config(**sizes)), ("gemma3", Gemma3TextConfig(**sizes))):
        save_model(folder / name, type(AutoModelForCausalLM.from_config(config)), config, tokenizer)
    words = word_tokenizer([word for row in toy_notes() for word in row["note"].lower().replace(".", " ").split()])
    config = ModernBertConfig(**SIZES, vocab_size=len(words), pad_token_id=0, global_attn_every_n_layers=2)
    AutoModelForSequenceClassification.from_config(config).base_model.save_pretrained(folder / "modernbert")
    words.save_pretrained(folder / "modernbert")
    return folder


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("tiny_llama", ["q_proj", "down_proj"]), ("tiny_phi3", ["qkv_proj"]), ("tiny_phi", ["dense", "fc1"]),
        ("tiny_gpt2", ["c_attn", "c_fc"]), ("qwen3", ["k_proj", "embed_tokens"]), ("gemma3", "all-linear"),
    ],
)  # fmt: skip
def test_a_merged_causal_model_repeats_every_answer(name, targets, other_models, request, tmp_path):
    source = other_models / name if (other_models / name).exists() else request.getfixturevalue(name)
    run = qa_run_on(tmp_path / "run", source, targets, use_dora=name == "tiny_llama", use_rslora=name == "tiny_phi")
    results = exported(run, tmp_path / "merged")
    assert results["equal_answers"] == results["rows"] == 12 and results["max_logit_difference"] <= 1e-3
    base, plain = (AutoModelForCausalLM.from_pretrained(folder) for folder in (source, tmp_path / "merged"))
    ids = torch.arange(8)[None]
    assert (plain(ids).logits - base(ids).logits).abs().max() > 0.01  # the adapter is in it
    assert plain.generation_config.do_sample is False and plain.generation_config.max_new_tokens == 6


@pytest.mark.parametrize(
    ("name", "targets", "heads", "pooling"),
    [
        ("tiny_bert", ["query", "value"], ["classifier"], "mean"),
        ("tiny_bert", ["query", "dense"], ["classifier"], "first"),
        ("tiny_distilbert", ["q_lin"], ["pre_classifier", "classifier"], "first"),
        ("modernbert", ["Wqkv"], ["head", "classifier"], "mean"),
    ],
)
def test_a_merged_encoder_repeats_every_class(name, targets, heads, pooling, other_models, request, tmp_path):
    source = other_models / name if (other_models / name).exists() else request.getfixturevalue(name)
    run = class_run_on(tmp_path / "run", source, targets, heads, pooling)
    results = exported(run, tmp_path / "merged")
    assert results["equal_answers"] == results["rows"] == 40 and results["max_logit_difference"] <= 1e-3
    texts = [row["note"] for row in toy_notes()[:5]]
    before, after = (Predictor.from_pretrained(str(folder))(texts) for folder in (run, tmp_path / "merged"))
    assert [row["prediction"] for row in after] == [row["prediction"] for row in before]
    assert [row["confidence"] for row in after] == pytest.approx([row["confidence"] for row in before], abs=1e-4)


def test_a_merged_encoder_decoder_repeats_every_summary(tiny_t5, tmp_path):
    results = exported(summary_run_on(tmp_path / "run", tiny_t5, ["q", "wo"]), tmp_path / "merged")
    assert results["equal_answers"] == results["rows"] == 12 and results["max_logit_difference"] <= 1e-3


def test_an_adapter_of_a_quantized_model_is_merged_into_the_numbers_that_it_was_trained_on(qa_run, tmp_path):
    results = exported(qa_run.folder, tmp_path / "merged")
    assert results["equal_answers"] == results["rows"] and results["max_logit_difference"] <= 1e-3
    assert results["rows"] == len(qa_run.predictions)
    card = (tmp_path / "merged" / "README.md").read_text(encoding="utf-8")
    assert card.index("## Export") < card.index("## ", card.index("## Export") + 1) and "equal answers" in card
    assert not (tmp_path / "merged" / "_private").exists()
    assert pipeline("text-generation", model=str(tmp_path / "merged"))("What is it?")


def test_half_precision_is_judged_by_its_metrics(tiny_llama, tmp_path):
    run = qa_run_on(tmp_path / "run", tiny_llama, ["q_proj"])
    results = exported(run, tmp_path / "merged", dtype="bfloat16", max_loss=1)
    assert not results["exact"] and results["max_logit_difference"] > 1e-3
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto").dtype == torch.bfloat16


# ----- Broken exports


def scaled(model):
    for name, parameter in model.named_parameters():
        if "q_proj" in name:
            parameter.data *= 1.01


def transposed(model):
    layer = model.model.layers[0].self_attn.o_proj
    layer.weight.data = layer.weight.data.T.contiguous()


def damaged(model):
    model.model.norm.weight.data[0] = torch.nan


def without_template(tokenizer):
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant", "user")


@pytest.mark.parametrize("harm", [scaled, transposed, damaged, without_template])
def test_a_broken_export_is_refused_and_deleted(harm, tiny_llama, tmp_path, monkeypatch):
    run = qa_run_on(tmp_path / "run", tiny_llama, ["q_proj"])
    write = export.write_generation

    def write_broken(model, tokenizer, task):
        write(model, tokenizer, task)
        harm(tokenizer if harm is without_template else model)

    monkeypatch.setattr(export, "write_generation", write_broken)
    line = refused(run, tmp_path / "merged")
    assert str(run) in line or "finite" in line
    assert not any(row["answer"] in line or row["question"] in line for row in toy_rows())


def outputs(answers, logits=0.0):
    return {"answers": answers, "logits": np.full((len(answers), 2), logits)}


def compared(trained, now, name="accuracy"):
    """Compare two systems of 200 rows by the share of right ones."""
    statistics = [accuracy_statistics(np.arange(200) < share * 200, name) for share in (trained, now)]
    return compare(outputs([1] * 200), outputs([1] * 200), tuple(statistics), range(200))


@pytest.mark.parametrize(
    ("trained", "now", "name", "is_fault"),
    [
        (0.9, 0.9, "accuracy", False), (0.9, 0.5, "accuracy", True), (0.5, 0.9, "accuracy", False),
        (0.1, 0.5, "hallucination", True), (0.5, 0.1, "hallucination", False), (0.1, 0.9, "length_ratio", False),
    ],
)  # fmt: skip
def test_a_metric_counts_where_it_is_worse(trained, now, name, is_fault):
    assert bool(faults(compared(trained, now, name), False, 0.01)) is is_fault
    assert not faults(compared(trained, now, name), False, 1.0)


@pytest.mark.parametrize(("answers", "logits"), [([1, 2, 4], 0.0), ([1, 2, 3], 0.002), ([1, 2, 3], np.nan)])
def test_an_exact_export_has_one_answer_and_one_logit(answers, logits):
    trained, same = outputs([1, 2, 3]), outputs([1, 2, 3], 0.0005)
    assert not faults(compare(trained, same, ({}, {}), [0, 1, 2]), True, 1.0)
    results = compare(trained, outputs(answers, logits), ({}, {}), [0, 1, 2])
    assert faults(results, True, 1.0) and not faults(results, False, 1.0)


def test_only_metrics_with_a_better_direction_count():
    assert direction("macro_f1") == 1 and direction("child_ece") == -1
    assert direction("length_ratio") == direction("unheard_of") == direction("uncalibrated_ece") == 0


# ----- Bad input


@pytest.fixture(scope="module")
def small_run(tiny_bert, tmp_path_factory):
    return class_run_on(tmp_path_factory.mktemp("small") / "run", tiny_bert, ["query"], ["classifier"])


def test_a_folder_that_cannot_be_exported_is_named(small_run, tiny_bert, tmp_path):
    def copy(name, change=lambda folder: None):
        shutil.copytree(small_run, tmp_path / name)
        change(tmp_path / name)
        return tmp_path / name

    def changed(name, **values):
        task = read_json(small_run / "task.json") | values
        return copy(name, lambda folder: write_json(folder / "task.json", task))

    cases = {
        "no run": (tiny_bert, "task.json"),
        "not there": (tmp_path / "nothing" / "there", "nothing"),
        "unfinished": (copy("unfinished", lambda f: (f / "all_results.json").unlink()), "all_results.json"),
        "weights gone": (copy("bare", lambda f: (f / "adapter_model.safetensors").unlink()), "weights"),
        "damaged": (copy("cut", lambda f: (f / "adapter_model.safetensors").write_bytes(b"\x08")), "damaged"),
        "from the Hub": (copy("pulled", lambda f: shutil.rmtree(f / "_private")), "_private"),
        "an export": (changed("again", export={}), "export"),
        "base gone": (changed("lost", base_model="gone"), "gone"),
        "other base": (changed("other", base_model_sha256="0"), "base"),
    }
    for what, (folder, expected) in cases.items():
        assert expected in refused(folder, tmp_path / "merged"), what


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"dtype": "bfloat16"}, "dtype"), ({"dtype": "int3"}, "dtype"), ({"format": "tflite"}, "format"),
        ({"batch_size": 0}, "batch_size"), ({"max_predict_samples": 0}, "max_predict_samples"),
        ({"max_loss": -1}, "max_loss"), ({"base_model": "not-there"}, "not-there"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_refused(small_run, tmp_path, values, expected):
    assert f"`{expected}`" in refused(small_run, tmp_path / "merged", **values)


def test_nothing_is_overwritten(small_run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "full", tmp_path / "file", small_run):
        assert "`output_dir`" in refused(small_run, folder)


def test_a_full_disk_is_one_line_before_and_while_writing(small_run, tmp_path, monkeypatch):
    def fill(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("utils.export.run.shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    assert "GB" in refused(small_run, tmp_path / "merged")
    monkeypatch.undo()
    monkeypatch.setattr(export, "write_json", fill)
    assert "No space" in refused(small_run, tmp_path / "merged")
