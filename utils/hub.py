"""The model card, and the push of an allow-list of files to the Hugging Face Hub in one commit.

Reads only the files in `output_dir`. What is published names no path of this machine and holds no row of data.
"""

import json
import re
import shlex
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import CommitOperationAdd, EvalResult, HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # base of what the HTTP client raises when the Hub cannot be reached
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from utils.arguments import UserError
from utils.report import (
    METRICS,
    TABLE_ONLY,
    baselines_line,
    data_tables,
    differences_table,
    errors_table,
    is_hub_id,
    metric_names,
    paragraphs,
    precision,
    read_json,
    results_table,
    summary,
    training_lines,
)

PUBLISHED = (
    "adapter_model.safetensors", "adapter_config.json",
    "model.safetensors", "model-?????-of-?????.safetensors", "model.safetensors.index.json",
    "config.json", "generation_config.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "task.json", "recipe.yaml", "all_results.json", "report.md", "README.md",
)  # fmt: skip
WITH_PATHS = ("adapter_config.json", "config.json", "generation_config.json", "tokenizer_config.json", "task.json",
              "recipe.yaml", "all_results.json")  # fmt: skip

# task -> (pipeline tag, what it does, a text for the commands)
TASKS = {
    "qa": ("text-generation", "answers medical questions", "What are the symptoms of iron deficiency?"),
    "classification": ("text-classification", "sorts medical texts into classes", "Pain in the chest on exertion."),
    "hierarchical": ("text-classification", "sorts medical texts into a tree of classes", "Fever and a stiff neck."),
    "summarization": ("summarization", "summarizes medical dialogues", "Doctor: What is wrong? Patient: A cough."),
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

ROOT = r"(?:file:/+|~?/|\\\\|[A-Za-z]:[\\/]+)(?=[^\s/\\])"  # how an absolute path begins
PATH = re.compile(rf"""(?<='){ROOT}[^']*(?=')|(?<="){ROOT}[^"]*(?=")|(?<![^\s=:,(\[]){ROOT}[^\s"',)\]]*""")
TEXT_KEYS = re.compile(r"(?=.*(prompt|stop|label|template|tree|_token$))(?!.*_(file|path|dir)$)")


def without_paths(value: Any, key: str = "") -> Any:
    """A copy with each absolute path cut to its last part, and Hub tokens masked, for what others will read. Texts
    that the model sees (prompts, labels, stop sequences; told by their key) are left alone: serving needs them."""
    if TEXT_KEYS.match(key):
        return value
    if isinstance(value, dict):
        return {k: without_paths(v, str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [without_paths(v, key) for v in value]
    if not isinstance(value, str):
        return value
    whole = key != "command" and re.fullmatch(ROOT + r".*", value)  # a path that is the whole value may hold spaces
    value = _last_part(value) if whole else PATH.sub(lambda match: _last_part(match.group()), value)
    return re.sub(r"\bhf_\w{20,}", "hf_***", value)


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
    recipe = without_paths(_read_yaml(output_dir / "recipe.yaml"))
    name = task.get("task", "qa")
    pipeline, does, example = TASKS[name]
    base = task.get("base_model") if is_hub_id(local_task.get("base_model")) else None  # the Hub refuses a path
    is_adapter = (output_dir / "adapter_config.json").exists()
    model = repo_id or (output_dir.name if output_dir.is_absolute() else output_dir.as_posix())
    data, dataset = task.get("data", {}), local_task.get("data", {}).get("dataset_name")
    data_name = data.get("dataset_name") or _last_part(data.get("train_file") or "local files")
    test_name = data.get("dataset_name") or _last_part(data.get("test_file") or data_name)
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
                metric_name=METRICS[metric][0],
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
        bias_risks_limitations=LIMITATIONS + (f"\n\nErrors on the test split:\n\n{patterns}" if patterns else ""),
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
        testing_metrics="95 % bootstrap intervals in brackets.",
        results=paragraphs(results_table(results), baselines_line(results), differences_table(results)),
        results_summary=summary(results),
        hours_used=f"{results['train_runtime'] / 3600:.2f}" if results.get("train_runtime") else None,
        hardware_type=task.get("device"),
    )
    card.text = _without_empty_sections(card.text)
    card.save(output_dir / "README.md")
    return output_dir / "README.md"


def check_push_access(repo_id: str, private: bool | None = None) -> str:
    """Make sure, before hours of training, that the push at the end may succeed.

    Args:
        repo_id: `name` or `owner/name`.
        private: as for `push`.

    Returns:
        the full `owner/name`.

    Raises:
        UserError: no token, an invalid or read-only one, no right to that owner, the Hub cannot be reached, or the
            repository is public already and the run did not ask for that.
    """
    api, mend = HfApi(), "or set `push_to_hub: false`"
    try:
        who = api.whoami()
        owner = repo_id.split("/")[0] if "/" in repo_id else who["name"]
        full_id = f"{owner}/{repo_id.split('/')[-1]}" if repo_id.count("/") < 2 else repo_id
        reason = _no_right(who, owner, full_id)
        if reason:
            raise UserError(
                f"`hub_model_id` {full_id}: {reason}: give HF_TOKEN or `hf auth login` a token of role write for "
                f"{owner}, {mend}."
            )
        _refuse_public(api, full_id, private)
    except (HTTPError, OfflineModeIsEnabled, LocalTokenNotFoundError, HFValidationError) as error:
        raise UserError(f"`hub_model_id` {repo_id}: {_reason(error)}, {mend}.") from error
    return full_id


def push(output_dir: Path, repo_id: str, private: bool | None, revision: str | None = None) -> str:
    """Upload the allow-list `PUBLISHED` and the plots in one commit.

    Args:
        output_dir: folder of a finished run.
        repo_id: `name` or `owner/name`.
        private: a new repository is private unless this is False.
        revision: branch to commit to, made if it does not exist; the main branch by default.

    Returns:
        the URL of the commit, once everything is uploaded.

    Raises:
        UserError: the Hub refused or could not be reached. Nothing is lost: the files stay in `output_dir`.
    """
    output_dir, api = Path(output_dir), HfApi()
    files = published_files(output_dir)
    if not any(name.endswith(".safetensors") for name in files):
        raise UserError(f"`output_dir` {output_dir} holds no weights to push: let a run finish there first.")
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    try:
        if "/" not in repo_id:
            repo_id = f"{api.whoami()['name']}/{repo_id}"
        api.create_repo(repo_id, private=private is not False, exist_ok=True)
        _refuse_public(api, repo_id, private)
        if revision:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        # not `upload_folder`: with hf_xet it makes several commits
        commit = api.create_commit(repo_id, operations, commit_message="Upload fine-tuned model", revision=revision)
    except (OSError, HTTPError, HFValidationError, RuntimeError, UserError) as error:  # RuntimeError: a failed upload
        again = f"python -c \"from utils.hub import push; print(push('{output_dir}', '{repo_id}', {private}))\""
        raise UserError(
            f"nothing is lost, the files are in {output_dir}, but the push to {repo_id} failed: {_reason(error)}; "
            f"then push again: {again}"
        ) from error
    return commit.commit_url


def published_files(output_dir: Path) -> dict[str, Path | bytes]:
    """Path in the repository -> the file to upload, or its bytes where a path of this machine had to be taken out."""
    files: dict[str, Path | bytes] = {
        path.name: path
        for path in sorted(output_dir.iterdir())
        if path.is_file() and any(fnmatchcase(path.name, pattern) for pattern in PUBLISHED)
    }
    files |= {f"plots/{path.name}": path for path in sorted(output_dir.glob("plots/*.png"))}
    for name in files.keys() & set(WITH_PATHS):
        value = _read_yaml(files[name]) if name.endswith(".yaml") else read_json(files[name])
        if (clean := without_paths(value)) != value:
            text = yaml.safe_dump(clean, sort_keys=False, allow_unicode=True) if name.endswith(".yaml") else None
            files[name] = (text or json.dumps(clean, indent=2, ensure_ascii=False) + "\n").encode()
    task = read_json(output_dir / "task.json")
    if "report.md" in files:  # made for reading here: its command and base model are as they were given
        report = text = files["report.md"].read_text(encoding="utf-8")
        for key in ("command", "base_model"):
            text = text.replace(task[key], without_paths(task[key], key)) if task.get(key) else text
        files["report.md"] = text.encode() if text != report else files["report.md"]
    return files


def _read_yaml(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.is_file() else {}


def _last_part(path: str) -> str:
    return re.split(r"[/\\]+", path.rstrip("/\\"))[-1]


def _hub_metric(metric: str) -> str:
    """What the Hub calls the family of a metric."""
    family = re.search("rouge|f1|accuracy", metric)
    return family.group() if family else metric


def _no_right(who: dict[str, Any], owner: str, repo_id: str) -> str | None:
    """Why the token may not write there; None if it may, or if the Hub does not say."""
    token = who.get("auth", {}).get("accessToken", {})
    organizations = {org["name"]: org.get("roleInOrg") for org in who.get("orgs", [])}
    if owner != who["name"] and owner not in organizations:
        return f"the token is {who['name']}'s, who does not belong to {owner}"
    if token.get("role") == "read" or organizations.get(owner) == "read":
        return "the token may only read"
    if token.get("role") == "fineGrained":
        scopes = token.get("fineGrained", {}).get("scoped", [])
        allowed = [s for s in scopes if "repo.write" in s["permissions"] and s["entity"]["name"] in (owner, repo_id)]
        return None if allowed else "the fine-grained token has no write permission there"
    return None


def _refuse_public(api: HfApi, repo_id: str, private: bool | None) -> None:
    try:
        is_public = not api.model_info(repo_id).private
    except RepositoryNotFoundError:
        return
    if is_public and private is not False:
        raise UserError(
            f"`hub_model_id` {repo_id} exists and is public: set `hub_private_repo: false` to publish there, or "
            "choose another name"
        )


def _reason(error: Exception) -> str:
    """What went wrong and what to do about it, without the traceback of the HTTP client."""
    if isinstance(error, UserError | HFValidationError):
        return str(error).splitlines()[0].rstrip(".")
    if isinstance(error, LocalTokenNotFoundError):
        return "there is no Hugging Face token: set HF_TOKEN or run `hf auth login` with a token of role write"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status == 401:
        return "the Hub does not accept the token: set HF_TOKEN or run `hf auth login` with a valid one of role write"
    if status in (403, 404):
        return f"the Hub refused ({status}): set HF_TOKEN to a token with the role write for this repository"
    if status is None and isinstance(error, HTTPError | OfflineModeIsEnabled):
        return "the Hub cannot be reached: check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


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
