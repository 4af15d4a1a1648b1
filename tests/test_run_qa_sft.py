import json
import math
import shutil

import pytest
import torch
import yaml
from conftest import ROOT, Run, assert_remade, qa_flags, read_jsonl, run_here, run_script, write_yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from trl import SFTTrainer

from run_qa_sft import ARGUMENTS, main
from utils.inference import Predictor

METRICS = (
    "loss",
    "perplexity",
    "rouge1",
    "rouge2",
    "rougeL",
    "rougeLsum",
    "bleu",
    "length_ratio",
    "repetition",
    "finished",
)


def qa(model, folder, **values) -> Run:
    """Run the script in this process; a run that fails fails the test."""
    done = run_here(main, ARGUMENTS, qa_flags(model, folder, **values))
    assert done.code == 0, done.stderr
    return done


def refused(model, folder, **values) -> str:
    done = run_here(main, ARGUMENTS, qa_flags(model, folder, **values))
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.code == 2 and len(errors) == 1, done.stderr
    return errors[0]


@pytest.fixture(scope="module")
def full_run(tiny_llama, data, tmp_path_factory):
    """A run that trains every weight, on twice the rows."""
    return qa(
        tiny_llama, tmp_path_factory.mktemp("full") / "run", use_peft=False, lora_target_modules=None,
        train_file=data.qa, answer_column="answer", group_column="document", near_duplicate_threshold=1.0,
        augmentation_factor=2, max_steps=None, num_train_epochs=1, per_device_train_batch_size=8,
    )  # fmt: skip


@pytest.fixture(scope="module")
def exam_run(tiny_llama, data, tmp_path_factory):
    return qa(
        tiny_llama, tmp_path_factory.mktemp("exam") / "run", train_file=data.exam, options_column="options",
        answer_index_column="answer_index", near_duplicate_threshold=1.0, augmentation_factor=2,
        validation_fraction=0.2, test_fraction=0.2,
    )  # fmt: skip


# ----- What a run writes


def test_a_run_writes_every_file_of_the_contract(qa_run):
    files = {
        "adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "tokenizer_config.json", "task.json",
        "recipe.yaml", "all_results.json", "report.md", "README.md", "plots/loss.png", "plots/baseline_comparison.png",
        "baseline_comparison.csv", "_private/predictions_test.jsonl", "_private/error_examples.csv",
    }  # fmt: skip
    assert {name for name in files if not (qa_run.folder / name).is_file()} == set()
    assert (qa_run.folder / "adapter_model.safetensors").stat().st_mode == (qa_run.folder / "task.json").stat().st_mode
    assert not (qa_run.folder / "config.json").exists() and not (qa_run.folder / "model.safetensors").exists()


def test_results_hold_each_metric_of_the_three_systems_with_its_interval(qa_run):
    results = qa_run.results
    system_names = ("test", "base_test", "baseline_nearest_question_test")
    for name in [
        f"{s}_{m}"
        for s in system_names
        for m in METRICS
        if not (s == system_names[2] and m in METRICS[:2] + ("finished",))
    ]:
        assert results[f"{name}_ci95"] is None and math.isfinite(results[name]), name  # of four documents: too few
    for name in METRICS:
        difference = results[f"test_{name}"] - results[f"base_test_{name}"]
        assert results[f"delta_base_test_{name}"] == pytest.approx(difference, abs=1e-6)
        assert results[f"delta_base_test_{name}_p"] is None


def test_perplexity_is_the_exponential_of_the_loss_and_training_lowered_it(qa_run):
    results = qa_run.results
    for prefix in ("eval", "test", "base_test"):
        assert results[f"{prefix}_perplexity"] == pytest.approx(math.exp(results[f"{prefix}_loss"]))
    assert results["test_loss"] < results["base_test_loss"]


def test_results_are_flat_and_name_rows_fingerprints_and_counts_of_every_split(qa_run):
    results = qa_run.results
    assert all(not isinstance(value, dict) for value in results.values())
    assert [results[f"{split}_rows"] for split in ("train", "validation", "test")] == [96, 12, 12]
    assert len({results[f"{split}_sha256"] for split in ("train", "validation", "test")}) == 3
    assert results["data_rows_read"] == 120 and results["data_clusters"] == 40
    assert {"train_runtime", "train_loss", "latency_p50_ms", "latency_p95_ms", "peak_memory_gb"} <= set(results)
    assert results["latency_p50_ms"] <= results["latency_p95_ms"]


