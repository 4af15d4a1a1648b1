"""Trees that are checked, probabilities that agree between levels, and a loss that is the leaf's likelihood."""

import json
import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import toy_notes
from datasets import Dataset
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments
from trl import ModelConfig

from utils.adapters import get_lora_config
from utils.arguments import UserError
from utils.encoding import ChunkCollator, encode_texts
from utils.evaluation.calibration import fit_temperature
from utils.evaluation.confidence import abstain_to_parent
from utils.heads import head_names, prepare_classifier
from utils.hierarchy import (
    LabelTree,
    conditional_log_softmax,
    expand_predictions,
    hierarchical_loss,
    leaf_log_probabilities,
    sum_to_parents,
    tree_log_softmax,
)
from utils.logits import predict_logits
from utils.losses import class_weights, focal_loss
from utils.modeling import get_quantization_config, load_base_model

CPU = torch.device("cpu")
GENERAL = "General pathological conditions"
DISEASES = ["Neoplasms", "Digestive system diseases", "Nervous system diseases", "Cardiovascular diseases"]
# A (3 leaves), B (1), C (2)
PATHS = [("A", "a1"), ("A", "a2"), ("A", "a3"), ("B", "B"), ("C", "c1"), ("C", "c2")]


def log_probabilities(logits: np.ndarray, tree: LabelTree, temperature: float = 1.0) -> np.ndarray:
    return sum_to_parents(leaf_log_probabilities(logits, tree) / temperature, tree)


@pytest.fixture
def tree() -> LabelTree:
    return LabelTree.from_paths(PATHS)


def random_tree(seed: int, depth: int) -> LabelTree:
    """One to four children a node, the same name on every level for some only children."""
    rng = random.Random(seed)
    paths = [(f"n{i}",) for i in range(rng.randint(2, 4))]
    for level in range(1, depth):
        longer = []
        for path in paths:
            n = rng.randint(1, 4)
            children = [path[-1]] if n == 1 else [f"{path[-1]}.{level}{i}" for i in range(n)]
            longer += [(*path, child) for child in children]
        paths = longer
    rng.shuffle(paths)
    return LabelTree.from_paths(paths)


def random_logits(tree: LabelTree, scale: float = 2.0, rows: int = 16) -> torch.Tensor:
    return scale * torch.randn(rows, tree.columns[-1].stop, generator=torch.Generator().manual_seed(1))


def naive_conditional(logits: list[float], tree: LabelTree) -> list[list[float]]:
    """P(node | parent) by level, one node at a time in plain Python."""
    found, start = [], 0
    for level, names in enumerate(tree.levels):
        values = logits[start : start + len(names)]
        parents = tree.parents[level - 1] if level else [0] * len(names)
        found.append([])
        for node, parent in enumerate(parents):
            siblings = [value for value, other in zip(values, parents, strict=True) if other == parent]
            total = sum(math.exp(value - max(siblings)) for value in siblings)
            found[-1].append(math.exp(values[node] - max(siblings)) / total)
        start += len(names)
    return found


# ----- The tree


def test_the_tree_of_five_classes_under_two_parents():
    rows = [("Specific disease", name) for name in DISEASES] + [(GENERAL, GENERAL)] * 2
    tree = LabelTree.from_paths(rows)
    assert tree.levels == ((GENERAL, "Specific disease"), (GENERAL, *sorted(DISEASES)))
    assert tree.parents == ((0, 1, 1, 1, 1),)
    assert (tree.depth, tree.leaves, tree.level_names) == (2, tree.levels[1], ["parent", "child"])
    assert tree.ancestors.tolist() == [[0, 0], [1, 1], [1, 2], [1, 3], [1, 4]]
    assert tree.path(3) == ["Specific disease", "Neoplasms"]
    assert tree.node_names[2] == f"{GENERAL} > {GENERAL}" and len(set(tree.node_names)) == 7


def test_children_stand_by_their_parents_order_and_numbers_by_size():
    tree = LabelTree.from_paths([("10", "z"), ("9", "x"), ("9", "b"), ("10", "a")])
    assert tree.levels == (("9", "10"), ("b", "x", "a", "z")) and tree.parents == ((0, 0, 1, 1),)


