"""An adapter as `model_name_or_path`: training goes on from it, or one line says why not."""

import json
import shutil

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from trl import ModelConfig

from utils.adapters import add_adapter, count_parameters, find_adapter
from utils.arguments import UserError
from utils.evaluation.models import earlier_models
from utils.modeling import load_tokenizer

QA = {"task": "qa"}
CLASSES = {"task": "classification", "labels": ["a", "b"], "pooling": "model"}
HEADS = ["classifier"]


def arguments(name, **values) -> ModelConfig:
    defaults = {"dtype": "float32", "use_peft": True, "lora_target_modules": ["q_proj", "v_proj"]}
    return ModelConfig(model_name_or_path=str(name), **defaults | values)


def save_adapter(folder, base, task, heads=(), **values):
    """Save an adapter as a run does, with the second half of its matrices no longer 0."""
    args = arguments(base, lora_r=4, **values)
    auto_class = AutoModelForSequenceClassification if heads else AutoModelForCausalLM
    model = add_adapter(auto_class.from_pretrained(base), args, task, heads)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter.data)
    model.save_pretrained(folder)
    (folder / "task.json").write_text(json.dumps(task | {"base_model": str(base), "base_model_revision": None}))
    return folder


@pytest.fixture(scope="module")
def adapter(tiny_llama, tmp_path_factory):
    return save_adapter(tmp_path_factory.mktemp("adapter"), tiny_llama, QA)


@pytest.fixture(scope="module")
def classifier(tiny_bert, tmp_path_factory):
    targets = {"lora_target_modules": ["query"]}
    return save_adapter(tmp_path_factory.mktemp("classifier"), tiny_bert, CLASSES, HEADS, **targets)


def refused(args, given, base=None, task=QA, heads=()) -> str:
    with pytest.raises(UserError) as caught:
        found, folder = find_adapter(args, given)
        auto_class = AutoModelForSequenceClassification if heads else AutoModelForCausalLM
        add_adapter(auto_class.from_pretrained(base), found, task, heads, folder)
    return str(caught.value)


# ----- What is an adapter


def test_a_model_is_no_adapter_and_stays_as_it_is(tiny_llama):
    args = arguments(tiny_llama)
    assert find_adapter(args, {}) == (args, None)
    assert find_adapter(arguments("org/not-here"), {})[1] is None  # `load_tokenizer` says that there is none


def test_an_adapter_is_found_with_its_base_model_and_its_values(adapter, tiny_llama, tmp_path):
    plain = shutil.copytree(adapter, tmp_path / "plain")
    (plain / "task.json").unlink()
    for folder in (adapter, plain):
        args, found = find_adapter(arguments(folder, model_revision="v2"), {"lora_r": 4})
        assert (args.model_name_or_path, found, args.lora_r) == (str(tiny_llama), folder, 4)
        assert args.model_revision is None  # it was the adapter's


def test_the_base_model_that_a_task_names_counts_more_than_peft_s(adapter, tmp_path):
    moved = shutil.copytree(adapter, tmp_path / "moved")
    (moved / "task.json").write_text(json.dumps(QA | {"base_model": "org/base", "base_model_revision": "abc"}))
    args, _ = find_adapter(arguments(moved), {})
    assert (args.model_name_or_path, args.model_revision) == ("org/base", "abc")


def test_a_tokenizer_beside_the_adapter_is_the_one_to_use(adapter, tiny_llama, tiny_phi3, tmp_path):
    args = arguments(tiny_llama)
    assert load_tokenizer(args, first_adapter=adapter).eos_token == "<|im_end|>"  # the base model's: it has none
    own = shutil.copytree(adapter, tmp_path / "own")
    for path in tiny_phi3.glob("*token*"):
        shutil.copy(path, own)
    assert load_tokenizer(args, first_adapter=own).eos_token == load_tokenizer(arguments(tiny_phi3)).eos_token


# ----- Going on


def test_training_goes_on_from_the_weights_of_the_adapter(adapter, tiny_llama):
    args, folder = find_adapter(arguments(adapter), {})
    model = add_adapter(AutoModelForCausalLM.from_pretrained(tiny_llama), args, QA, first_adapter=folder)
    trained = {n.replace(".default", ""): p for n, p in model.named_parameters() if p.requires_grad}
    saved = load_file(folder / "adapter_model.safetensors")
    assert trained.keys() == saved.keys() and all(torch.equal(trained[name], saved[name]) for name in saved)
    assert list(model.peft_config) == ["default"]
    assert count_parameters(model)["trainable_parameters"] == sum(w.numel() for w in saved.values())


@pytest.mark.parametrize("targets", [["all-linear"], None])
def test_targets_may_be_named_in_another_way_or_not_at_all(targets, tiny_llama, tmp_path):
    folder = save_adapter(tmp_path / "all", tiny_llama, QA, lora_target_modules=["all-linear"])
    args, found = find_adapter(arguments(folder, lora_target_modules=targets), {"lora_target_modules": targets})
    model = add_adapter(AutoModelForCausalLM.from_pretrained(tiny_llama), args, QA, first_adapter=found)
    assert {n.split(".")[-4] for n, p in model.named_parameters() if p.requires_grad} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["lora", "dora", "head"])
