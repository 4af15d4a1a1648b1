"""Cluster near-duplicates with datatrove's MinHash, on this machine or on SLURM, for more rows than one machine takes.

    pip install -r requirements/datatrove.txt -r requirements/privacy.txt  # the second has spaCy
    python recipes/datatrove/near_duplicates.py --input_folder rows --text_column text --output_folder clusters
    python recipes/datatrove/near_duplicates.py --input_folder rows --text_column text --output_folder clusters \
        --partition cpu --time 04:00:00
    cat clusters/rows/*.jsonl > rows.jsonl
    python -m utils.data --train_file rows.jsonl --text_column text --label_column label --output_dir clean \
        --group_column near_duplicates --near_duplicate_threshold 1.0

Reads the jsonl files of `input_folder`, a task for each. Writes their rows to `output_folder/rows` with one more
column, `near_duplicates`: the number of the cluster, and null for a row that is like no other. As a `group_column` it
keeps each cluster in one split. Threshold 1.0 leaves only equal texts to compare, which includes those of fewer than
five words: they have no 5-grams, so datatrove does not compare them.

datatrove joins all rows whose signatures agree in a bucket, without comparing their texts as `utils.data` does. With
20 buckets of 6 hashes that finds 99.8 % of the pairs whose 5-grams have a Jaccard similarity of 0.8, and joins 27 % of
those of 0.5 (1 - (1 - s^6)^20). Rows too many in a cluster leave the splits less freedom; a missed pair would leak. A
stopped run goes on where it was if it is started again.
"""

import argparse
import json
import struct
from pathlib import Path
from typing import Any

from datatrove.data import DocumentsPipeline
from datatrove.executor import LocalPipelineExecutor, SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.text import TextNormConfig

# By default all numbers count as equal, and with them all doses. xxhash, the default, takes no text from version 4 on
CONFIG = MinhashConfig(
    n_grams=5,
    num_buckets=20,
    hashes_per_bucket=6,
    norm_config=TextNormConfig(norm_numbers=False),
    hash_config=HashConfig(hash_fc="sha1"),
)
COLUMN = "near_duplicates"


class ClusterColumn(PipelineStep):
    """Add the number of its cluster to each row. `MinhashDedupFilter` would do so, but not for files of which it drops
    no row, though their rows may be in clusters."""

    name = "cluster column"
    type = "near-duplicates"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        path = self.folder / f"{rank:06d}.clusters"  # of the rows of this task that have a cluster: row and cluster
        clusters = dict(struct.iter_unpack("<2I", path.read_bytes())) if path.exists() else {}
        for number, document in enumerate(data):
            document.metadata["row"][COLUMN] = clusters.get(number)
            yield document


def read_row(reader: JsonlReader, row: dict[str, Any], path: str, number: int | str) -> dict[str, Any]:
    """Keep the whole row. An empty text becomes a blank: datatrove would drop the row without counting it."""
    return {"text": str(row.get(reader.text_key) or " "), "id": f"{path}/{number}", "metadata": {"row": row}}


def find_problem(args: argparse.Namespace, files: list[Path]) -> str | None:
    """Return what is wrong with input or output, if anything, and note what the output is of: datatrove would go on
    with the work of another input."""
    if not files:
        return f"`input_folder` {args.input_folder} has no *.jsonl file."
    for path in files:
        with (args.input_folder / path).open(encoding="utf-8") as stream:
            first = json.loads(next(stream, "{}"))
        if args.text_column not in first:
            return f"`text_column` {args.text_column}: the first row of {path} has no such column, but {list(first)}."
        if COLUMN in first:
            return f"{path} has a column `{COLUMN}`, which this command writes: rename it."
    sizes = {str(path): (args.input_folder / path).stat().st_size for path in files}
    known, now = args.output_folder / "work" / "input.json", {"text_column": args.text_column, "bytes": sizes}
    if known.exists() and json.loads(known.read_text()) != now:
        return f"`output_folder` {args.output_folder} is of other rows: choose another."
    known.parent.mkdir(parents=True, exist_ok=True)
    known.write_text(json.dumps(now))
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input_folder", type=Path, required=True, help="Folder with jsonl files.")
    parser.add_argument("--text_column", required=True, help="Column whose texts are compared.")
    parser.add_argument("--output_folder", type=Path, required=True, help="On SLURM, one that all nodes see.")
    parser.add_argument("--workers", type=int, default=1, help="Processes on this machine. Default: 1.")
    parser.add_argument("--partition", help="SLURM partition; without one, all runs on this machine.")
    parser.add_argument("--time", default="04:00:00", help="Time limit of each SLURM job.")
    args = parser.parse_args()
    files = sorted(path.relative_to(args.input_folder) for path in args.input_folder.rglob("*.jsonl"))
    if problem := find_problem(args, files):
        parser.error(problem)
    reader = JsonlReader(
        str(args.input_folder), text_key=args.text_column, adapter=read_row, glob_pattern="*.jsonl", compression=None
    )
    work = args.output_folder / "work"

    def executor(name: str, pipeline: list[PipelineStep], tasks: int, depends: Any) -> Any:
        own = {"pipeline": pipeline, "tasks": tasks, "depends": depends, "logging_dir": str(work / "logs" / name)}
        if args.partition:
            return SlurmPipelineExecutor(**own, job_name=name, partition=args.partition, time=args.time)
        return LocalPipelineExecutor(**own, workers=args.workers)

    signatures, buckets, clusters = (str(work / part) for part in ("signatures", "buckets", "clusters"))
    stage = executor("signatures", [reader, MinhashDedupSignature(signatures, config=CONFIG)], len(files), None)
    stage = executor("buckets", [MinhashDedupBuckets(signatures, buckets, config=CONFIG)], CONFIG.num_buckets, stage)
    stage = executor(
        "clusters", [MinhashDedupCluster(buckets, clusters, config=CONFIG, save_cluster_id=True)], 1, stage
    )
    writer = JsonlWriter(
        str(args.output_folder / "rows"), compression=None, adapter=lambda self, document: document.metadata["row"]
    )
    executor("rows", [reader, ClusterColumn(Path(clusters)), writer], len(files), stage).run()


if __name__ == "__main__":
    main()