def test_three_levels_and_where_each_stands():
    tree = LabelTree.from_paths([("A", "a1", "x"), ("A", "a2", "y"), ("B", "B", "B"), ("A", "a1", "w")])
    assert tree.levels == (("A", "B"), ("a1", "a2", "B"), ("w", "x", "y", "B"))
    assert tree.ancestors.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]]
    assert tree.columns == [slice(0, 2), slice(2, 5), slice(5, 9)]
    assert tree.siblings.tolist() == [0, 0, 1, 1, 2, 3, 3, 4, 5]
    assert tree.level_names == ["level_1", "level_2", "level_3"]
    assert [tree.node_names[i] for i in tree.ancestor_columns[2]] == ["A", "A > a2", "A > a2 > y"]


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_a_tree_comes_back_from_json_the_same(depth):
    tree = random_tree(depth, depth)
    again = LabelTree.from_dict(json.loads(json.dumps(tree.to_dict())))
    assert again == tree and again.ancestors.tolist() == tree.ancestors.tolist()


GOOD = [("A", "a1"), ("A", "a2"), ("B", "b1")]


def test_numbers_name_classes_of_their_own_level():
    paths = [("0", "0"), ("0", "2"), ("1", "10"), ("1", "1"), ("2", "11")]
    tree = LabelTree.from_paths(paths)
    assert tree.levels == (("0", "1", "2"), ("0", "2", "1", "10", "11")) and tree.parents == ((0, 0, 1, 1, 2),)
    assert [tree.path(leaf)[0] for leaf in range(5)] == ["0", "0", "1", "1", "2"]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (
            [*GOOD, ("B", "a1"), ("A", "a1"), ("A", "a1"), ("A", "a1")],
            ["'a1' on level 2", "'A' in 4 rows (f:1, f:5, f:6, ...)", "'B' in 1 rows (f:4)"],
        ),
        (
            [("A", "a", "x"), ("A", "b", "x")],
            ["'x' on level 3", "'a' in 1 rows (f:1)", "'b' in 1 rows (f:2)"],
        ),
        ([*GOOD, ("x", "y"), ("y", "x")], ["above itself", "'x' over 'y' in 1 rows (f:4)", "'y' over 'x'", "f:5"]),
        ([("x", "y", "a"), ("y", "z", "b"), ("z", "x", "c")], ["above itself", "f:1", "f:2", "f:3"]),
        ([("A", "b", "A"), ("C", "d", "e")], ["above itself", "'A' over 'b' in 1 rows (f:1)"]),
        ([*GOOD, ("A", "A")], ["'A' is not its own only child", "'A' in 1 rows (f:4)", "'a1' in 1 rows"]),
        ([*GOOD, ("A", "A"), ("B", "A")], ["'A' on level 2", "'A' in 1 rows (f:4)", "'B' in 1 rows (f:5)"]),
        ([*GOOD, ("A", " ")], ["empty", "1 rows (f:4)"]),
        ([*GOOD, ("", "b1"), (None, "b1")], ["empty", "2 rows (f:4, f:5)"]),
        (
            [*GOOD, ("A", "a1", "x"), ("B",)],
            ["unequal", "1 levels in 1 rows (f:5)", "2 levels in 3 rows (f:1, f:2, f:3)", "3 levels in 1 rows (f:4)"],
        ),
        ([("A",), ("B",)], ["1 levels"]),
        ([], ["0 levels"]),
        ([("A", "a"), ("A", "a")], ["one class", "'a'"]),
        ([*GOOD, ("A", "A1")], ["level 2", "'a1' in 1 rows (f:1)", "'A1' in 1 rows (f:4)", "case or white space"]),
        ([*GOOD, ("A  ", "a3")], ["level 1", "'A' in 2 rows (f:1, f:2)", "'A  ' in 1 rows (f:4)"]),
        # two spellings of a child under two parents: the spelling is what to correct
        ([*GOOD, ("B", "a1 ")], ["level 2", "'a1' in 1 rows", "'a1 ' in 1 rows (f:4)", "case or white space"]),
    ],
)  # fmt: skip
def test_a_bad_tree_is_refused_with_its_rows(paths, expected):
    with pytest.raises(UserError) as caught:
        LabelTree.from_paths(paths, [f"f:{i + 1}" for i in range(len(paths))])
    message = str(caught.value)
    assert "\n" not in message and all(part in message for part in expected), message


