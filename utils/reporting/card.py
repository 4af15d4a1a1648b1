"""The model card of a run, made from the files in `output_dir` alone. No path of this machine, no row of data."""

import re
import shlex
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from utils.json_files import last_part, read_json, read_yaml, without_paths
from utils.reporting.metric_names import METRICS, TABLE_ONLY, baselines_line, metric_names, notes_line
from utils.reporting.tables import (
    data_tables,
    differences_table,
    errors_table,
    is_hub_id,
    paragraphs,
    precision,
    results_table,
    summary,
    training_lines,
)

# task -> (pipeline tag, what it does, a text for the commands)
TASKS = {
    "qa": ("text-generation", "answers medical questions", "What are the symptoms of iron deficiency?"),
    "classification": ("text-classification", "sorts medical texts into classes", "Pain in the chest on exertion."),
    "hierarchical": ("text-classification", "sorts medical texts into a tree of classes", "Fever and a stiff neck."),
    "summarization": ("summarization", "summarizes medical texts", "Doctor: What is wrong? Patient: A cough."),
}  # fmt: skip

NOT_A_DEVICE = """**Not a medical device.** Nobody has validated this model for clinical use. Do not use it to \
diagnose, to treat, to dose, to triage or to advise a patient. Its output can be wrong in ways that read as right."""
OUT_OF_SCOPE = f"""{NOT_A_DEVICE}

Out of scope are: any decision about a person without a qualified professional who checks it against the source; \
emergencies; advice to patients; unattended use in a clinical record; languages, specialties and kinds of text other \
than those of the training data; identifying a person."""
LIMITATIONS = """The model inherits the errors and biases of its base model and of its training data, and was \
measured on a held-out part of the same source only: expect worse on other sources. It can state what no source says, \
leave out what matters, and miss a negation, a unit or a dose. Rare conditions and under-represented groups are \
likely served worst. No safety filter is part of the weights. The training data was not checked for personal data."""

MORE_LIMITATIONS = {
    "summarization": """ROUGE does not see an invented dose, a flipped negation or a finding given to the wrong \
person. What is counted here as invented or left out was found by rules and word lists: they miss what is in no list, \
and facts that are there but put together wrongly. Do not file a summary that nobody compared with its source.""",
}


