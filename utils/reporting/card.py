"""The model card of a run, written from the files in `output_dir` alone, without local paths or rows of data."""

import re
import shlex
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from utils.json_files import read_json, read_yaml
from utils.push import last_part, without_paths
from utils.reporting.headline import DOES, headline_table, opening, summary
from utils.reporting.metric_names import (
    METRICS,
    TABLE_ONLY,
    baselines_line,
    label,
    leaks_line,
    metric_names,
    notes_line,
)
from utils.reporting.plain_transformers import beyond_weights, plain_transformers
from utils.reporting.tables import (
    data_tables,
    differences_table,
    errors_table,
    intervals_line,
    is_hub_id,
    paragraphs,
    precision,
    results_table,
    training_lines,
)

# task -> (pipeline tag, example text for the commands)
TASKS = {
    "qa": ("text-generation", "What are the symptoms of iron deficiency?"),
    "classification": ("text-classification", "Chest pain on exertion."),
    "hierarchical": ("text-classification", "Fever and a stiff neck."),
    "summarization": ("summarization", "Doctor: What is wrong? Patient: I have a cough."),
}  # fmt: skip

MOST_CLASSES = 60  # that a card names
NOT_A_DEVICE = """**Not a medical device.** This model has not been validated for clinical use. Do not use it to \
diagnose, treat, dose, triage or advise patients. Its output can be wrong and still sound right."""
OUT_OF_SCOPE = f"""{NOT_A_DEVICE}

Out of scope: any decision about a person that a qualified professional does not check against the source; \
emergencies; advice to patients; unsupervised use in clinical records; languages, specialties and kinds of text that \
are not in the training data; identifying people."""
LIMITATIONS = """The model inherits the errors and biases of its base model and its training data. It was evaluated \
only on a held-out part of the same source, so expect lower scores on other sources. It can state what no source \
says, omit what matters, and miss a negation, a unit or a dose. It probably performs worst on rare conditions and \
under-represented groups. The weights contain no safety filter."""

MORE_LIMITATIONS = {
    "summarization": """ROUGE does not notice an invented dose, a flipped negation or a finding attributed to the \
wrong person. Hallucinations and omissions are found by rules and word lists, which miss terms that are not in the \
lists and correct facts that are combined wrongly. Do not file a summary that nobody has compared with its source.""",
}


def write_card(output_dir: Path, repo_id: str | None) -> Path:
    """Write the model card, `README.md`, from huggingface_hub's template, and return its path.

    Sections of the template that would be empty are left out.

    Args:
        output_dir: folder with `task.json`, `all_results.json` and `recipe.yaml`.
        repo_id: Hub id of the model in the example commands; None puts the name of the folder there.
    """
    output_dir = Path(output_dir)
    results, local_task = read_json(output_dir / "all_results.json"), read_json(output_dir / "task.json")
    task = without_paths(local_task)
    name = task.get("task", "qa")
    (_, example), does = TASKS[name], DOES[name]
    is_adapter = (output_dir / "adapter_config.json").exists()
    kind = "A LoRA adapter" if is_adapter else "A model"
    model = repo_id or (output_dir.name if output_dir.is_absolute() else output_dir.as_posix())
    base = _hub_base(local_task)
    base_text = f"[{base}](https://huggingface.co/{base})" if base else f"`{task.get('base_model', 'unknown')}`"
    local_base = _local_base(task) if is_adapter and not base else ""
    data = task.get("data", {})
    revision = f" at revision `{data['dataset_revision']}`" if data.get("dataset_revision") else ""
    recipe = yaml.safe_dump(without_paths(read_yaml(output_dir / "recipe.yaml")), sort_keys=False, allow_unicode=True)
    patterns = errors_table(results, {})
    card = ModelCard.from_template(
        _metadata(results, task, local_task, model, is_adapter),
        model_id=model.split("/")[-1],
        model_summary=paragraphs(
            f"{opening(results, task, is_adapter)} {summary(results)}",
            NOT_A_DEVICE,
            leaks_line(results),
            headline_table(results),
        ),
        model_description=f"{kind} that {does}, fine-tuned from {base_text}.{local_base}{_classes(task)}",
        model_type=f"{name}, quantization: {precision(task)}",
        language=", ".join(results.get("language", [])) or None,
        license=_license_line(task),
        base_model=base_text,
        direct_use=f"Research and teaching: a model that {does}, on texts similar to its training data, with a person "
        "who checks every output.",
        downstream_use="A starting point for further fine-tuning, or a baseline for comparison. Evaluate it on your "
        "own data first.",
        out_of_scope_use=OUT_OF_SCOPE,
        bias_risks_limitations=paragraphs(
            f"{LIMITATIONS} {_searched(results)}",
            MORE_LIMITATIONS.get(name),
            patterns and f"Errors on the test split:\n\n{patterns}",
        ),
        bias_recommendations="Read the intervals, not only the values. Before any use, test the model on your own "
        "texts and by subgroup. Have a qualified person check every output before it reaches a patient.",
        get_started_code=_examples_note(task)
        + "From a clone of the training code, on the command line or in Python:\n\n```bash\n"
        f'python predict.py --model {shlex.quote(model)} --text "{example}"\n```\n\n```python\n'
        f'from utils.inference import Predictor\npredictor = Predictor.from_pretrained("{model}")\n'
        f'print(predictor(["{example}"]))\n```\n\n'
        + plain_transformers(task, model, str(base or task.get("base_model")), example, is_adapter),
        training_data=f"`{_train_name(data)}`{revision}\n\n{data_tables(results, digits=64, zeros=False)}",
        preprocessing="Cleaned, deduplicated and split as the recipe below specifies. The tables above count the rows "
        "of each step.",
        training_regime=f"Quantization: {precision(task)}\n\nThe resolved recipe:\n\n```yaml\n{recipe}```",
        speeds_sizes_times=training_lines(task, results),
        testing_data="The held-out test split above.",
        testing_metrics=paragraphs(intervals_line(results), notes_line(results)),
        results=paragraphs(results_table(results), baselines_line(results), differences_table(results)),
        results_summary=summary(results),
        hours_used=f"{results['train_runtime'] / 3600:.2f}" if results.get("train_runtime") else None,
        hardware_type=task.get("device"),
    )
    card.text = _without_empty_sections(card.text)
    card.save(output_dir / "README.md")
    return output_dir / "README.md"


