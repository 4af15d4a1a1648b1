"""Classes in a tree: validated labels, consistent probabilities on all levels, the loss, and predictions.

The model is any transformers sequence classifier with one output per node, `class_config(tree.node_names)`: its last
linear layer stacks the heads of all levels. Only `conditional_log_softmax` turns its logits into a tree, in the loss,
the evaluation and serving. Columns of logits and probabilities are the nodes, level by level: `tree.columns[level]`.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch

from utils.arguments import UserError
from utils.data.keys import alike
from utils.losses import check_smoothing, class_weights

Value = TypeVar("Value", bound=Hashable)
Pairs = dict[tuple[str | None, str], list[int]]  # (parent, child) -> rows
NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True)
class LabelTree:
    """Classes on two or more levels, where each class has one parent on the level above.

    Attributes:
        levels: names on each level, from the root down. A name is unique on its level. It may recur on the next level
            as its own only child, a parent without finer classes, or if it is a number.
        parents: for each level except the first, the index of each node's parent on the level above.
    """

    levels: tuple[tuple[str, ...], ...]
    parents: tuple[tuple[int, ...], ...]

    @classmethod
    def from_paths(cls, paths: Sequence[Sequence[str]], where: Sequence[str] | None = None) -> "LabelTree":
        """Build the tree from the rows. Children are ordered by parent, then by name; numbers by size.

        Args:
            paths: names from the root down, one path per row.
            where: names of the rows for error messages; defaults to "row 1" and so on.

        Raises:
            UserError: an empty name, paths of unequal depth or of one level, names that differ only in case or white
                space, a child with two parents, a name above itself, or a single class. Names the rows.
        """

        def say(rows: list[int]) -> str:
            names = [where[row] if where else f"row {row + 1}" for row in rows[:3]]
            return f"{len(rows)} rows ({', '.join(names)}{', ...' if len(rows) > 3 else ''})"

        _check_depth(paths, say)
        levels: list[tuple[str, ...]] = []
        parents: list[tuple[int, ...]] = []
        all_pairs: Pairs = defaultdict(list)
        for level in range(len(paths[0])):
            pairs = _rows_by((path[level - 1] if level else None, path[level]) for path in paths)
            _check_level(level + 1, pairs, say)
            for pair, rows in pairs.items():
                all_pairs[pair] += rows
            by_size = all(NUMBER.fullmatch(name.strip()) for _, name in pairs)
            place: dict[str | None, int] = {name: i for i, name in enumerate(levels[-1])} if level else {None: 0}
            order = sorted(pairs, key=lambda pair: (place[pair[0]], float(pair[1]) if by_size else 0, pair[1]))
            levels.append(tuple(name for _, name in order))
            parents.append(tuple(place[parent] for parent, _ in order))
        _check_cycles(all_pairs, say)
        if len(levels[-1]) < 2:
            raise UserError(f"All paths end in one class, {levels[-1][0]!r}: give rows with two or more.")
        return cls(tuple(levels), tuple(parents[1:]))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LabelTree":
        """Rebuild the tree from `to_dict`."""
        return cls(*(tuple(map(tuple, values[key])) for key in ("levels", "parents")))

    def to_dict(self) -> dict[str, Any]:
        """Return the tree as plain lists for JSON."""
        return {"levels": list(map(list, self.levels)), "parents": list(map(list, self.parents))}

    @property
    def depth(self) -> int:
        return len(self.levels)

    @property
    def leaves(self) -> tuple[str, ...]:
        """Names on the last level: the labels of the rows."""
        return self.levels[-1]

    @property
    def level_names(self) -> list[str]:
        """Names of the levels in metrics."""
        return ["parent", "child"] if self.depth == 2 else [f"level_{i + 1}" for i in range(self.depth)]

    @cached_property
    def ancestors(self) -> np.ndarray:
        """Node of each leaf on each level, int [leaves, depth]; the last column is the leaf itself."""
        nodes = [np.arange(len(self.leaves))]
        for parents in reversed(self.parents):
            nodes.append(np.array(parents)[nodes[-1]])
        return np.stack(nodes[::-1], axis=1)

    @cached_property
    def columns(self) -> list[slice]:
        """Range of each level among all nodes."""
        ends = np.cumsum([len(names) for names in self.levels]).tolist()
        return [slice(end - len(names), end) for names, end in zip(self.levels, ends, strict=True)]

    @cached_property
    def ancestor_columns(self) -> np.ndarray:
        """`ancestors`, numbered among all nodes."""
        return self.ancestors + [columns.start for columns in self.columns]

    @cached_property
    def siblings(self) -> np.ndarray:
        """Group number of each node, int [nodes], from 0; siblings share a number."""
        below = zip(self.columns[:-1], self.parents, strict=True)
        groups = [1 + above.start + np.array(parents) for above, parents in below]
        return np.concatenate([np.zeros(len(self.levels[0]), dtype=int), *groups])

    @cached_property
    def node_names(self) -> list[str]:
        """Path of each node as one string, for `class_config`."""
        names = [list(self.levels[0])]
        for level, parents in zip(self.levels[1:], self.parents, strict=True):
            names.append([f"{names[-1][parent]} > {name}" for name, parent in zip(level, parents, strict=True)])
        return sum(names, [])

    def path(self, leaf: int) -> list[str]:
        """Return the names from the root down to a leaf."""
        return [names[node] for names, node in zip(self.levels, self.ancestors[leaf], strict=True)]


def conditional_log_softmax(logits: torch.Tensor, tree: LabelTree) -> torch.Tensor:
    """Return log P(node | parent) of logits [rows, nodes]: at least float32 [rows, nodes], never above 0."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    siblings = torch.as_tensor(tree.siblings, device=logits.device)
    largest, log_sum = _log_sum_exp(logits, siblings, 1 + tree.columns[-1].start)
    # In this order: for large logits, largest + log_sum would round log_sum away
    return logits - largest[:, siblings] - log_sum[:, siblings]


