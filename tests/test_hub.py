import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load
from safetensors.numpy import save_file

from tests.forks import Done, start_forks
from tests.hub_server import Hub, serve_hub
from utils.arguments import UserError
from utils.hub import _no_right
from utils.json_files import write_json
from utils.push import push, without_paths
from utils.reporting.card import write_card
from utils.reporting.report import write_report

ROOT = Path(__file__).parents[1]
SECRET_TEXT = "the patient of row seven"
TRAPS = (
    "_private/predictions_test.jsonl", "_private/vocab.txt", "_private/plots/a.png", "training_args.bin", ".env",
    "checkpoint-5/adapter_model.safetensors", "checkpoint-5/README.md", "runs/events.out.tfevents.1", "notes.txt",
    "plots/rows.csv", "plots/deep/b.png", "trainer_state.json", "optimizer.pt",
)  # fmt: skip
ALLOWED = {
    "adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "tokenizer_config.json", "task.json",
    "recipe.yaml", "all_results.json", "report.md", "README.md", "plots/baseline_comparison.png",
    "baseline_comparison.csv",
}  # fmt: skip
RESULTS = {
    "test_rougeL": 0.34125, "test_rougeL_ci95": [0.33, 0.352], "test_bleu": 0.0724, "base_test_rougeL": 0.1123,
    "train_rows": 90, "train_sha256": "ab" * 32, "test_rows": 10, "test_sha256": "cd" * 32, "data_dropped_missing": 3,
    "train_runtime": 61.5, "errors_verbose": 2,
}  # fmt: skip


QUANTIZATION = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"}


@pytest.fixture(scope="module")
def clients(tmp_path_factory):
    """A Hub, and what starts real clients of it, which read its address when they are imported."""
    folder = tmp_path_factory.mktemp("clients")
    with serve_hub() as server, start_forks(folder, server.env(folder / "home"), modules=["utils.push"]) as found:
        yield server, found


@pytest.fixture
def hub(clients) -> Hub:
    """An empty Hub."""
    server, _ = clients
    for content in (server.repos, server.commits, server.received):
        content.clear()
    return server


@pytest.fixture
def run_dir(tmp_path):
    """A finished run whose inputs were given as absolute paths, with every kind of file that must stay at home."""
    folder = tmp_path / "my run" / "out"
    folder.mkdir(parents=True)
    home = str(tmp_path / "my run")
    save_file({"lora_A.weight": np.ones((2, 2), "float32")}, folder / "adapter_model.safetensors")
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": f"{home}/base", "r": 8})
    write_json(folder / "tokenizer.json", {"model": {"vocab": {"/usr": 0}}})
    write_json(folder / "tokenizer_config.json", {"eos_token": "/s"})
    task = {"task": "qa", "base_model": f"{home}/base", "system_prompt": "/no_think", "quantization": QUANTIZATION,
            "data": {"train_file": f"{home}/x.csv"}, "command": f"python run_qa_sft.py '{home}/r.yaml' --seed 1",
            "versions": {"torch": "2.13.0"}}  # fmt: skip
    write_json(folder / "task.json", task)
    write_json(folder / "all_results.json", RESULTS)
    recipe = {"model_name_or_path": f"{home}/base", "train_file": f"{home}/x.csv", "output_dir": str(folder)}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    write_report(folder, {})
    for name in TRAPS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(SECRET_TEXT)
    return folder


@pytest.fixture
def python(clients) -> Callable[..., Done]:
    """Return a function that runs code with the real client; it exits with 2 and one line for a UserError."""

    def run(code: str, token: str | None = "write-token") -> Done:
        code = f"from utils.arguments import user_errors\nwith user_errors():\n    {code}"
        return clients[1].run(code, [], env={"HF_TOKEN": token or ""})

    return run


def push_code(run_dir: Path, private: bool | None = None, repo_id: str = "qa") -> str:
    return f"from utils.push import push; print(push({str(run_dir)!r}, {repo_id!r}, {private}))"