def _local_base(task: dict[str, Any]) -> str:
    """Say how a reader loads an adapter whose base model has no name on the Hub."""
    sha256 = task.get("base_model_sha256")
    checked = f" (sha256 of its input embeddings: `{sha256}`; another model is refused)" if sha256 else ""
    return f" That was a local folder{checked}: give your copy of it as `--base_model`."


def _classes(task: dict[str, Any]) -> str:
    """Name the classes; of a tree, those of the first level."""
    names = task["tree"]["levels"][0] if "tree" in task else task.get("labels") or []
    shown = "; ".join(map(str, names[:MOST_CLASSES]))
    more = f"; and {len(names) - MOST_CLASSES:,} more" if len(names) > MOST_CLASSES else ""
    return f"\n\nIts classes{' of the first level' if 'tree' in task else ''}: {shown}{more}." if names else ""


def _searched(results: dict[str, Any]) -> str:
    """Say whether the training rows were searched for what identifies people."""
    found = results.get("data_train_identifiers")
    if found is None:
        return "The training data was not checked for personal data."
    return (
        f"A search by rules counted {found:,} identifiers of people in the training data. It finds some of them, not "
        "all."
    )


def _examples_note(task: dict[str, Any]) -> str:
    number = task.get("retrieve_examples")
    if not number:
        return ""
    return (
        f"Each prompt had the {number} most similar training questions with their answers. They are private, not part "
        "of this repository: give questions and answers of your own as `--examples_file` (jsonl with `question` and "
        "`answer`), or expect worse answers than measured.\n\n"
    )