def tree_log_softmax(logits: torch.Tensor, tree: LabelTree) -> torch.Tensor:
    """Return log P(node) = log P(parent) + log P(node | parent) of logits [rows, nodes]: at least float32 [rows,
    nodes].

    Each level sums to 1, and no child exceeds its parent.
    """
    conditional = conditional_log_softmax(logits, tree)
    levels = [conditional[:, tree.columns[0]]]
    for columns, parents in zip(tree.columns[1:], tree.parents, strict=True):
        levels.append(levels[-1][:, torch.tensor(parents, device=logits.device)] + conditional[:, columns])
    return torch.cat(levels, dim=1)


def leaf_log_probabilities(logits: np.ndarray, tree: LabelTree) -> np.ndarray:
    """Return log P(leaf), float64 [rows, leaves], of logits [rows, nodes].

    Calibration works on these: a temperature divides them (dividing the logits could change the most likely leaf), and
    `utils.evaluation.ensemble` adds to them.
    """
    return tree_log_softmax(torch.from_numpy(logits).double(), tree)[:, tree.columns[-1]].numpy()


def sum_to_parents(leaf_logits: np.ndarray, tree: LabelTree) -> np.ndarray:
    """Return log P of all nodes, float64 [rows, nodes], with each parent as the sum of its children, so that levels
    agree.

    Args:
        leaf_logits: leaf log-probabilities, float [rows, leaves], after ensembling and temperature scaling; need not
            be normalized.
        tree: the labels.
    """
    levels = [torch.from_numpy(leaf_logits).double().log_softmax(dim=1)]
    for names, parents in zip(tree.levels[-2::-1], tree.parents[::-1], strict=True):
        levels.append(torch.add(*_log_sum_exp(levels[-1], torch.tensor(parents), len(names))))
    return torch.cat(levels[::-1], dim=1).numpy()


def expand_predictions(log_p: np.ndarray, tree: LabelTree) -> np.ndarray:
    """Return the predicted node on each level, int [rows, depth]: the most likely leaf and its ancestors.

    Choosing each level by itself can contradict itself: a parent with 0.6 and three children with 0.2 each is the most
    likely parent, but the most likely leaf is the only child of the other parent, with 0.4.

    Args:
        log_p: float [rows, nodes], from `sum_to_parents`.
        tree: the labels.
    """
    return tree.ancestors[log_p[:, tree.columns[-1]].argmax(axis=1)]


def hierarchical_loss(
    tree: LabelTree,
    class_counts: np.ndarray,
    level_weights: Sequence[float] | None = None,
    gamma: float = 0.0,
    how: str = "none",
    label_smoothing: float = 0.0,
) -> Callable[..., torch.Tensor]:
    """Return a loss for `Trainer(compute_loss_func=...)`, without a subclass of Trainer.

    A row's loss is the sum over levels of weight * (1 - p)^gamma * -log p, where p is the probability of the true node
    given its parent (Lin et al. 2017). With weights of 1 and gamma 0 this is the negative log-likelihood of the leaf.
    A node without siblings contributes 0. The sum over rows is divided as in `utils.losses.classification_loss`.

    Args:
        tree: the labels.
        class_counts: training rows of each leaf, int [leaves].
        level_weights: weight of each level; defaults to 1.
        gamma: focusing parameter of the focal loss; 0 is cross-entropy.
        how: `inverse_frequency` or `class_balanced` weights nodes by `class_counts`, as in `class_weights`.
        label_smoothing: on each level, probability mass of a row's target that is spread evenly over the true node and
            its siblings, which share the softmax; not with a focal loss.
    """
    check_smoothing(label_smoothing, gamma)
    weights = []
    for level, level_weight in enumerate(level_weights or [1.0] * tree.depth):
        counts = np.bincount(tree.ancestors[:, level], class_counts)
        of_node = class_weights(counts, how)
        weights.append(level_weight * (torch.ones(len(counts)) if of_node is None else of_node))
    node_weights = torch.cat(weights)
    path_weights = node_weights[tree.ancestor_columns]
    path_columns = torch.from_numpy(tree.ancestor_columns)
    siblings = torch.from_numpy(tree.siblings)
    group_sizes = siblings.bincount(minlength=1 + tree.columns[-1].start)

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None) -> torch.Tensor:
        on_path, weight = (values.to(labels.device)[labels] for values in (path_columns, path_weights))
        all_log_p = conditional_log_softmax(outputs.logits, tree)
        log_p = all_log_p.gather(1, on_path)
        # At p = 1 the gradient of (1 - p)^gamma is infinite for gamma below 1
        focus = 1.0 if gamma == 0 else (-torch.expm1(log_p)).clamp(min=1e-12) ** gamma
        rows = -(weight * focus * log_p).sum(dim=1)
        if label_smoothing:  # the mean over siblings of what each would cost as the true node
            groups, sizes = siblings.to(labels.device), group_sizes.to(labels.device)
            cost = -(node_weights.to(labels.device) * all_log_p)
            means = cost.new_zeros(len(cost), len(sizes)).index_add(1, groups, cost) / sizes.clamp(min=1)
            rows = (1 - label_smoothing) * rows + label_smoothing * means.gather(1, groups[on_path]).sum(dim=1)
        return rows.sum() / (len(rows) if num_items_in_batch is None else num_items_in_batch)

    return loss