def test_push_is_private_one_commit_of_the_allow_list_and_comes_back_equal(hub, python, run_dir, tmp_path):
    write_card(run_dir, "tester/qa")
    done = python(push_code(run_dir))
    assert done.code == 0, done.stderr
    repo = hub.repos["tester/qa"]
    assert done.stdout.strip() == f"{hub.url}/tester/qa/commit/{repo.branches['main'][-1]}"
    assert repo.private and hub.commits == ["tester/qa"]
    assert set(hub.received) == ALLOWED == set(repo.files) - {".gitattributes"}
    pull = "import huggingface_hub as h; print(h.snapshot_download('tester/qa', local_dir={!r}))"
    done = python(pull.format(str(tmp_path / "pulled")))
    assert done.code == 0, done.stderr
    for name in ALLOWED:
        assert (tmp_path / "pulled" / name).read_bytes() == repo.files[name]
    for name in (
        "adapter_model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
        "plots/baseline_comparison.png",
    ):
        assert repo.files[name] == (run_dir / name).read_bytes()


def test_nothing_pushed_names_this_machine_or_holds_data_or_tokens(hub, python, run_dir, tmp_path):
    write_card(run_dir, "tester/qa")
    assert python(push_code(run_dir)).code == 0
    text = b"\n".join(hub.repos["tester/qa"].files.values()).decode("utf-8", "replace")
    for secret in (str(tmp_path), "my run", str(Path.home()) + "/", SECRET_TEXT, "write-token"):
        assert secret not in text
    task = json.loads(hub.repos["tester/qa"].files["task.json"])
    assert task["base_model"] == "base" and task["system_prompt"] == "/no_think"  # the prompt is not a path
    assert task["command"] == "python run_qa_sft.py 'r.yaml' --seed 1"


def test_second_push_of_the_same_files_makes_no_commit_and_a_branch_is_made(hub, python, run_dir, tmp_path):
    branch = push_code(run_dir).replace("None", "None, 'v2'")
    assert python(f"{push_code(run_dir)}; {push_code(run_dir)}; {branch}").code == 0
    assert len(hub.repos["tester/qa"].branches["main"]) == 2 and "v2" in hub.repos["tester/qa"].branches
    assert len(hub.commits) == 1


@pytest.mark.parametrize("token", ["read-token", "wrong-token", None])
def test_push_without_the_right_says_what_to_do_and_changes_nothing(hub, python, run_dir, tmp_path, token):
    hub.add_repo("tester/qa", private=True)
    check = "from utils.hub import check_push_access; check_push_access('tester/qa')"
    for code in (check, push_code(run_dir, repo_id="tester/qa")):
        done = python(code, token)
        assert done.code == 2 and done.stderr.count("error:") == 1, done.stderr
        assert "tester/qa" in done.stderr and "HF_TOKEN" in done.stderr
    assert str(run_dir) in done.stderr and "nothing is lost" in done.stderr
    assert hub.commits == [] and (run_dir / "adapter_model.safetensors").exists()


def test_a_public_repository_is_refused_unless_asked_for(hub, python, run_dir, tmp_path):
    hub.add_repo("tester/qa", private=False)
    done = python(push_code(run_dir))
    assert done.code == 2 and "hub_private_repo: false" in done.stderr and hub.commits == []
    assert python(push_code(run_dir, private=False)).code == 0


def test_access_gives_the_full_name_and_an_unreachable_hub_is_one_line(hub, python, tmp_path):
    check = "from utils.hub import check_push_access; print(check_push_access('qa'))"
    assert python(check).stdout.strip() == "tester/qa"
    nowhere = "import huggingface_hub.constants as c; c.ENDPOINT = 'http://127.0.0.1:9'"  # the discard port
    done = python(f"{nowhere}; {check}")
    assert done.code == 2 and "cannot be reached" in done.stderr and "Traceback" not in done.stderr


def test_fine_grained_and_organization_rights_are_read():
    scope = {"entity": {"type": "user", "name": "me"}, "permissions": ["repo.write"]}
    token = {"role": "fineGrained", "fineGrained": {"scoped": [scope]}}
    who = {"name": "me", "orgs": [{"name": "lab", "roleInOrg": "read"}], "auth": {"accessToken": token}}
    assert _no_right(who, "me", "me/qa") is None
    assert "read-only" in _no_right(who, "lab", "lab/qa")
    assert "not a member of other" in _no_right(who, "other", "other/qa")
    scope["permissions"] = ["repo.content.read"]
    assert "no write permission" in _no_right(who, "me", "me/qa")