def _metadata(
    results: dict[str, Any], task: dict[str, Any], local_task: dict[str, Any], model: str, is_adapter: bool
) -> ModelCardData:
    """Return the YAML header of the card: task, base model, data set and the test metrics with their intervals.

    Args:
        results: the content of `all_results.json`.
        task: the content of `task.json` without paths.
        local_task: the same with paths, which tell Hub ids from local folders.
        model: name of the model.
        is_adapter: whether the run saved an adapter.
    """
    name, data, base = task.get("task", "qa"), task.get("data", {}), _hub_base(local_task)
    pipeline, *_ = TASKS[name]
    beyond = beyond_weights(task)
    dataset = local_task.get("data", {}).get("dataset_name")
    test_name = data.get("dataset_name") or last_part(data.get("test_file") or _train_name(data))
    qlora = is_adapter and (task.get("quantization") or {}).get("load_in_4bit")
    metrics = [m for m in metric_names(results, ["test_"]) if m in METRICS and m not in TABLE_ONLY]
    eval_results = [
        EvalResult(
            task_type=pipeline,
            task_name=f"medical {name}",
            dataset_type=test_name,
            dataset_name=test_name,
            dataset_config=data.get("dataset_config_name"),
            dataset_split="test",
            dataset_revision=data.get("dataset_revision"),
            dataset_args={key: results[key] for key in ("test_rows", "test_sha256") if key in results} or None,
            metric_type=_hub_metric(metric),
            metric_name=_metric_name(metric, results),
            metric_value=results[f"test_{metric}"],
            metric_args={"ci95": results[f"test_{metric}_ci95"]} if results.get(f"test_{metric}_ci95") else None,
        )
        for metric in metrics
    ]
    return ModelCardData(
        language=results.get("language") or None,  # as identified in the texts: never claimed unseen
        library_name="peft" if is_adapter else "pytorch" if beyond else "transformers",
        base_model=base,
        base_model_relation=("adapter" if is_adapter else "finetune") if base else None,
        datasets=[dataset] if is_hub_id(dataset) else None,
        # With the library `transformers` the Hub would offer the pipeline of the architecture even without a tag
        pipeline_tag=None if beyond else pipeline,
        inference=False if beyond else None,
        license=_license(task),
        tags=["medical", name, *(["lora"] if is_adapter else []), *(["qlora"] if qlora else [])],
        metrics=sorted(set(map(_hub_metric, metrics))) or None,
        model_name=model.split("/")[-1],
        eval_results=eval_results or None,
    )


def _license(task: dict[str, Any]) -> str | None:
    """Return the licence that the recipe gives, or the one that both base model and data state; None is not known."""
    stated = task.get("licenses", {})
    agreed = stated.get("base_model") if stated.get("base_model") == stated.get("data") else None
    return task.get("data", {}).get("license") or agreed


def _license_line(task: dict[str, Any]) -> str:
    """Return the licences of model, base model and data in words."""
    found = {"base model": "base_model", "data": "data"}
    named = [f"{what}: {task.get('licenses', {}).get(key) or 'not stated'}" for what, key in found.items()]
    return f"{_license(task) or 'not stated'} ({', '.join(named)})"


def _hub_base(local_task: dict[str, Any]) -> str | None:
    """Return the base model if it is a Hub id; the Hub refuses a path."""
    base = local_task.get("base_model")
    return base if is_hub_id(base) else None


def _train_name(data: dict[str, Any]) -> str:
    """Return the name of the training data: a Hub id or a file."""
    return data.get("dataset_name") or last_part(data.get("train_file") or "local files")


def _metric_name(metric: str, results: dict[str, Any]) -> str:
    """Return the display name of a metric; a BERTScore is meaningless without its model."""
    name = label(metric)
    return f"{name} ({results['bertscore_model']})" if metric.startswith("bertscore") else name


def _hub_metric(metric: str) -> str:
    """Return the Hub's name for the family of a metric."""
    family = re.search("rouge|bertscore|f1|accuracy", metric)
    return family.group() if family else metric


def _without_empty_sections(text: str) -> str:
    """Remove the template's comments, its unfilled lines and the headings that have no text below them."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).replace(" [optional]", "")
    lines = [
        line
        for line in text.split("\n")
        if "[More Information Needed]" not in line
        and not re.fullmatch(r"\*\*(BibTeX|APA):\*\*|Carbon emissions.*", line)
    ]
    kept: list[str] = []
    level_below = 0  # level of the next heading; 0 if text comes first
    in_code = False
    for line in reversed(lines):
        in_code ^= line.startswith("```")
        heading = None if in_code else re.match(r"#+(?= )", line)
        if not heading:
            level_below = 0 if line.strip() else level_below
        elif 0 < level_below <= len(heading.group()) or not any(kept_line.strip() for kept_line in kept):
            continue
        else:
            level_below = len(heading.group())
        kept.append(line)
    parts = re.split(r"(^```.*?^```)", "\n".join(reversed(kept)), flags=re.DOTALL | re.MULTILINE)
    parts[::2] = [re.sub(r"\n{3,}", "\n\n", text) for text in parts[::2]]  # not in code, such as the recipe
    return "".join(parts).rstrip() + "\n"