def _log_sum_exp(values: torch.Tensor, groups: torch.Tensor, n_groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return, for each group of columns of values [rows, columns], the maximum (without gradient) and the log of the
    sum of exp(value - maximum), never below 0; both [rows, groups]."""
    lowest = values.new_full((len(values), n_groups), -torch.inf)
    largest = lowest.scatter_reduce(1, groups.expand_as(values), values.detach(), "amax")
    return largest, torch.zeros_like(lowest).index_add(1, groups, (values - largest[:, groups]).exp()).log()


def _rows_by(values: Iterable[Value]) -> dict[Value, list[int]]:
    """Map each value to the rows that have it."""
    found: dict[Value, list[int]] = defaultdict(list)
    for row, value in enumerate(values):
        found[value].append(row)
    return found


def _check_depth(paths: Sequence[Sequence[str]], say: Callable[[list[int]], str]) -> None:
    if empty := [row for row, path in enumerate(paths) if not all(name and name.strip() for name in path)]:
        raise UserError(f"A name in the path of {say(empty)} is empty: fill it in, or remove these rows.")
    depths = _rows_by(map(len, paths))
    if len(depths) > 1:
        found = ", ".join(f"{depth} levels in {say(rows)}" for depth, rows in sorted(depths.items()))
        raise UserError(
            f"Paths have unequal depths: {found}: use the same depth everywhere; a class without finer classes is its "
            "own child."
        )
    if max(depths, default=0) < 2:
        raise UserError(f"Paths have {max(depths, default=0)} levels: give two or more.")


def _check_level(number: int, pairs: Pairs, say: Callable[[list[int]], str]) -> None:
    """Check that the names of a level are distinct to a reader and have one parent each."""
    names: dict[str, dict[str, list[int]]] = defaultdict(dict)
    parents: dict[str, dict[str | None, list[int]]] = defaultdict(dict)
    children: dict[str | None, dict[str, list[int]]] = defaultdict(dict)
    for (parent, child), rows in pairs.items():
        spelling = names[alike(child)]
        spelling[child] = spelling.get(child, []) + rows
        parents[child][parent] = children[parent][child] = rows

    def several(found: Mapping[Any, list[int]]) -> str:
        return " and ".join(f"{name!r} in {say(rows)}" for name, rows in found.items())

    for spellings in names.values():
        if len(spellings) > 1:
            raise UserError(
                f"Names on level {number} differ only in case or white space, or look the same: {several(spellings)}: "
                "use one spelling."
            )
    for child, found in parents.items():
        if len(found) > 1:
            raise UserError(
                f"{child!r} on level {number} has more than one parent: {several(found)}: correct these rows, or add "
                "the parent to the child's name."
            )
        if child in found and len(children[child]) > 1 and not NUMBER.fullmatch(child):
            raise UserError(f"{child!r} is not its own only child: {several(children[child])}: rename it.")


def _check_cycles(pairs: Pairs, say: Callable[[list[int]], str]) -> None:
    """Check that no name is above itself on any level; a child with its parent's name is no cycle. Numbers may recur,
    since each level counts its own classes."""
    parents: dict[str, list[str | None]] = defaultdict(list)
    for parent, child in pairs:
        if parent != child and not NUMBER.fullmatch(child):
            parents[child].append(parent)
    try:
        TopologicalSorter(parents).prepare()
    except CycleError as error:
        found = ", ".join(f"{a!r} over {b!r} in {say(pairs[a, b])}" for a, b in pairwise(error.args[1]))
        raise UserError(f"A name is above itself: {found}: correct these rows, or rename a class.") from error
