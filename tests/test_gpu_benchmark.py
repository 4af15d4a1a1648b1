"""The GPU benchmark on tiny models: it runs without a GPU, and its ways compute the same step."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from benchmarks.gpu.__main__ import CASES, run
from benchmarks.gpu.batches import measure_batches
from benchmarks.gpu.encoders import measure_encoder
from benchmarks.gpu.generation import measure_generation
from benchmarks.gpu.models import make_config, model_folder, question_rows
from benchmarks.gpu.process import receive, start
from benchmarks.gpu.training import TINY_LENGTH, measure_training, recipe_parts, useful_flops


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])  # recipes are read from here


def training_row(folder: Path, name: str, way: str, **switches: Any) -> dict[str, Any]:
    # Dropout would draw other numbers in each way
    ((_, row),) = measure_training(folder, True, name, way, switches | {"lora_dropout": 0}, steps=2)
    return row


def test_every_way_computes_the_loss_and_the_gradient_of_the_recipe(folder: Path) -> None:
    recipe = training_row(folder, "phi3", "recipe")
    packed = {"dtype": "bfloat16", "packing": True, "attn_implementation": "sdpa"}
    for way, switches in (("trl", {}), ("trl", packed), ("recipe", {"packing": False})):
        row = training_row(folder, "phi3", way, **switches)
        assert row["loss"] == pytest.approx(recipe["loss"], rel=1e-3)
        assert row["grad_norm"] == pytest.approx(recipe["grad_norm"], rel=0.02)
        assert row["tokens_per_step"] == recipe["tokens_per_step"]
    assert recipe["grad_norm"] > 0 and recipe["tokens_per_second"] > 0


def test_flops_of_a_step_are_those_counted_by_hand() -> None:
    config = make_config("qwen3", tiny=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        tuned = get_peft_model(model, LoraConfig(r=4, target_modules=["o_proj"]))
    rows = {"input_ids": [[5] * 10, [5] * 7], "labels": [[-100] * 8 + [5] * 2, [-100] * 4 + [5] * 3]}
    layer = 64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 128  # q, k and v of two key heads, o, MLP
    expected = 17 * 2 * (4 * layer + 6 * 4 * (64 + 64)) + 6 * 2 * 64 * (10**2 + 7**2) + 4 * 512 * 64 * 5
    assert useful_flops(tuned, rows) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["phi3", "phi2"])
def test_full_rows_have_the_maximum_length(folder: Path, name: str) -> None:
    rows = question_rows(4, TINY_LENGTH, name == "phi2", full=True)
    _, _, _, tokenized = recipe_parts(name, model_folder(name, folder, True), rows, TINY_LENGTH, {}, 1)
    assert [len(ids) for ids in tokenized["input_ids"]] == [TINY_LENGTH] * 4


def test_batches_encoders_and_generation_are_measured(folder: Path) -> None:
    found = dict(measure_batches(folder, True, "phi3", {}, (1, 2), (8,)))
    assert found["batch 2"]["tokens_per_second"] > 0
    assert found["card of 8 GB"]["largest_batch"] > 2
    for name, way in (("distilbert", "official"), ("bioclinicalbert", "official_best"), ("flan_t5", "official")):
        for each in ("recipe", way):
            ((_, row),) = measure_encoder(folder, True, name, each, steps=3)
            assert row["rows_per_second"] > 0 and row["grad_norm"] > 0
    found = dict(measure_generation(folder, True, "phi3", True, (1, 2)))
    assert [row["batch"] for row in found.values()] == [1, 2]


def test_a_failing_case_leaves_its_error_and_a_late_one_is_left_out(tmp_path: Path) -> None:
    results = run({"bad": ("machine", {"unknown": 1})}, True, 5, tmp_path / "gpu.json")
    assert "unknown" in results["rows"]["bad"]["error"]
    assert json.loads((tmp_path / "gpu.json").read_text())["rows"].keys() == {"bad"}
    late = run({"machine": CASES["machine"]}, True, 0, tmp_path / "gpu.json")
    assert "error" in late["rows"]["machine"]


def test_a_process_that_dies_or_takes_too_long_yields_an_error() -> None:
    for end in ("die", "wait"):
        process, connection = start()
        if end == "die":
            process.kill()
        ((_, row),) = receive(connection, 60 if end == "die" else 0)
        process.kill()
        assert "error" in row