def test_what_came_before_is_the_base_model_and_the_first_adapter(kind, tiny_llama, tiny_bert, tmp_path):
    ids = torch.tensor([[5, 6, 7]])
    source, task, heads = (tiny_bert, CLASSES, HEADS) if kind == "head" else (tiny_llama, QA, [])
    auto_class = AutoModelForSequenceClassification if heads else AutoModelForCausalLM
    args = {"lora_target_modules": ["query"] if heads else ["q_proj"], "use_dora": kind == "dora"}
    folder = save_adapter(tmp_path / "first", source, task, heads, **args)
    torch.manual_seed(0)
    base = auto_class.from_pretrained(source)
    expected = {"base_test": base.eval()(ids).logits.detach()}
    torch.manual_seed(0)
    first = PeftModel.from_pretrained(auto_class.from_pretrained(source), folder).eval()
    expected["first_adapter_test"] = first(ids).logits.detach()
    model = add_adapter(base, arguments(source, **args), task, heads, folder)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1
    with torch.no_grad():
        tuned = model.eval()(ids).logits
        found = {name: earlier(ids).logits.clone() for name, earlier in earlier_models(model, None, folder)}
        assert torch.equal(model(ids).logits, tuned)
    assert found.keys() == expected.keys() and not torch.allclose(tuned, expected["first_adapter_test"], atol=1e-3)
    assert all(torch.allclose(found[name], expected[name], atol=1e-5) for name in expected)


def test_before_full_fine_tuning_was_a_fresh_copy(tiny_llama):
    model, fresh = (AutoModelForCausalLM.from_pretrained(tiny_llama) for _ in range(2))
    assert list(earlier_models(model, lambda: fresh, None)) == [("base_test", fresh)]


# ----- Refused in one line


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"lora_r": 8}, "lora_r"),
        ({"lora_alpha": 1}, "lora_alpha"),
        ({"lora_dropout": 0.5}, "lora_dropout"),
        ({"use_rslora": True}, "use_rslora"),
        ({"use_dora": True}, "use_dora"),
        ({"use_peft": False}, "use_peft"),
        ({"lora_target_modules": ["q_proj"]}, "lora_target_modules"),
        ({"lora_target_modules": ["q_proj", "v_proj", "o_proj"]}, "lora_target_modules"),
        ({"lora_target_modules": ["all-linear"]}, "lora_target_modules"),
        ({"lora_modules_to_save": ["lm_head"]}, "lora_modules_to_save"),
    ],
)
def test_keys_that_contradict_the_adapter_are_refused(values, key, adapter, tiny_llama):
    assert f"`{key}`" in refused(arguments(adapter, **values), values, tiny_llama)


@pytest.mark.parametrize(
    ("task", "key"),
    [
        (CLASSES | {"labels": ["b", "a"]}, "labels"),
        (CLASSES | {"labels": ["a", "b", "c"]}, "labels"),
        (CLASSES | {"pooling": "mean"}, "pooling"),
        (CLASSES | {"task": "hierarchical"}, "task"),
    ],
)
def test_a_head_of_other_classes_is_refused(task, key, classifier, tiny_bert):
    args = arguments(classifier, lora_target_modules=["query"])
    assert f"another `{key}`" in refused(args, {}, tiny_bert, task, HEADS)


def test_a_head_of_another_number_of_classes_is_refused_without_a_task_too(classifier, tiny_bert, tmp_path):
    plain = shutil.copytree(classifier, tmp_path / "plain")
    (plain / "task.json").unlink()
    base = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=5)
    args, folder = find_adapter(arguments(plain, lora_target_modules=["query"]), {})
    with pytest.raises(UserError, match="does not fit.*classifier"):
        add_adapter(base, args, CLASSES, HEADS, folder)


def test_an_adapter_of_another_kind_or_without_the_whole_head_is_refused(tiny_bert, tiny_distilbert, tmp_path):
    folder = save_adapter(tmp_path / "text", tiny_bert, QA, lora_target_modules=["query"])
    (folder / "task.json").unlink()
    error = refused(arguments(folder, lora_target_modules=["query"]), {}, tiny_bert, CLASSES, HEADS)
    assert "CAUSAL_LM" in error and "SEQ_CLS" in error
    # PEFT saves the head by the name `classifier`, and leaves DistilBERT's other one as it was drawn
    model = AutoModelForSequenceClassification.from_pretrained(tiny_distilbert)
    config = LoraConfig(task_type="SEQ_CLS", target_modules=["q_lin"], base_model_name_or_path=str(tiny_distilbert))
    get_peft_model(model, config).save_pretrained(tmp_path / "half")
    args = arguments(tmp_path / "half", lora_target_modules=None)
    assert "pre_classifier" in refused(args, {}, tiny_distilbert, CLASSES, ["pre_classifier", "classifier"])


def test_an_adapter_whose_weights_are_not_finite_is_refused(adapter, tiny_llama, tmp_path):
    broken = shutil.copytree(adapter, tmp_path / "broken")
    weights = load_file(broken / "adapter_model.safetensors")
    next(iter(weights.values()))[0, 0] = torch.inf
    save_file(weights, broken / "adapter_model.safetensors")
    assert "not finite" in refused(arguments(broken), {}, tiny_llama)


def test_an_adapter_that_is_not_lora_or_names_no_base_model_is_refused(adapter, tiny_llama, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    config = IA3Config(task_type="CAUSAL_LM", target_modules=["q_proj"], feedforward_modules=[])
    get_peft_model(model, config).save_pretrained(tmp_path / "ia3")
    assert "not LoRA" in refused(arguments(tmp_path / "ia3"), {})
    homeless = shutil.copytree(adapter, tmp_path / "homeless")
    (homeless / "task.json").unlink()
    config = json.loads((homeless / "adapter_config.json").read_text()) | {"base_model_name_or_path": None}
    (homeless / "adapter_config.json").write_text(json.dumps(config))
    assert "names no base model" in refused(arguments(homeless), {})