def test_rows_have_numbers_where_nobody_names_them():
    with pytest.raises(UserError, match=r"1 rows \(row 4\) is empty"):
        LabelTree.from_paths([*GOOD, ("A", "")])


# ----- Probabilities


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_probabilities_are_those_of_a_plain_loop(depth, seed):
    tree = random_tree(seed, depth)
    logits = random_logits(tree)
    found, joint = conditional_log_softmax(logits, tree).exp(), tree_log_softmax(logits, tree).exp()
    for row in range(len(logits)):
        conditional = naive_conditional(logits[row].tolist(), tree)
        assert found[row].tolist() == pytest.approx(sum(conditional, []), abs=1e-6)
        above = [1.0]
        for level, columns in enumerate(tree.columns):
            parents = tree.parents[level - 1] if level else [0] * len(tree.levels[0])
            above = [above[parent] * p for parent, p in zip(parents, conditional[level], strict=True)]
            assert joint[row, columns].tolist() == pytest.approx(above, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_each_level_sums_to_1_and_no_child_exceeds_its_parent(depth, scale, dtype):
    tree = random_tree(7, depth)
    logits = random_logits(tree, scale, rows=200)
    logits[0] = 1e4  # ties at a size where float32 has steps of 0.001
    log_p = tree_log_softmax(logits.to(dtype), tree)
    assert log_p.dtype is torch.float32 and log_p.isfinite().all()
    for found in (log_p.numpy(), *(log_probabilities(logits.numpy(), tree, t) for t in (0.05, 1.0, 20.0))):
        levels = [found[:, columns] for columns in tree.columns]
        assert all(abs(np.exp(level).sum(axis=1) - 1).max() < 1e-5 for level in levels)
        for above, below, parents in zip(levels, levels[1:], tree.parents, strict=False):
            assert (below <= above[:, list(parents)]).all()


def test_an_only_child_is_as_likely_as_its_parent(tree):
    log_p = tree_log_softmax(random_logits(tree), tree)
    assert torch.equal(log_p[:, 1], log_p[:, tree.columns[1]][:, 3])


def test_the_temperature_changes_no_prediction_and_fits_as_for_a_flat_model(tree):
    logits = 5 * random_logits(tree, rows=400).numpy()
    once = log_probabilities(logits, tree)
    assert once == pytest.approx(tree_log_softmax(torch.from_numpy(logits), tree).numpy(), abs=1e-4)
    leaves = once[:, tree.columns[-1]]
    labels = np.random.default_rng(0).integers(6, size=400)  # far less sure than the logits
    temperature = fit_temperature(leaves, labels)
    fitted = log_probabilities(logits, tree, temperature)
    assert temperature > 2 and (expand_predictions(fitted, tree) == expand_predictions(once, tree)).all()
    nll = [-p[:, tree.columns[-1]][np.arange(400), labels].mean() for p in (fitted, once)]
    assert nll[0] < nll[1] / 2
    assert fitted[:, 0] == pytest.approx(np.logaddexp.reduce(fitted[:, 3:6], axis=1))  # A is the sum of a1, a2, a3


# ----- Answers


@pytest.fixture
def log_p(tree) -> np.ndarray:
    """P(A) 0.6, P(B) 0.3, P(C) 0.1; a1, a2, a3 0.2 each; c1 0.09. Then A 0.7, of which a2 0.65."""
    rows = [
        [0.6, 0.3, 0.1, 0.2, 0.2, 0.2, 0.3, 0.09, 0.01],
        [0.7, 0.2, 0.1, 0.03, 0.65, 0.02, 0.2, 0.05, 0.05],
    ]
    return np.log(rows)


def test_the_predicted_path_is_that_of_the_likeliest_leaf(tree, log_p):
    assert expand_predictions(log_p, tree).tolist() == [[1, 3], [0, 1]]
    assert log_p[0, tree.columns[0]].argmax() == 0  # the likeliest parent by itself is another


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.25, [2, 2]), (0.3, [2, 2]), (0.66, [0, 1]), (0.71, [0, 0]), (0.0, [2, 2]), (math.inf, [0, 0]),
     ([0.75, 0.6], [0, 2]), ([0.1, 0.9], [1, 1])],
)  # fmt: skip
def test_the_deepest_node_that_is_sure_enough_is_shown(tree, log_p, threshold, expected):
    assert abstain_to_parent(log_p + 1e-12, tree, threshold).tolist() == expected