def test_parameters_of_a_4_bit_run_are_those_of_the_arithmetic(qa_run, tiny_llama):
    # 2 layers; q_proj is 64 -> 64, v_proj 64 -> 32 (2 of 4 heads): r * (in + out) each, r = 4
    assert qa_run.results["trainable_parameters"] == 2 * 4 * ((64 + 64) + (64 + 32)) == 1792
    dense = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(tiny_llama).parameters())
    assert qa_run.results["total_parameters"] == dense + 1792
    weights = load_file(qa_run.folder / "adapter_model.safetensors")
    assert sum(w.numel() for w in weights.values()) == 1792 and any(
        w.any() for n, w in weights.items() if "lora_B" in n
    )


def test_one_prediction_a_test_row_in_the_order_of_the_split(qa_run, data):
    known = {row["id"]: row for row in read_jsonl(data.qa)}
    rows = qa_run.predictions
    ids = [row["id"] for row in rows]
    assert len(ids) == len(set(ids)) == qa_run.results["test_rows"]
    assert ids == sorted(ids, key=lambda name: int(name[1:]))  # a split keeps the order of its file
    assert all(row["reference"] == known[row["id"]]["answer"] for row in rows)
    assert all(row["source"] == known[row["id"]]["question"] for row in rows)
    documents = {known[name]["document"] for name in ids}
    assert len(ids) == 3 * len(documents)  # whole documents, so none of them is in another split as well


def test_no_text_of_a_row_is_outside_the_private_folder(qa_run, data):
    public = [p for p in qa_run.folder.rglob("*") if p.is_file() and "_private" not in p.parts and p.suffix != ".png"]
    texts = {"stdout": qa_run.stdout, "stderr": qa_run.stderr}
    texts |= {str(p): p.read_bytes().decode("utf-8", "replace") for p in public if p.suffix != ".pt"}
    texts |= {
        p.name: p.read_bytes().decode("utf-8", "replace") for p in (qa_run.folder.parent / "tensorboard").rglob("*.*")
    }
    assert {"README.md", "report.md", "task.json", "all_results.json"} <= {p.name for p in public}
    found = {name for name, text in texts.items() for secret in data.secrets if secret in text}
    assert found == set()
    written = {row["prediction"] for row in qa_run.predictions} | {
        row["base_prediction"] for row in qa_run.predictions
    }
    assert not any(answer in text for answer in written if len(answer) > 8 for text in texts.values())


def test_the_task_file_alone_is_enough_to_serve_the_adapter(qa_run, tiny_llama):
    task = qa_run.task
    assert task["task"] == "qa" and task["base_model"] == str(tiny_llama) and task["dtype"] == "bfloat16"
    assert task["quantization"]["bnb_4bit_quant_type"] == "nf4" and task["quantization"]["load_in_4bit"] is True
    assert (task["stop"], task["chat"], task["max_length"]) == ("<|im_end|>", True, 256)
    assert task["generation"] == {"max_new_tokens": 12, "do_sample": False, "repetition_penalty": 1.0}
    assert set(task["versions"]) >= {"torch", "transformers", "peft", "trl"}
    rows = qa_run.predictions[:3]
    answers = Predictor.from_pretrained(str(qa_run.folder))([row["source"] for row in rows], batch_size=1)
    assert len(answers) == 3 and all(set(a) == {"prediction", "finished", "cut", "confidence"} for a in answers)