def test_card_holds_what_a_reader_needs_and_round_trips(run_dir):
    card = ModelCard.load(write_card(run_dir, "tester/qa"))
    values = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert values == {"ROUGE-L": RESULTS["test_rougeL"], "BLEU": RESULTS["test_bleu"]}
    assert card.data.eval_results[0].metric_args == {"ci95": RESULTS["test_rougeL_ci95"]}
    metadata = metadata_load(run_dir / "README.md")
    assert metadata["library_name"] == "peft" and {"medical", "lora", "qlora", "qa"} == set(metadata["tags"])
    assert "base_model" not in metadata and "datasets" not in metadata  # a local path: the Hub refuses it
    assert "a local folder: give your copy of it as `--base_model`" in card.text
    assert "Not a medical device" in "\n".join(card.text.strip().split("\n")[:8])
    assert "quantization: 4-bit nf4, computing in bfloat16" in card.text
    assert "ab" * 32 in card.text and "| dropped missing | 3 |" in card.text
    assert "0.341 [0.330, 0.352] | 0.112" in card.text and "train_file: x.csv" in card.text
    assert 'predict.py --model tester/qa --text "' in card.text
    for absent in ("More Information Needed", "More information needed", "<!--", "[optional]", "/home", SECRET_TEXT):
        assert absent not in card.text
    lines = [line for line in card.text.split("\n") if line.strip()]
    depth = [len(line.split(" ")[0]) if line.startswith("#") else 0 for line in lines]
    assert all(not a or not b or b > a for a, b in zip(depth, depth[1:] + [1], strict=True))  # no empty section


def test_card_names_files_without_folders_and_runs_from_the_clone(run_dir, monkeypatch):
    monkeypatch.chdir(run_dir.parent)
    task = {"task": "qa", "data": {"train_file": "data/a.jsonl", "test_file": "data/b.jsonl"}, "device": "CPU"}
    write_json(run_dir / "task.json", task)
    results = RESULTS | {"data_dropped_short": 0, "test_length_ratio": 1.0, "train_runtime": 3600.0}
    write_json(run_dir / "all_results.json", results)
    card = ModelCard.load(write_card(Path("out"), None))
    assert {(r.dataset_name, r.dataset_type) for r in card.data.eval_results} == {("b.jsonl", "b.jsonl")}
    assert "length ratio" in card.text and len(card.data.eval_results) == 2
    assert "`a.jsonl`" in card.text and "dropped short" not in card.text and "**Hardware Type:** CPU" in card.text
    (run_dir.parent / "outputs").mkdir()
    run_dir.rename(run_dir.parent / "outputs/quickstart-qa")
    text = write_card(Path("outputs/quickstart-qa"), None).read_text()
    assert "--model outputs/quickstart-qa --text" in text and 'from_pretrained("outputs/quickstart-qa")' in text
    assert "--model quickstart-qa --text" in write_card(Path("outputs/quickstart-qa").absolute(), None).read_text()


@pytest.mark.parametrize("task", ["classification", "hierarchical", "summarization", "qa"])
def test_card_of_every_task_names_hub_sources(run_dir, task):
    data = {"dataset_name": "lab/data", "dataset_revision": "abc"}
    write_json(run_dir / "task.json", {"task": task, "base_model": "lab/base", "data": data})
    write_json(run_dir / "all_results.json", {})
    metadata = metadata_load(write_card(run_dir, None))
    assert (metadata["base_model"], metadata["base_model_relation"]) == ("lab/base", "adapter")
    assert metadata["datasets"] == ["lab/data"] and "model-index" not in metadata
    assert "local folder" not in (run_dir / "README.md").read_text()


def test_only_paths_and_tokens_are_taken_out():
    kept = {"a": "mg/dl", "b": "https://hf.co/x/y", "c": "../x.csv", "prompt": "/no_think", "labels": ["/a/b"], "n": 2}
    assert without_paths(kept) == kept
    assert without_paths({"f": "~/a b/c.csv", "chat_template_path": "/a/b.jinja", "j": '{"k": "/home/a b/c"}'}) == {
        "f": "c.csv", "chat_template_path": "b.jinja", "j": '{"k": "c"}'
    }  # fmt: skip
    assert without_paths(["C:\\Users\\me\\f.csv", "file:///home/me/g", "hf_" + "a" * 30]) == ["f.csv", "g", "hf_***"]


def test_a_folder_without_weights_is_not_pushed(tmp_path):
    with pytest.raises(UserError, match="no weights"):
        push(tmp_path, "tester/qa", None)