def test_a_probability_at_the_threshold_is_enough(tree):
    log_p = np.log([[0.75, 0.125, 0.125, 0.5, 0.125, 0.125, 0.125, 0.0625, 0.0625]])
    assert abstain_to_parent(log_p, tree, 0.5).tolist() == [2]


# ----- The loss


def counts_of(tree: LabelTree) -> np.ndarray:
    return 1 + 7 * np.arange(len(tree.leaves))


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_with_weights_1_and_gamma_0_it_is_the_leafs_negative_log_likelihood(depth):
    tree = random_tree(3, depth)
    logits = random_logits(tree)
    labels = torch.arange(16) % len(tree.leaves)
    loss = hierarchical_loss(tree, counts_of(tree), [1.0] * depth)(SimpleNamespace(logits=logits), labels)
    leaf_log_p = tree_log_softmax(logits, tree)[:, tree.columns[-1]]
    assert loss.item() == pytest.approx(torch.nn.functional.nll_loss(leaf_log_p, labels).item(), rel=1e-6)
    assert loss.item() == pytest.approx(focal_loss(leaf_log_p, labels, 0.0).mean().item(), rel=1e-6)


@pytest.mark.parametrize("how", ["none", "inverse_frequency", "class_balanced"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_it_is_its_formula_with_all_weights(how, gamma):
    tree = random_tree(5, 3)
    logits, counts, level_weights = random_logits(tree), counts_of(tree), [0.5, 1.0, 2.0]
    of_level = [[0] * len(names) for names in tree.levels]
    for path, count in zip(tree.ancestors.tolist(), counts.tolist(), strict=True):
        for level, node in enumerate(path):
            of_level[level][node] += count
    labels = torch.arange(16) % len(tree.leaves)
    expected = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        conditional = naive_conditional(row, tree)
        for level, node in enumerate(tree.ancestors[label]):
            p, weight = conditional[level][node], level_weights[level]
            if how != "none":
                weight *= class_weights(of_level[level], how)[node].item()
            expected += weight * (1 - p) ** gamma * -math.log(p) if p < 1 else 0.0
    loss = hierarchical_loss(tree, counts, level_weights, gamma, how)
    assert loss(SimpleNamespace(logits=logits), labels, 16).item() == pytest.approx(expected / 16, rel=1e-5)


@pytest.mark.parametrize("how", ["none", "class_balanced"])
def test_label_smoothing_spreads_a_share_over_siblings_on_each_level(how):
    tree, smoothing = random_tree(5, 3), 0.3
    logits, counts, level_weights = random_logits(tree), counts_of(tree), [0.5, 1.0, 2.0]
    labels = torch.arange(16) % len(tree.leaves)
    of_level = [np.bincount(tree.ancestors[:, level], counts) for level in range(3)]
    weights = [
        w * (torch.ones(len(n)) if how == "none" else class_weights(n, how))
        for w, n in zip(level_weights, of_level, strict=True)
    ]
    parents = [[0] * len(tree.levels[0]), *tree.parents]
    expected = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        conditional = naive_conditional(row, tree)
        for level, node in enumerate(tree.ancestors[label].tolist()):
            siblings = [i for i, parent in enumerate(parents[level]) if parent == parents[level][node]]
            target = {i: smoothing / len(siblings) + (1 - smoothing) * (i == node) for i in siblings}
            cost = {i: -weights[level][i].item() * math.log(conditional[level][i]) for i in siblings}
            expected += sum(target[i] * cost[i] for i in siblings)
    loss = hierarchical_loss(tree, counts, level_weights, 0.0, how, smoothing)
    assert loss(SimpleNamespace(logits=logits), labels, 16).item() == pytest.approx(expected / 16, rel=1e-5)
    with pytest.raises(UserError, match="`label_smoothing_factor`"):
        hierarchical_loss(tree, counts, level_weights, 1.0, how, smoothing)


def test_pieces_of_a_batch_add_up_to_the_batch(tree):
    logits, labels = random_logits(tree), torch.arange(16) % 6
    loss = hierarchical_loss(tree, counts_of(tree), [1.0, 1.0], 2.0, "class_balanced")
    whole = loss(SimpleNamespace(logits=logits), labels, torch.tensor(16))
    pieces = [loss(SimpleNamespace(logits=logits[i : i + 4]), labels[i : i + 4], 16) for i in range(0, 16, 4)]
    assert whole.item() == pytest.approx(sum(pieces).item(), rel=1e-6)
    assert whole.item() == pytest.approx(loss(SimpleNamespace(logits=logits), labels).item(), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_is_finite_where_the_model_is_sure_or_far_off(tree, gamma, dtype):
    logits = random_logits(tree, 1e4).to(dtype).requires_grad_()
    loss = hierarchical_loss(tree, counts_of(tree), [1.0, 1.0], gamma, "inverse_frequency")
    loss(SimpleNamespace(logits=logits), torch.arange(16) % 6).backward()
    assert logits.grad.isfinite().all() and logits.grad.abs().sum() > 0


def test_the_gradient_is_that_of_finite_differences(tree):
    logits = random_logits(tree, rows=3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda values: tree_log_softmax(values, tree), logits)


def test_a_node_without_siblings_adds_nothing_and_other_parents_children_get_no_gradient(tree):
    logits = random_logits(tree, rows=1).requires_grad_()
    # a child of B: only the choice of the parent is left
    loss = hierarchical_loss(tree, counts_of(tree), [0.0, 1.0], 2.0)(SimpleNamespace(logits=logits), torch.tensor([3]))
    assert loss.item() == 0
    logits.grad = None
    loss = hierarchical_loss(tree, counts_of(tree), [1.0, 1.0])(SimpleNamespace(logits=logits), torch.tensor([4]))
    loss.backward()
    assert (logits.grad[0, 3:7] == 0).all() and (logits.grad[0, 7:] != 0).all() and (logits.grad[0, :3] != 0).all()


# ----- With the libraries: a sequence classifier with one output a node is all that it takes

WARDS = {"cardiology": "organs", "urology": "organs", "allergy": "allergy"}


@pytest.fixture(scope="module")
def wards() -> LabelTree:
    return LabelTree.from_paths([(parent, child) for child, parent in WARDS.items()])


def load(folder, tree, adapter=None, pooling="mean", **values):
    """The model as a script and `utils.inference` load it: new, or with a saved adapter."""
    args = ModelConfig(
        **{"model_name_or_path": str(folder), "dtype": "float32", "use_peft": True, "lora_r": 4, "lora_dropout": 0.0,
           "lora_target_modules": ["query", "value"]} | values
    )  # fmt: skip
    heads = head_names(args, AutoModelForSequenceClassification, tree.node_names)
    quantization = get_quantization_config(args, CPU, skip_modules=heads)
    torch.manual_seed(0)
    names, new = tree.node_names, [*heads, "pooler"] if pooling == "mean" else heads
    loaded = load_base_model(args, AutoModelForSequenceClassification, quantization, CPU, labels=names, new=new)
    model = prepare_classifier(loaded, heads, pooling, dropout=0.0)
    if adapter:
        return PeftModel.from_pretrained(model, adapter)
    config = get_lora_config(args, model, "SEQ_CLS", heads)
    return get_peft_model(model, config) if config else model


def train(folder, model, tree, base, **values) -> tuple[Trainer, np.ndarray]:
    """Three steps on the notes, and the logits of twelve of them."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    notes = toy_notes()[:40]
    rows, _ = encode_texts(tokenizer, [note["note"] for note in notes], 16)
    labels = [tree.leaves.index(note["ward"]) for note in notes]
    args = TrainingArguments(
        **{"output_dir": str(folder), "use_cpu": True, "max_steps": 3, "learning_rate": 0.01, "report_to": "none",
           "save_strategy": "no", "per_device_train_batch_size": 4, "logging_steps": 1, "seed": 3} | values
    )  # fmt: skip
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_dict({"input_ids": rows, "labels": labels}),
        data_collator=ChunkCollator(0, 16),
        compute_loss_func=hierarchical_loss(tree, np.array([5, 15, 10]), [1.0, 1.0], 2.0, "class_balanced"),
    )
    trainer.train()
    trainer.save_model()
    return trainer, predict(model, base, "bfloat16" if args.bf16 else None)


def predict(model, base, autocast=None) -> np.ndarray:
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows, _ = encode_texts(tokenizer, [note["note"] for note in toy_notes()[:12]], 16)
    return predict_logits(model, rows, 0, 16, 4, autocast)


@pytest.mark.parametrize("pooling", ["mean", "model"])
def test_an_adapter_with_its_heads_comes_back_the_same(tiny_bert, wards, tmp_path, pooling):
    model = load(tiny_bert, wards, pooling=pooling)
    before = predict(model, tiny_bert)
    trainer, logits = train(tmp_path, model, wards, tiny_bert)
    assert logits.shape == (12, 5) and abs(logits - before).max() > 0.01
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert {k for k in saved if "lora_" not in k} == {f"base_model.model.classifier.{k}" for k in ("weight", "bias")}
    again = load(tiny_bert, wards, adapter=tmp_path, pooling=pooling)
    assert predict(again, tiny_bert) == pytest.approx(logits, abs=1e-6)
    assert predict(again.merge_and_unload(), tiny_bert) == pytest.approx(logits, abs=1e-5)


def test_a_whole_model_comes_back_the_same_without_its_base(tiny_bert, wards, tmp_path):
    _, logits = train(tmp_path, load(tiny_bert, wards, use_peft=False), wards, tiny_bert)
    again = load(tmp_path, wards, use_peft=False)
    assert predict(again, tiny_bert) == pytest.approx(logits, abs=1e-6)
    assert [again.config.id2label[i] for i in range(5)] == wards.node_names


def test_two_heads_of_a_model_are_both_trained_and_saved(tiny_distilbert, wards, tmp_path):
    model = load(tiny_distilbert, wards, lora_target_modules=["q_lin", "v_lin"])
    _, logits = train(tmp_path, model, wards, tiny_distilbert)
    again = load(tiny_distilbert, wards, adapter=tmp_path, lora_target_modules=["q_lin", "v_lin"])
    assert predict(again, tiny_distilbert) == pytest.approx(logits, abs=1e-6)


def test_4_bit_weights_train_with_heads_in_float32_and_come_back_the_same(tiny_bert, wards, tmp_path):
    values = {"load_in_4bit": True, "dtype": "bfloat16"}
    model = load(tiny_bert, wards, **values)
    head = model.base_model.model.classifier.modules_to_save["default"]
    before = head.weight.detach().clone()
    assert type(head) is torch.nn.Linear and head.weight.dtype is torch.float32
    assert type(model.base_model.model.bert.encoder.layer[0].intermediate.dense).__name__ == "Linear4bit"
    trainer, logits = train(tmp_path, model, wards, tiny_bert, bf16=True, max_steps=1)
    assert math.isfinite(trainer.state.log_history[0]["loss"])
    # two parents, and three leaves of which the first has no siblings
    assert (head.weight != before).any(dim=1).tolist() == [True, True, False, True, True]
    assert predict(load(tiny_bert, wards, adapter=tmp_path, **values), tiny_bert, "bfloat16") == pytest.approx(
        logits, abs=1e-6
    )


@pytest.mark.parametrize("use_peft", [True, False])
def test_checkpointing_of_activations_changes_no_number(tiny_bert, wards, tmp_path, use_peft):
    found = []
    for checkpointing in (False, True):
        model = load(tiny_bert, wards, use_peft=use_peft)
        trainer, logits = train(tmp_path, model, wards, tiny_bert, gradient_checkpointing=checkpointing)
        assert trainer.model.is_gradient_checkpointing is checkpointing
        found.append(logits)
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_accumulation_changes_neither_loss_nor_gradient(tiny_bert, wards, tmp_path):
    found = []
    for rows, steps in ((8, 1), (2, 4)):
        model = load(tiny_bert, wards)
        trainer, _ = train(
            tmp_path, model, wards, tiny_bert, max_steps=1, per_device_train_batch_size=rows,
            gradient_accumulation_steps=steps,
        )  # fmt: skip
        found.append([trainer.state.log_history[0][key] for key in ("loss", "grad_norm")])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