def test_the_loss_curve_and_the_logger_are_written(qa_run):
    assert list((qa_run.folder.parent / "tensorboard").rglob("events.out.tfevents.*"))
    history = json.loads((qa_run.folder / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in history if "loss" in entry] == [3, 6, 9]


# ----- Full fine-tuning, augmentation


def test_full_fine_tuning_saves_a_whole_model_and_trains_every_parameter(full_run):
    assert (full_run.folder / "model.safetensors").exists() and (full_run.folder / "config.json").exists()
    assert not (full_run.folder / "adapter_config.json").exists()
    results = full_run.results
    assert results["trainable_parameters"] == results["total_parameters"]
    assert results["test_loss"] < results["base_test_loss"]


def test_the_base_model_of_full_fine_tuning_is_the_untouched_one(full_run, tiny_llama, data, tmp_path):
    adapter = qa(
        tiny_llama, tmp_path / "run", train_file=data.qa, answer_column="answer", group_column="document",
        near_duplicate_threshold=1.0, max_steps=1,
    )  # fmt: skip
    assert adapter.results["test_sha256"] == full_run.results["test_sha256"]
    for name in METRICS:
        assert adapter.results[f"base_test_{name}"] == pytest.approx(full_run.results[f"base_test_{name}"], abs=1e-5)


def test_augmentation_doubles_the_training_rows_and_leaves_the_splits_alone(full_run, qa_run):
    state = json.loads((full_run.folder / "trainer_state.json").read_text())
    assert state["global_step"] == 2 * 96 / 8
    for split in ("train", "validation", "test"):
        assert full_run.results[f"{split}_sha256"] == qa_run.results[f"{split}_sha256"]
    assert [row["source"] for row in full_run.predictions] == [row["source"] for row in qa_run.predictions]


# ----- Multiple choice


@pytest.mark.parametrize("prefix", ["test", "base_test"])
def test_multiple_choice_scores_are_shares_with_intervals(exam_run, prefix):
    for name in ("accuracy", "accuracy_norm", "flip_rate", "generated_accuracy", "parse_failure"):
        low, high = exam_run.results[f"{prefix}_{name}_ci95"]
        assert 0 <= low <= exam_run.results[f"{prefix}_{name}"] <= high <= 1
        share = exam_run.results[f"{prefix}_{name}"] * exam_run.results["test_rows"]
        assert share == pytest.approx(round(share), abs=1e-6)


def test_multiple_choice_compares_adapter_and_base_row_by_row(exam_run):
    assert 0 <= exam_run.results["mcnemar_test_accuracy_p"] <= 1
    assert all(row["reference"][:3] in ("A. ", "B. ", "C. ", "D. ") for row in exam_run.predictions)
    assert all(row["reference"] in row["source"] for row in exam_run.predictions)


def test_options_in_four_columns_are_the_same_exam_as_options_in_a_list(exam_run, tiny_llama, data, tmp_path):
    columns = qa(
        tiny_llama, tmp_path / "run", train_file=data.exam_columns, options_column=["opa", "opb", "opc", "opd"],
        answer_index_column="cop", near_duplicate_threshold=1.0, augmentation_factor=2, validation_fraction=0.2,
        test_fraction=0.2,
    )  # fmt: skip
    assert columns.task["columns"]["options"] == "options"
    assert [r["source"] for r in columns.predictions] == [r["source"] for r in exam_run.predictions]
    for name in ("test_accuracy", "test_flip_rate", "test_loss", "base_test_accuracy", "test_parse_failure"):
        assert columns.results[name] == pytest.approx(exam_run.results[name], abs=1e-5), name


# ----- Options of training


def test_curriculum_trains_in_the_order_of_length(tiny_llama, data, tmp_path, monkeypatch):
    common = {"train_file": data.qa, "answer_column": "answer", "curriculum": True, "max_steps": 1}
    assert "`train_sampling_strategy: sequential`" in refused(tiny_llama, tmp_path / "no", **common)
    packed = {"train_sampling_strategy": "sequential", "packing": True}
    assert "`packing: false`" in refused(tiny_llama, tmp_path / "no", **common, **packed)
    lengths = []
    step = SFTTrainer.training_step

    def watched(self, model, inputs, *args):
        lengths.extend(inputs["attention_mask"].sum(1).tolist())
        return step(self, model, inputs, *args)

    monkeypatch.setattr(SFTTrainer, "training_step", watched)
    values = common | {"train_sampling_strategy": "sequential", "max_steps": 5}
    qa(tiny_llama, tmp_path / "run", **values)
    assert len(lengths) == 20 and lengths == sorted(lengths)


def test_packing_trains_on_the_tokens_of_the_rows(tiny_llama, data, tmp_path):
    done = qa(
        tiny_llama, tmp_path / "run", train_file=data.qa, answer_column="answer", packing=True,
        per_device_train_batch_size=1, max_steps=2,
    )  # fmt: skip
    assert done.results["test_loss"] < done.results["base_test_loss"]


def test_rows_cut_and_dropped_by_max_length_are_counted(tiny_llama, data, tmp_path):
    rows = read_jsonl(data.qa)
    for number, row in enumerate(rows):
        if number % 10 == 0:
            row["question"] += " Think of every organ and of every sign before you say what it is." * 6
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = qa(tiny_llama, tmp_path / "run", train_file=path, answer_column="answer", max_length=80)
    results = done.results
    whole = qa(tiny_llama, tmp_path / "whole", train_file=path, answer_column="answer", max_length=512).results
    assert sum(results[f"data_{split}_dropped_too_long"] for split in ("train", "validation")) > 0
    dropped = sum(results[f"data_{split}_dropped_too_long"] for split in ("train", "validation"))
    assert dropped + results["data_test_cut_prompts"] == 12
    assert [whole[k] for k in whole if k.endswith(("_cut_answers", "_dropped_too_long", "_cut_prompts"))] == [0] * 6
    assert len(done.predictions) == results["test_rows"]  # a row of the test is never dropped


def test_no_epoch_evaluates_only(tiny_llama, data, tmp_path):
    done = qa(
        tiny_llama, tmp_path / "run", train_file=data.qa, answer_column="answer", max_steps=None, num_train_epochs=0
    )
    for name in METRICS:
        assert done.results[f"test_{name}"] == pytest.approx(done.results[f"base_test_{name}"], abs=1e-6)


def test_a_log_at_the_last_step_does_not_matter(tiny_llama, data, tmp_path):
    done = qa(tiny_llama, tmp_path / "run", train_file=data.qa, answer_column="answer", logging_steps=1)
    assert done.results["train_loss"] > 0


def test_gradient_accumulation_changes_neither_loss_nor_gradient(tiny_llama, data, tmp_path):
    first = []
    for rows, steps in ((4, 1), (1, 4), (2, 2)):
        done = qa(
            tiny_llama, tmp_path / f"{rows}x{steps}", train_file=data.qa, answer_column="answer",
            per_device_train_batch_size=rows, gradient_accumulation_steps=steps, logging_first_step=True,
        )  # fmt: skip
        history = json.loads((done.folder / "trainer_state.json").read_text())["log_history"]
        first.append((history[0]["loss"], history[0]["grad_norm"]))
    assert first[1] == pytest.approx(first[0], abs=1e-4) and first[2] == pytest.approx(first[0], abs=1e-4)


def test_rows_are_answered_in_order_though_training_groups_by_length(tiny_llama, data, tmp_path, qa_run):
    done = qa(
        tiny_llama, tmp_path / "run", train_file=data.qa, answer_column="answer", group_column="document",
        near_duplicate_threshold=1.0, train_sampling_strategy="group_by_length", eval_strategy="steps", eval_steps=1,
    )  # fmt: skip
    assert [row["id"] for row in done.predictions] == [row["id"] for row in qa_run.predictions]
    one_by_one = Predictor.from_pretrained(str(done.folder))([row["source"] for row in done.predictions], batch_size=1)
    assert [row["prediction"] for row in one_by_one] == [row["prediction"] for row in done.predictions]


def test_8_bit_weights_train_an_adapter(tiny_llama, data, tmp_path):
    done = qa(
        tiny_llama, tmp_path / "run", train_file=data.qa, answer_column="answer", load_in_8bit=True, dtype="bfloat16",
        bf16=True,
    )  # fmt: skip
    assert done.task["quantization"]["load_in_8bit"] is True
    assert done.results["trainable_parameters"] == 1792


def test_a_second_stage_goes_on_from_the_adapter_of_the_first(qa_run, tiny_llama, data, tmp_path):
    values = {
        "model_name_or_path": qa_run.folder, "train_file": data.qa, "answer_column": "answer", "dtype": "bfloat16",
        "load_in_4bit": True, "use_bnb_nested_quant": True, "bf16": True, "group_column": "document",
        "near_duplicate_threshold": 1.0, "max_new_tokens": 12, "lora_dropout": None,
    }  # fmt: skip
    done = qa(None, tmp_path / "still", **values | {"learning_rate": 0.0})
    results, first = done.results, qa_run.results
    assert done.task["base_model"] == str(tiny_llama) and done.task["first_adapter"] == str(qa_run.folder)
    for name in METRICS:  # nothing was learnt
        for prefix in ("test", "first_adapter_test"):
            assert results[f"{prefix}_{name}"] == pytest.approx(first[f"test_{name}"], abs=1e-6), name
        assert results[f"base_test_{name}"] == pytest.approx(first[f"base_test_{name}"], abs=1e-6), name
    assert results["delta_first_adapter_test_loss"] == 0
    assert "| first adapter |" in (done.folder / "report.md").read_text()

    done = qa(None, tmp_path / "run", **values | {"learning_rate": 0.01})
    assert done.results["test_loss"] < done.results["first_adapter_test_loss"] < done.results["base_test_loss"]
    rows = done.predictions  # on the base model it is whole by itself
    alone = Predictor.from_pretrained(str(done.folder))([row["source"] for row in rows], batch_size=8)
    assert [row["prediction"] for row in alone] == [row["prediction"] for row in rows]
    full = refused(qa_run.folder, tmp_path / "no", train_file=data.qa, answer_column="answer", use_peft=False)
    assert "`use_peft`" in full


def test_rows_grouped_by_length_keep_their_order_when_a_run_goes_on(tiny_llama, data, tmp_path):
    values = {
        "train_file": data.qa, "answer_column": "answer", "train_sampling_strategy": "group_by_length",
        "max_steps": None, "num_train_epochs": 2, "per_device_train_batch_size": 8, "save_strategy": "steps",
        "save_steps": 5, "evaluate_test": False,
    }  # fmt: skip
    whole = qa(tiny_llama, tmp_path / "whole", **values)
    for step in (5, 15):  # in the first epoch, and in the second
        shutil.copytree(whole.folder / f"checkpoint-{step}", tmp_path / f"at{step}" / f"checkpoint-{step}")
        again = qa(tiny_llama, tmp_path / f"at{step}", **values)
        weights = [load_file(run.folder / "adapter_model.safetensors") for run in (whole, again)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


# ----- The recipes for Phi-3 and Phi-2, unchanged but for model, data, device and length


def from_recipe(name: str, model, folder, *more: str) -> Run:
    argv = [
        str(ROOT / "recipes" / name), "--model_name_or_path", str(model), "--output_dir", str(folder), "--use_cpu",
        "true", "--optim", "adamw_torch", "--max_steps", "2", "--eval_strategy", "no", "--save_strategy", "no",
        "--load_best_model_at_end", "false", "--max_new_tokens", "6", "--report_to", "none", *more,
    ]  # fmt: skip
    return run_here(main, ARGUMENTS, argv)


def test_the_phi3_recipe_runs_on_the_shape_of_phi3(tiny_phi3, data, tmp_path):
    argv = ["--train_file", str(data.qa), "--no_dataset_name", "--group_column", "document"]
    done = from_recipe("phi3_qlora.yaml", tiny_phi3, tmp_path / "run", *argv)
    assert done.code == 0, done.stderr
    # r * (in + out) of qkv_proj, o_proj, gate_up_proj, down_proj in 2 layers, r = 16
    assert done.results["trainable_parameters"] == 2 * 16 * ((64 + 192) + (64 + 64) + (64 + 256) + (128 + 64))
    assert done.task["stop"] == "<|end|>"


def test_the_phi2_recipe_runs_on_the_shape_of_phi2_and_drops_rows_without_an_answer(tiny_phi, data, tmp_path):
    argv = ["--dataset_name", str(data.exam_folder), "--near_duplicate_threshold", "1"]
    done = from_recipe("phi2_qlora.yaml", tiny_phi, tmp_path / "run", *argv)
    assert done.code == 0, done.stderr
    assert done.results["trainable_parameters"] == 2 * 32 * 4 * (64 + 64)  # q, k, v and dense, r = 32
    assert done.results["test_rows"] == 20 and done.results["data_dropped_unlabelled"] == 0  # its validation split
    assert done.task["chat"] is False and done.task["stop"] == "<|endoftext|>"
    unlabelled = from_recipe("phi2_qlora.yaml", tiny_phi, tmp_path / "no", *argv, "--test_split_name", "test")
    assert unlabelled.code == 2 and "10 unlabelled" in unlabelled.stderr


def test_a_recipe_for_phi2_that_names_o_proj_is_refused(tiny_phi, data, tmp_path):
    recipe = yaml.safe_load((ROOT / "recipes" / "phi2_qlora.yaml").read_text())
    recipe |= {"lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"], "use_cpu": True}
    recipe |= {"model_name_or_path": str(tiny_phi), "dataset_name": str(data.exam_folder)}
    recipe |= {"near_duplicate_threshold": 1.0, "output_dir": str(tmp_path / "run")}
    argv = [str(write_yaml(tmp_path / "recipe.yaml", recipe)), "--output_dir", str(tmp_path / "run")]
    done = run_here(main, ARGUMENTS, argv)
    assert done.code == 2 and "`lora_target_modules`: `o_proj` matches no layer" in done.stderr
    assert "dense" in done.stderr


# ----- Bad input


def test_a_model_without_a_chat_template_asks_for_a_prompt(tiny_phi, data, tmp_path):
    error = refused(tiny_phi, tmp_path / "run", train_file=data.qa, answer_column="answer")
    assert "`prompt_template`" in error and "chat template" in error


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"train_file": "no_such.csv"}, "`no_such.csv` does not exist"),
        ({"question_column": "questoin"}, "did you mean `question`?"),
        ({"model_name_or_path": "/no/such/model"}, "`model_name_or_path`"),
        ({"model_name_or_path": "/no/such/model", "load_in_4bit": True, "dtype": "bfloat16"}, "`model_name_or_path`"),
        ({"model_name_or_path": "org/not-here"}, "`model_name_or_path` org/not-here cannot be loaded"),
        ({"lora_target_modules": ["q_prj"]}, "did you mean `q_proj`?"),
        ({"lora_target_modules": None}, "`lora_target_modules`"),
        ({"prompt_template": "Answer {questions}"}, "`prompt_template` names {questions}"),
        ({"prompt_template": "Q: {question} A: {answer}"}, "`prompt_template` names {answer}"),
        ({"prompt_template": "Q: {question"}, "`prompt_template` is not a valid template"),
        ({"min_target_words": 500}, "`train` has no rows"),
        ({"max_length": 4}, "`max_length`"),
    ],
)
def test_a_mistake_ends_in_one_line_that_names_it(tiny_llama, data, tmp_path, values, expected):
    given = {"train_file": data.qa, "answer_column": "answer"} | values
    model = given.pop("model_name_or_path", tiny_llama)
    assert expected in refused(model, tmp_path / "run", **given)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"use_peft": False, "load_in_4bit": True, "dtype": "bfloat16"}, "use_peft"),
        ({"lora_r": 0}, "`r`"),
        ({"lora_target_modules": ["self_attn", "q_proj"]}, "self_attn"),
        ({"repetition_penalty": 0}, "penalty"),
        ({"learning_rate": -1}, "learning"),
        ({"report_to": "junk"}, "junk"),
        ({"attn_implementation": "flash_attention_2"}, "attn_implementation"),
    ],
)
def test_what_a_library_refuses_ends_in_one_line(tiny_llama, data, tmp_path, values, expected):
    given = {"train_file": data.qa, "answer_column": "answer"} | values
    assert expected in refused(tiny_llama, tmp_path / "run", **given)