def write_card(output_dir: Path, repo_id: str | None) -> Path:
    """Write the model card `README.md`, on huggingface_hub's template, without the sections it has nothing for.

    Args:
        output_dir: folder with `task.json`, `all_results.json` and `recipe.yaml`.
        repo_id: the model's name on the Hub, for the commands that use it; without one they name the folder.

    Returns:
        the path of the card.
    """
    output_dir = Path(output_dir)
    results, local_task = read_json(output_dir / "all_results.json"), read_json(output_dir / "task.json")
    task = without_paths(local_task)
    recipe = without_paths(read_yaml(output_dir / "recipe.yaml"))
    name = task.get("task", "qa")
    pipeline, does, example = TASKS[name]
    base = task.get("base_model") if is_hub_id(local_task.get("base_model")) else None  # the Hub refuses a path
    is_adapter = (output_dir / "adapter_config.json").exists()
    model = repo_id or (output_dir.name if output_dir.is_absolute() else output_dir.as_posix())
    data, dataset = task.get("data", {}), local_task.get("data", {}).get("dataset_name")
    data_name = data.get("dataset_name") or last_part(data.get("train_file") or "local files")
    test_name = data.get("dataset_name") or last_part(data.get("test_file") or data_name)
    revision = f" at revision `{data['dataset_revision']}`" if data.get("dataset_revision") else ""
    evaluated = [m for m in metric_names(results, ["test_"]) if m in METRICS and m not in TABLE_ONLY]
    qlora = is_adapter and (task.get("quantization") or {}).get("load_in_4bit")

    card_data = ModelCardData(
        language="en",
        library_name="peft" if is_adapter else "transformers",
        base_model=base,
        base_model_relation=("adapter" if is_adapter else "finetune") if base else None,
        datasets=[dataset] if is_hub_id(dataset) else None,
        pipeline_tag=pipeline,
        tags=["medical", name, *(["lora"] if is_adapter else []), *(["qlora"] if qlora else [])],
        metrics=sorted(set(map(_hub_metric, evaluated))) or None,
        model_name=model.split("/")[-1],
        eval_results=[
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
            for metric in evaluated
        ]
        or None,
    )
    kind = "A LoRA adapter" if is_adapter else "A model"
    base_text = f"[{base}](https://huggingface.co/{base})" if base else f"`{task.get('base_model', 'unknown')}`"
    patterns = errors_table(results, {})
    recipe_text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    card = ModelCard.from_template(
        card_data,
        model_id=model.split("/")[-1],
        model_summary=f"{kind} that {does}.\n\n{NOT_A_DEVICE}",
        model_description=f"{kind} that {does}, fine-tuned from {base_text}. {summary(results)}",
        model_type=f"{name}, quantization: {precision(task)}",
        language="English",
        base_model=base_text,
        direct_use=f"Research and teaching: a model that {does}, in text like its training data, with a person who "
        "checks every output.",
        downstream_use="A starting point for further fine-tuning, or a baseline to compare against, after an "
        "evaluation on your own data.",
        out_of_scope_use=OUT_OF_SCOPE,
        bias_risks_limitations=paragraphs(
            LIMITATIONS, MORE_LIMITATIONS.get(name), patterns and f"Errors on the test split:\n\n{patterns}"
        ),
        bias_recommendations="Read the intervals, not only the values. Test on your own texts, by subgroup, before "
        "any use, and keep a qualified person between the output and a patient.",
        get_started_code=f"From a clone of the training code, on the command line or in Python:\n\n```bash\n"
        f'python predict.py --model {shlex.quote(model)} --text "{example}"\n```\n\n```python\n'
        f'from utils.inference import Predictor\npredictor = Predictor.from_pretrained("{model}")\n'
        f'print(predictor(["{example}"]))\n```',
        training_data=f"`{data_name}`{revision}\n\n{data_tables(results, digits=64, zeros=False)}",
        preprocessing="Cleaned, de-duplicated and split as the recipe below says; the tables above count each step.",
        training_regime=f"Quantization: {precision(task)}\n\nThe resolved recipe:\n\n```yaml\n{recipe_text}```",
        speeds_sizes_times=training_lines(task, results),
        testing_data="The held-out test split above.",
        testing_metrics=paragraphs("95 % bootstrap intervals in brackets.", notes_line(results)),
        results=paragraphs(results_table(results), baselines_line(results), differences_table(results)),
        results_summary=summary(results),
        hours_used=f"{results['train_runtime'] / 3600:.2f}" if results.get("train_runtime") else None,
        hardware_type=task.get("device"),
    )
    card.text = _without_empty_sections(card.text)
    card.save(output_dir / "README.md")
    return output_dir / "README.md"


def _metric_name(metric: str, results: dict[str, Any]) -> str:
    """What people call a metric; a BERTScore means nothing without its model."""
    name = METRICS[metric][0]
    return f"{name} ({results['bertscore_model']})" if metric.startswith("bertscore") else name


def _hub_metric(metric: str) -> str:
    """What the Hub calls the family of a metric."""
    family = re.search("rouge|bertscore|f1|accuracy", metric)
    return family.group() if family else metric


def _without_empty_sections(text: str) -> str:
    """Drop the template's comments, its unfilled lines, and each heading that is left with nothing below it."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).replace(" [optional]", "")
    lines = [
        line
        for line in text.split("\n")
        if "[More Information Needed]" not in line
        and not re.fullmatch(r"\*\*(BibTeX|APA):\*\*|Carbon emissions.*", line)
    ]
    kept: list[str] = []
    level_below = 0  # level of the heading that follows, 0 where text follows
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
    return re.sub(r"\n{3,}", "\n\n", "\n".join(reversed(kept))).rstrip() + "\n"
