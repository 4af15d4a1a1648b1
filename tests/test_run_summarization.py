"""`run_summarization.py` from recipe to report on tiny models: its files, its numbers, its ways to go wrong."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, Run, assert_remade, flags, read_jsonl, run_here, run_script, write_rows, write_yaml
from rouge_score.rouge_scorer import RougeScorer
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import predict
from run_summarization import ARGUMENTS, main
from utils.factuality import find_hallucinations
from utils.inference import Predictor
from utils.push import published_files

SYSTEMS = ("test", "base_test", "baseline_lead_test", "baseline_copy_test", "baseline_nearest_source_test")
MTS_DIALOG = ROOT.parent / "shared/data/mts_dialog"


def summary_flags(model: Path, output_dir: Path, **values) -> list[str]:
    """The flags of a short run on one CPU; `values` come on top."""
    defaults = {
        "model_name_or_path": model, "output_dir": output_dir, "use_cpu": True, "use_peft": True, "lora_r": 4,
        "lora_alpha": 8, "lora_target_modules": ["q", "v"], "max_source_length": 128, "max_new_tokens": 8,
        "max_steps": 2, "per_device_train_batch_size": 8, "per_device_eval_batch_size": 16, "learning_rate": 1e-3,
        "save_strategy": "no", "report_to": "none", "text_column": "dialogue", "summary_column": "note",
        "near_duplicate_threshold": 1.0, "max_eval_samples": 4, "max_predict_samples": 4,
    }  # fmt: skip
    return flags(**defaults | values)


def run_main(model, folder, **values) -> Run:
    """Run the script in this process; a run that fails fails the test."""
    done = run_here(main, ARGUMENTS, summary_flags(model, folder, **values))
    assert done.code == 0, done.stderr
    return done


def refused(model, folder, **values) -> str:
    done = run_here(main, ARGUMENTS, summary_flags(model, folder, **values))
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.code == 2 and len(errors) == 1, done.stderr
    return errors[0]


def history(run: Run) -> list[dict]:
    return json.loads((run.folder / "trainer_state.json").read_text())["log_history"]


@pytest.fixture(scope="module")
def summary_run(launcher, tiny_t5, data, tmp_path_factory) -> Run:
    """A run that trains all weights until they have learnt the form of a note, from a recipe and one flag."""
    folder = tmp_path_factory.mktemp("summarization")
    recipe = {
        "model_name_or_path": str(tiny_t5), "use_peft": False, "train_file": str(data.dialogues),
        "text_column": "dialogue", "summary_column": "note", "text_template": "Write a note: {text}",
        "validation_fraction": 0.1, "test_fraction": 0.2, "near_duplicate_threshold": 1.0, "max_source_length": 256,
        "max_steps": 5, "per_device_train_batch_size": 8, "learning_rate": 0.01, "use_cpu": True,
        "train_sampling_strategy": "group_by_length", "max_new_tokens": 48, "report_to": "none", "logging_steps": 10,
        "save_strategy": "no", "per_device_eval_batch_size": 5, "output_dir": str(folder / "run"),
    }  # fmt: skip
    argv = [str(write_yaml(folder / "recipe.yaml", recipe)), "--max_steps", "50"]
    done = run_script(launcher, "run_summarization.py", [*argv, "--output_dir", str(folder / "run")])
    assert done.code == 0, done.stderr[-3000:]
    return done


# ----- What a run writes


def test_a_run_writes_every_file(summary_run):
    files = {
        "model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "task.json", "recipe.yaml",
        "all_results.json", "report.md", "README.md", "analysis.json", "baseline_comparison.csv", "plots/loss.png",
        "plots/baseline_comparison.png", "_private/predictions_test.jsonl", "_private/error_examples.csv",
    }  # fmt: skip
    assert {name for name in files if not (summary_run.folder / name).is_file()} == set()
    published = published_files(summary_run.folder)
    assert files - published.keys() == {name for name in files if name.startswith("_private")}
    for name in ("report.md", "README.md"):  # which ROUGE it is
        text = (summary_run.folder / name).read_text(encoding="utf-8")
        assert (
            f"ROUGE is the F1 score with{'' if summary_run.results['use_stemmer'] else 'out'} Porter stemming" in text
        )


def test_the_numbers_are_those_of_the_predictions(summary_run):
    rows, results = summary_run.predictions, summary_run.results
    scorer = RougeScorer(["rouge1", "rougeL"])
    for prefix, column in (("test", "prediction"), ("base_test", "base_prediction")):
        scores = [scorer.score(row["reference"], row[column]) for row in rows]
        for name in ("rouge1", "rougeL"):
            assert results[f"{prefix}_{name}"] == pytest.approx(np.mean([score[name].fmeasure for score in scores]))
    assert results["test_finished"] == pytest.approx(np.mean([row["finished"] for row in rows]))
    assert results["test_any_hallucination"] == pytest.approx(np.mean([bool(row["hallucinations"]) for row in rows]))
    assert all(row["hallucinations"] == find_hallucinations(row["source"], row["prediction"]) for row in rows)


def test_the_loss_is_the_mean_over_the_tokens_of_all_summaries(summary_run, tiny_t5):
    tokenizer = AutoTokenizer.from_pretrained(summary_run.folder)
    for prefix, folder in (("test", summary_run.folder), ("base_test", tiny_t5)):
        model, nll, tokens = AutoModelForSeq2SeqLM.from_pretrained(folder).eval(), 0.0, 0
        for row in summary_run.predictions:
            inputs = tokenizer(f"Write a note: {row['source']}", text_target=row["reference"], return_tensors="pt")
            with torch.no_grad():
                nll += model(**inputs).loss.item() * inputs["labels"].numel()
            tokens += inputs["labels"].numel()
        assert summary_run.results[f"{prefix}_loss"] == pytest.approx(nll / tokens, abs=1e-4)


def test_training_beats_the_base_model(summary_run):
    results = summary_run.results
    assert results["test_rouge1"] > 0.4 and results["delta_base_test_rouge1_ci95"][0] > 0
    assert results["delta_base_test_loss_ci95"][1] < 0 and results["test_finished"] == 1
    assert results["delta_baseline_copy_test_compression"] > 0


def test_every_system_has_every_metric_with_its_interval(summary_run):
    results = summary_run.results
    for system in SYSTEMS:
        for metric in (
            "rouge1",
            "rougeLsum",
            "bleu",
            "chrf",
            "omission",
            "hallucination",
            "any_hallucination",
            "compression",
        ):
            low, high = results[f"{system}_{metric}_ci95"] or (-math.inf, math.inf)  # None: too few clusters
            assert low <= results[f"{system}_{metric}"] + 1e-9 and results[f"{system}_{metric}"] <= high + 1e-9
    copy, tuned = results["baseline_copy_test_compression"], results["test_compression"]
    assert copy == 1 and tuned > 1.5 and results["baseline_copy_test_any_hallucination"] == 0
    assert all(not isinstance(value, dict) for value in results.values())
    assert {"latency_p50_ms", "peak_memory_gb", "train_loss", "eval_loss_ci95"} <= set(results)


def test_predictions_are_in_the_order_of_the_file(summary_run, data):
    known = {row["id"]: row for row in read_jsonl(data.dialogues)}
    rows = summary_run.predictions
    assert [row["id"] for row in rows] == sorted((row["id"] for row in rows), key=lambda name: int(name[1:]))
    assert len(rows) == summary_run.results["test_rows"] == 16
    assert all(row["source"] == known[row["id"]]["dialogue"] for row in rows)
    assert all(row["reference"] == known[row["id"]]["note"] for row in rows)


def test_the_task_file_holds_what_serving_needs(summary_run):
    task = summary_run.task
    assert task["task"] == "summarization" and task["columns"] == {"text": "dialogue", "summary": "note"}
    assert (task["text_template"], task["stop"], task["long_texts"]) == ("Write a note: {text}", "</s>", "head")
    assert task["generation"]["max_new_tokens"] == 48 and task["generation"]["num_beams"] == 1


def test_no_text_of_a_row_is_outside_the_private_folder(summary_run, data):
    public = [p for p in summary_run.folder.rglob("*") if p.is_file() and "_private" not in p.parts]
    texts = [p.read_bytes().decode("utf-8", "replace") for p in public if p.suffix not in (".png", ".bin")]
    texts += [summary_run.stdout, summary_run.stderr]
    written = {row[key] for row in summary_run.predictions for key in ("prediction", "base_prediction")}
    assert len(texts) > 10
    for secret in (*data.secrets, *(text for text in written if len(text) > 8)):
        assert not any(secret in text for text in texts)


# ----- Serving


def test_the_predictor_summarizes_as_the_evaluation_did_in_any_order_and_batch(summary_run):
    rows, predictor = summary_run.predictions, Predictor.from_pretrained(str(summary_run.folder))
    for batch_size in (1, 8):
        answers = predictor([row["source"] for row in rows], batch_size=batch_size)
        assert [answer["prediction"] for answer in answers] == [row["prediction"] for row in rows]
    backwards = predictor([{"dialogue": row["source"]} for row in reversed(rows)], batch_size=3)[::-1]
    assert backwards == answers
    for answer, row in zip(answers, rows, strict=True):
        assert (answer["finished"], answer["cut"], answer["hallucinations"]) == (
            row["finished"],
            row["cut"],
            row["hallucinations"],
        )
        for found in answer["hallucinations"]:
            assert answer["prediction"][slice(*found["span"])] == found["text"]


def test_the_command_line_writes_a_line_a_row(summary_run, data, tmp_path):
    values = {"model": summary_run.folder, "input_file": data.dialogues, "output_file": tmp_path / "out.jsonl"}
    values |= {"max_new_tokens": 3}
    done = run_here(lambda args, given: predict.main(args), (predict.PredictArguments,), flags(**values))
    assert done.code == 0, done.stderr
    lines = read_jsonl(tmp_path / "out.jsonl")
    assert [line["id"] for line in lines] == [row["id"] for row in read_jsonl(data.dialogues)]
    assert all(set(line) == {"id", "prediction", "finished", "cut", "hallucinations"} for line in lines)
    known = {row["id"]: row["prediction"] for row in summary_run.predictions}
    shorter = [known[line["id"]].startswith(line["prediction"]) for line in lines if line["id"] in known]
    assert len(shorter) == 16 and all(shorter)


# ----- Ways to train


def test_an_adapter_is_served_folded_in_and_answers_as_it_did(tiny_t5, data, tmp_path):
    run = run_main(tiny_t5, tmp_path / "run", train_file=data.dialogues, learning_rate=0.1, max_steps=4)
    # q and v of 2 encoder layers and 2 decoder layers with 2 attentions each: 64 -> 64
    assert run.results["trainable_parameters"] == 2 * 6 * 4 * (64 + 64)
    assert not (run.folder / "config.json").exists()
    predictor = Predictor.from_pretrained(str(run.folder))
    assert not any("lora" in name for name, _ in predictor.model.named_parameters())
    answers = predictor([row["source"] for row in run.predictions])
    assert [a["prediction"] for a in answers] == [row["prediction"] for row in run.predictions]
    assert [row["prediction"] for row in run.predictions] != [row["base_prediction"] for row in run.predictions]


@pytest.mark.parametrize("bits", ["load_in_4bit", "load_in_8bit"])
def test_quantized_weights_train_an_adapter(bits, tiny_t5, data, tmp_path):
    run = run_main(tiny_t5, tmp_path / "run", train_file=data.dialogues, dtype="bfloat16", bf16=True, **{bits: True})
    assert run.task["quantization"][bits] is True and run.results["trainable_parameters"] == 2 * 6 * 4 * (64 + 64)
    assert np.isfinite(run.results["test_loss"])
    predictor = Predictor.from_pretrained(str(run.folder))
    layer = predictor.model.base_model.model.encoder.block[0].layer[1].DenseReluDense
    assert type(layer.wo) is torch.nn.Linear  # transformers leaves it whole: its input is what overflows in T5
    assert type(layer.wi_0).__name__ in ("Linear4bit", "Linear8bitLt")
    answers = predictor([row["source"] for row in run.predictions])
    assert [set(a) for a in answers] == [{"prediction", "finished", "cut", "hallucinations"}] * 4


def test_gradient_accumulation_changes_neither_loss_nor_gradient(tiny_t5, data, tmp_path):
    first = []
    for rows, steps in ((8, 1), (2, 4), (1, 8)):
        run = run_main(
            tiny_t5, tmp_path / f"{rows}x{steps}", train_file=data.dialogues, per_device_train_batch_size=rows,
            gradient_accumulation_steps=steps, logging_first_step=True, max_steps=1, lora_dropout=0.0,
            label_smoothing_factor=0.1, max_predict_samples=2, max_eval_samples=1, max_new_tokens=2,
        )  # fmt: skip
        first.append((history(run)[0]["loss"], history(run)[0]["grad_norm"]))
    assert first[1] == pytest.approx(first[0], rel=1e-4) and first[2] == pytest.approx(first[0], rel=1e-4)


@pytest.fixture(scope="module")
def rouge_run(tiny_encoder_decoder, tiny_bert, data, tmp_path_factory) -> Run:
    """Two BERTs as one model, chosen by ROUGE during training, with beams and a BERTScore."""
    return run_main(
        tiny_encoder_decoder, tmp_path_factory.mktemp("rouge") / "run", train_file=data.dialogues, use_peft=False,
        lora_target_modules=None, max_steps=None, num_train_epochs=3, learning_rate=0.01, eval_strategy="epoch",
        save_strategy="epoch", load_best_model_at_end=True, metric_for_best_model="rougeL", early_stopping_patience=2,
        predict_with_generate=True, num_beams=2, no_repeat_ngram_size=3, max_new_tokens=10, max_target_length=64,
        bertscore_model=tiny_bert, bertscore_layer=1, max_source_length=64,
    )  # fmt: skip


def test_the_epoch_with_the_best_rouge_is_the_one_that_is_saved(rouge_run):
    evaluations = {entry["step"]: entry["eval_rougeL"] for entry in history(rouge_run) if "eval_rougeL" in entry}
    assert len(evaluations) >= 3 and len(set(evaluations.values())) > 1
    best = max(evaluations, key=evaluations.get)
    weights = [load_file(f / "model.safetensors") for f in (rouge_run.folder, rouge_run.folder / f"checkpoint-{best}")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_two_berts_as_one_model_are_trained_and_served(rouge_run):
    assert rouge_run.task["stop"] == "[SEP]" and rouge_run.results["test_loss"] < rouge_run.results["base_test_loss"]
    predictor = Predictor.from_pretrained(str(rouge_run.folder))
    answers = predictor([row["source"] for row in rouge_run.predictions])
    assert [a["prediction"] for a in answers] == [row["prediction"] for row in rouge_run.predictions]
    asked = flags(model=rouge_run.folder, text="Doctor: Hello.", max_new_tokens=129)
    done = run_here(lambda args, given: predict.main(args), (predict.PredictArguments,), asked)
    assert done.code == 2 and "`max_new_tokens` is 129: this model writes up to 128 tokens" in done.stderr


def test_a_bertscore_says_which_model_and_layer_it_is_of(rouge_run):
    assert rouge_run.results["bertscore_model"] == "tiny-bert layer 1"
    for system in SYSTEMS:
        assert 0 < rouge_run.results[f"{system}_bertscore_f1"] <= 1


def test_windows_read_the_whole_source_and_are_served_alike(tiny_t5, data, tmp_path):
    rows = read_jsonl(data.dialogues)[:40]
    twice = [row | {"dialogue": f"{row['dialogue']}\n{row['dialogue']}"} for row in rows]
    values = {"train_file": write_rows(tmp_path / "rows.jsonl", twice), "max_source_length": 64}
    head = run_main(tiny_t5, tmp_path / "head", **values).results
    run = run_main(tiny_t5, tmp_path / "chunks", long_texts="chunks", max_chunks=20, **values)
    for split in ("train", "validation", "test"):
        assert head[f"data_{split}_cut_sources"] > 0 and head[f"data_{split}_lost_source_tokens"] > 0
        assert run.results[f"data_{split}_cut_sources"] == run.results[f"data_{split}_lost_source_tokens"] == 0
    assert head["errors_cut_source"] == head["data_test_cut_sources"] > run.results["errors_cut_source"] == 0
    assert np.isfinite(run.results["test_loss"])
    answers = Predictor.from_pretrained(str(run.folder))([row["source"] for row in run.predictions])
    assert [a["prediction"] for a in answers] == [row["prediction"] for row in run.predictions]
    assert not any(answer["cut"] for answer in answers)


def test_the_flan_t5_recipe_runs_on_the_shape_of_flan_t5(tiny_t5, tiny_bert, data, tmp_path):
    argv = [
        str(ROOT / "recipes/flan_t5_lora.yaml"), "--model_name_or_path", str(tiny_t5), "--output_dir",
        str(tmp_path / "run"), "--use_cpu", "true", "--max_steps", "2", "--train_file", str(data.dialogues),
        "--validation_file", str(data.dialogues), "--test_file", str(data.dialogues), "--summary_column", "note",
        "--bertscore_model", str(tiny_bert), "--bertscore_layer", "2", "--max_new_tokens", "6",
        "--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false",
        "--max_predict_samples", "3",
    ]  # fmt: skip
    refused = run_here(main, ARGUMENTS, argv)
    assert refused.code == 2 and "`train` has no rows" in refused.stderr  # every row stands in the test split as well
    del argv[argv.index("--validation_file") : argv.index("--summary_column")]
    recipe = (ROOT / "recipes/flan_t5_lora.yaml").read_text().splitlines()
    kept = [line for line in recipe if not line.startswith(("validation_file", "test_file"))]
    argv[0] = str(tmp_path / "recipe.yaml")
    Path(argv[0]).write_text("\n".join(kept))
    run = run_here(main, ARGUMENTS, argv)
    assert run.code == 0, run.stderr
    # r = 8: q, k, v, o of 6 attentions 64 -> 64; wi_0, wi_1, wo of 4 layers, 64 and 128
    assert run.results["trainable_parameters"] == 8 * (6 * 4 * 128 + 4 * 3 * 192)
    assert run.task["dtype"] == "bfloat16" and run.task["generation"]["num_beams"] == 2


@pytest.mark.real_data
@pytest.mark.skipif(not MTS_DIALOG.exists(), reason="no shared data")
def test_copying_the_dialogue_scores_on_mts_dialog_what_is_known_of_it(tiny_t5, tmp_path):
    run = run_main(
        tiny_t5, tmp_path / "run", train_file=MTS_DIALOG / "train.csv", test_file=MTS_DIALOG / "validation.csv",
        summary_column="section_text", max_new_tokens=2, max_steps=1, max_predict_samples=None, min_input_words=1,
        max_train_samples=200,
    )  # fmt: skip
    assert run.results["test_rows"] == 100
    assert run.results["baseline_copy_test_rouge1"] == pytest.approx(0.209, abs=1e-3)


# ----- Going on, and the same again


def test_a_run_that_was_killed_ends_in_the_weights_of_one_that_was_not(tiny_t5, data, tmp_path):
    values = {
        "train_file": data.dialogues, "max_steps": None, "num_train_epochs": 3, "save_strategy": "steps",
        "save_steps": 5, "train_sampling_strategy": "group_by_length", "learning_rate": 0.05, "max_source_length": 64,
    }  # fmt: skip
    whole = run_main(tiny_t5, tmp_path / "whole", **values)
    shutil.copytree(whole.folder / "checkpoint-10", tmp_path / "again" / "checkpoint-10")
    again = run_main(tiny_t5, tmp_path / "again", **values)
    weights = [load_file(run.folder / "adapter_model.safetensors") for run in (whole, again)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert [r["prediction"] for r in whole.predictions] == [r["prediction"] for r in again.predictions]


def test_a_second_stage_goes_on_from_the_adapter_of_the_first(tiny_t5, data, tmp_path):
    values = {"train_file": data.dialogues, "learning_rate": 0.05, "max_steps": 4}
    first = run_main(tiny_t5, tmp_path / "first", **values)
    still = run_main(first.folder, tmp_path / "still", **values | {"learning_rate": 0.0, "lora_target_modules": None})
    for name in ("loss", "rouge1", "hallucination"):
        for prefix in ("test", "first_adapter_test"):
            assert still.results[f"{prefix}_{name}"] == pytest.approx(first.results[f"test_{name}"], abs=1e-6)
        assert still.results[f"base_test_{name}"] == pytest.approx(first.results[f"base_test_{name}"], abs=1e-6)
    assert still.task["base_model"] == str(tiny_t5) and still.task["first_adapter"] == str(first.folder)
    third = run_main(still.folder, tmp_path / "third", **values)  # and so on
    assert third.task["base_model"] == str(tiny_t5)
    assert third.results["test_loss"] < third.results["first_adapter_test_loss"] < third.results["base_test_loss"]


# ----- Mistakes


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"summary_column": "nte"}, "did you mean `note`?"),
        ({"fp16": True}, "needs a GPU"),
        ({"dtype": "float16", "bf16": True}, "overflows in float16"),
        ({"dtype": "bfloat16"}, "neither `bf16` nor `fp16` is true"),
        ({"max_source_length": 4}, "`max_source_length` is 4: this model supports 8 or more tokens"),
        ({"max_new_tokens": 0}, "`max_new_tokens` is 0"),
        ({"num_beams": 0}, "`num_beams` is 0: give 1 or more"),
        ({"max_chunks": 0}, "`max_chunks` is 0"),
        ({"no_repeat_ngram_size": -1}, "`no_repeat_ngram_size` is -1"),
        ({"length_penalty": 2.0}, "`length_penalty`"),
        ({"long_texts": "tail"}, "`long_texts`"),
        ({"generation_num_beams": 3}, "write `num_beams`"),
        ({"metric_for_best_model": "rouge1"}, "`eval_strategy: steps`"),
        (
            {"metric_for_best_model": "rouge1", "load_best_model_at_end": True, "eval_strategy": "steps",
             "eval_steps": 1, "save_strategy": "steps", "save_steps": 1},
            "set `predict_with_generate: true`",
        ),
        ({"early_stopping_patience": 2}, "`early_stopping_patience` needs"),
        ({"text_template": "{dialog}"}, "`text_template` names {dialog}"),
        ({"text_template": "{text} {note}"}, "`text_template` names {note}"),
        ({"text_template": "{text} {summary}"}, "`text_template` names {summary}"),
        ({"lora_target_modules": ["query"]}, "`query` matches no layer"),
        ({"bertscore_layer": 3}, "`bertscore_layer` is given without `bertscore_model`"),
        ({"bertscore_model": "/no/such/model"}, "`bertscore_model` /no/such/model"),
        ({"min_target_words": 900}, "`train` has no rows"),
    ],
)  # fmt: skip
def test_a_mistake_ends_in_one_line_that_names_it(tiny_t5, data, tmp_path, values, expected):
    assert expected in refused(tiny_t5, tmp_path / "run", **{"train_file": data.dialogues} | values)


def test_an_encoder_is_refused_and_its_script_named(tiny_bert, data, tmp_path):
    error = refused(tiny_bert, tmp_path / "run", train_file=data.dialogues)
    assert "`model_name_or_path`" in error and "run_classification.py" in error


def test_lengths_beyond_a_models_positions_are_named(tiny_encoder_decoder, data, tmp_path):
    for key in ("max_source_length", "max_target_length", "max_new_tokens"):
        values = {"max_target_length": 64, "train_file": data.dialogues} | {key: 200}
        error = refused(tiny_encoder_decoder, tmp_path / "run", lora_target_modules=["query"], **values)
        assert f"`{key}` is 200: this model supports" in error and "to 128 tokens" in error


def test_empty_texts_are_dropped_and_counted_and_swapped_columns_are_suspected(tiny_t5, data, tmp_path, caplog):
    rows = read_jsonl(data.dialogues)
    rows[0]["dialogue"], rows[1]["note"] = " ", ""
    path = write_rows(tmp_path / "rows.jsonl", rows)
    swapped = {"text_column": "note", "summary_column": "dialogue"}
    run = run_main(tiny_t5, tmp_path / "run", train_file=path, **swapped)
    assert run.results["data_dropped_missing"] == 2 and run.results["data_train_longer_summaries"] > 50
    assert "`text_column: note` and `summary_column: dialogue`" in caplog.text


# ----- Two processes


def test_two_processes_summarize_every_row_once_and_in_order(launcher, tiny_t5, data, tmp_path):
    argv = summary_flags(
        tiny_t5, tmp_path / "run", train_file=data.dialogues, ddp_backend="gloo", max_predict_samples=5
    )
    run = run_script(launcher, "run_summarization.py", argv, processes=2)
    assert run.code == 0, run.stderr[-3000:]
    assert len(run.predictions) == run.results["test_rows"] == 5 and run.stdout.count("model card: ") == 1
    alone = Predictor.from_pretrained(str(run.folder))([row["source"] for row in run.predictions])
    assert [a["prediction"] for a in alone] == [row["prediction"] for row in run.predictions]


def test_numbers_report_and_card_are_remade_without_a_model(summary_run, tmp_path):
    assert_remade(summary_run, tmp_path / "run")