def test_an_output_folder_that_cannot_be_written_is_named(tiny_llama, data, tmp_path):
    (tmp_path / "file").touch()
    error = refused(tiny_llama, tmp_path / "file" / "run", train_file=data.qa, answer_column="answer")
    assert "`output_dir`" in error and "cannot be written" in error


def test_an_answer_outside_the_options_names_the_row(tiny_llama, data, tmp_path):
    rows = read_jsonl(data.exam)
    rows[6]["answer_index"] = 4
    (tmp_path / "exam.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    error = refused(
        tiny_llama, tmp_path / "run", train_file=tmp_path / "exam.jsonl", options_column="options",
        answer_index_column="answer_index",
    )  # fmt: skip
    assert "row 7" in error and "`answer_index` is `4`" in error and "0 to 3" in error


# ----- Two processes


def test_two_processes_answer_every_row_once_and_in_order_and_write_one_report(
    launcher, tiny_llama, data, tmp_path, qa_run
):
    argv = qa_flags(
        tiny_llama, tmp_path / "run", train_file=data.qa, answer_column="answer", group_column="document",
        near_duplicate_threshold=1.0, ddp_backend="gloo",
    )  # fmt: skip
    run = run_script(launcher, "run_qa_sft.py", argv, processes=2)
    assert run.code == 0, run.stderr[-3000:]
    assert [row["id"] for row in run.predictions] == [row["id"] for row in qa_run.predictions]
    assert run.results["test_rows"] == 12 and run.stdout.count("model card: ") == 1
    alone = Predictor.from_pretrained(str(run.folder))([row["source"] for row in run.predictions])
    assert [row["prediction"] for row in alone] == [row["prediction"] for row in run.predictions]


def test_the_same_recipe_gives_the_same_weights(tiny_llama, data, tmp_path):
    weights = [
        load_file(
            qa(tiny_llama, tmp_path / name, train_file=data.qa, answer_column="answer").folder
            / "adapter_model.safetensors"
        )
        for name in ("a", "b")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_numbers_report_and_card_are_remade_without_a_model(qa_run, tmp_path):
    assert_remade(qa_run, tmp_path / "run")
