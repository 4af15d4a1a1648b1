"""Write the numbers of README.md and docs/*.md from the files in benchmarks/results/: `make readme`.

The text between `<!-- NAME:begin -->` and `<!-- NAME:end -->` is what `BLOCKS[NAME]` returns.
"""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.speed import equal_work, ratios
from utils.reporting.metric_names import BASELINES, PROBE, baselines_line, label, system_names
from utils.reporting.tables import table, with_interval

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# quickstart -> script, what it learns, model, metrics, whether its base model has a head that can do the task
TASKS = {
    "qa": ("run_qa_sft.py", "to define a medical term", "SmolLM2", ("rougeL", "perplexity"), True),
    "classification": (
        "run_classification.py", "the organ system of a definition", "MiniLM", ("macro_f1", "accuracy"), False),
    "multilabel": (
        "run_classification.py", "all organ systems of a definition", "MiniLM",
        ("micro_f1", "macro_f1", "samples_f1", "ece"), False),
    "hierarchical": (
        "run_hierarchical.py", "chapter and block of an ICD-10-CM title", "MiniLM",
        ("child_macro_f1", "parent_macro_f1"), False),
    "summarization": (
        "run_summarization.py", "to name a term from its definition", "BART made from MiniLM",
        ("rouge1", "omission", "hallucination"), True),
    "summarization_decoder": (
        "run_summarization.py", "the same, with a decoder", "SmolLM2", ("rouge1", "omission", "hallucination"), True),
}  # fmt: skip


def read(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def results() -> str:
    """One row a script: its score, that of the base model and that of the best baseline without a neural network."""
    rows, of_seeds = [], read("seeds")
    for name, (script, learns, model, (metric, *_), base_can) in TASKS.items():
        found = read(f"quickstart_{name}")
        trained, total = (f"{found[f'{part}_parameters'] / 1e6:.0f}M" for part in ("trainable", "total"))
        base = with_interval(found, f"base_test_{metric}") if base_can or PROBE in found else "untrained head"
        best = max(BASELINES.keys() - {"encoder_alone"}, key=lambda b: found.get(f"baseline_{b}_test_{metric}", -1))
        compared = f"{with_interval(found, f'baseline_{best}_test_{metric}')}, {best.replace('_', ' ')}"
        score = f"{label(metric)} **{with_interval(found, f'test_{metric}')}**"
        if name in of_seeds:
            own = of_seeds[name][metric]["fine-tuned"]
            score += f"; {own['mean']:.3f} ± {own['sd']:.3f} over {len(own['values'])} seeds"
        model += f", {f'all {total}' if trained == total else f'{trained} of {total}'} weights"
        rows.append([f"`{script}`", learns, model, score, base, compared, minutes(found)])
    return table(["script", "learns", "model", "fine-tuned", "base model", "best baseline", "training"], rows)


def minutes(found: dict[str, Any]) -> str:
    """Return the time of training and the cores that it had, such as "9 min, 2 cores"."""
    cores = re.search(r"\d+ cores?", found.get("machine", "2 cores"))
    return f"{found['train_runtime'] / 60:.0f} min" + (f", {cores[0]}" if cores else "")


def quickstart(name: str) -> str:
    """One quickstart in full, and the fine-tuned model minus each other system on the same rows."""
    found, (*_, metrics, base_can) = read(f"quickstart_{name}"), TASKS[name]
    rows = []
    for prefix, system in system_names(found).items():
        if base_can or PROBE in found or prefix != "base_test_":
            delta = "" if prefix == "test_" else with_interval(found, f"delta_{prefix}{metrics[0]}")
            rows.append([system, *(with_interval(found, prefix + metric) for metric in metrics), delta])
    head = ["", *map(label, metrics), f"{label(metrics[0])}, fine-tuned minus this"]
    size = f"{found['train_rows']:,} training rows, {found['test_rows']:,} test rows"
    size += f"; training took {minutes(found)}."
    return "\n\n".join([size, table(head, rows), baselines_line(found)])


def decoder_against_encoder() -> str:
    """The decoder minus the encoder-decoder on the same summaries, paired."""
    found = read("decoder_against_encoder")
    first, second = (Path(run).name for run in found["runs"])
    rows = [
        [label(metric), *(with_interval(found, f"{run}_{metric}") for run in (first, second, f"delta_{second}"))]
        for metric in ("rouge1", "chrf", "omission", "any_hallucination")
    ]
    return table(["", "encoder-decoder", "decoder", "decoder minus encoder-decoder"], rows)


def answers() -> str:
    columns = ("verdict", "question", "expert", "fine_tuned")
    rows = [[row[column] for column in columns] for row in read("quickstart_answers")]
    return table(["", "question", "expert", "fine-tuned model"], rows)


def intervals() -> str:
    """How often 95 % intervals hold the true value and tests reject a true null, by the number of clusters."""
    found, rows = read("intervals"), []
    ways = ("percentile", "BCa", "studentized", "t", "t, Wilson, effective")
    tests = ("McNemar, rows", "exact, clusters", "t")
    for n in sorted({cell["clusters"] for cell in found["cells"]}):
        cells = [cell for cell in found["cells"] if cell["clusters"] == n]
        shares = [[cell["value"][way] for cell in cells if way in cell["value"]] for way in ways]
        sizes = [[cell["rejected"][test] for cell in cells if test in cell["rejected"]] for test in tests]
        lowest = (f"{sum(own) / len(own):.2f} ({min(own):.2f})" for own in shares)
        highest = (f"{sum(own) / len(own):.2f} ({max(own):.2f})" for own in sizes)
        rows.append([n, *lowest, *highest])
    named = ("percentile", "BCa", "studentized", "t", "**t, Wilson's form**")
    header = ["clusters", *named, "McNemar of rows rejects", "**exact test of clusters**", "**t-test**"]
    return table(header, rows)


def confidence() -> str:
    found, parts = read("quickstart_qa"), ("least", "middle", "most")
    rows = [[f"{part} confident", with_interval(found, f"test_rougeL_{part}_confident")] for part in parts]
    return table(["third of the answers", "ROUGE-L"], rows)


def seeds() -> str:
    """Mean and spread over seeds, and how much of the uncertainty is of rows and how much of training."""
    found, rows = read("seeds"), []
    for task, table_of in ((task, own) for task, own in found.items() if isinstance(own, dict)):
        for metric, systems in table_of.items():
            if metric in ("seeds", "commits"):
                continue
            for system, own in systems.items():
                parts = f"{own['rows_sd']:.3f}" if "rows_sd" in own else ""
                values = f"{own['mean']:.3f} ± {own['sd']:.3f}"
                rows.append([task, len(table_of["seeds"]), label(metric), system, values, parts])
    head = ["task", "seeds", "metric", "system", "mean ± standard deviation over seeds", "standard error of rows"]
    return table(head, rows)


def ensemble() -> str:
    """What a linear model beside the encoder adds, by data and training rows: paired over seeds."""
    found, rows, systems = read("ensemble"), [], ("encoder_alone", "linear_alone", "ensemble")
    names = {"medical_abstracts": "medical abstracts", "hpo": "definitions", "icd_blocks": "blocks of ICD-10-CM"}
    for name, own in found.items():
        if isinstance(own, dict):
            data, size = name.rsplit("_", 1)
            shown = []
            for metric in ("macro_f1", "accuracy"):
                delta = own[metric]["ensemble_minus_encoder_alone"]
                shown.append(with_interval({"delta": delta["mean"], "delta_ci95": delta["ci95"]}, "delta"))
            means = (f"{own['macro_f1'][system]['mean']:.3f}" for system in systems)
            rows.append([names[data], size, own["seeds"], *means, *shown])
    head = [
        "data",
        "rows",
        "seeds",
        "encoder, macro F1",
        "linear model",
        "ensemble",
        "gain in macro F1",
        "gain in accuracy",
    ]
    return table(head, rows)


def export() -> str:
    """What exports lose against the run that they are of, and how fast classifiers are."""
    found, rows = read("export"), []
    for name, metric in (
        ("merged", "rougeL"), ("gguf_f16", "rougeL"), ("gguf_q8_0", "rougeL"),
        ("onnx_none", "macro_f1"), ("onnx_int8", "macro_f1"),
    ):  # fmt: skip
        own = found[name]
        equal = f"{own['equal_answers']:,} of {own['rows']:,}"
        tokens = own.get("equal_first_tokens")
        speed = found.get(f"{name}_speed")
        times = speed and speed["predict_texts_per_second"] / found["pytorch_speed"]["predict_texts_per_second"]
        rows.append([
            name.replace("_", " ", 1).replace(" none", " float32"), label(metric), equal,
            f"{100 * tokens:.1f} %" if tokens else "",
            with_interval(own, f"delta_{metric}"), f"{own['megabytes']:,.0f}", f"{times:.2f}" if times else "",
        ])  # fmt: skip
    head = ["export", "metric", "equal answers", "equal first 32 tokens", "metric, export minus run", "MB",
            f"times PyTorch's texts/s, {found['threads']} thread{'s' if found['threads'] > 1 else ''}"]  # fmt: skip
    return table(head, rows)


def long_inputs() -> str:
    """Ways to read long texts, and what a text costs."""
    found = read("long_inputs")
    rows = []
    for way, own in found["ways"].items():
        delta = with_interval(own["minus_head"], "delta_macro_f1") if "minus_head" in own else ""
        scores = (f"{own[m]:.3f}" for m in ("macro_f1", "accuracy"))
        rows.append([way.replace("_", " and "), *scores, delta])
    svm = found["tfidf_svm_on_all_words"]
    rows.append(["linear SVM on all words", *(f"{svm[m][0]:.3f}" for m in ("macro_f1", "accuracy")), ""])
    first = table(["`long_texts`", "macro F1", "accuracy", "macro F1 minus head"], rows)
    if "cost" not in found:
        return first
    cost = {name: own for name, own in found["cost"].items() if name != "threads"}
    lengths = [key for key in next(iter(cost.values())) if key != "parameters"]
    rows = [
        [name, f"{own['parameters'] / 1e6:,.0f}M",
         *(f"{own[n]['forward_seconds']:.2f}, {own[n]['forward_backward_seconds']:.2f}" for n in lengths)]
        for name, own in cost.items()
    ]  # fmt: skip
    return f"{first}\n\n{table(['encoder', 'weights', *(f'{int(n):,} tokens' for n in lengths)], rows)}"


def sweep() -> str:
    found, rows = read("quickstart_sweep"), []
    for row in found["configurations"]:
        delta = with_interval({"delta": row.get("difference"), "delta_ci95": row.get("ci95")}, "delta")
        rows.append([row["configuration"], f"{row['mean']:.3f}", delta])
    chosen = f"Chosen: {found['chosen']}. More than noise: {'yes' if found['more_than_noise'] else 'no'}."
    return f"{table(['configuration', found['metric'], 'minus the first'], rows)}\n\n{chosen}"


def speed() -> str:
    """Each script against what a user would run instead; and that both do the same work on the same rows."""
    first = table(["on 2 CPU cores", "against", "times as fast"], [[*w, f"{ratio:.1f}"] for *w, ratio in ratios()])
    names = {"ours": "`recipes/quickstart/qa.yaml`", "trl": "`trl sft`, its defaults", "trl_best": "`trl sft`, its "
             "fastest flags found", "ours_4bit": "the recipe with `load_in_4bit`"}  # fmt: skip
    rows = [
        [names[way], f"{own['tokens_per_second']:,.0f}", f"{own['peak_memory_gb']:.1f}", f"{own['loss']:.3f}",
         f"{own['grad_norm']:.3f}", f"{100 * own['share_of_matmul_peak']:.0f} %"] for way, own in equal_work()
    ]  # fmt: skip
    head = ["training on questions", "tokens/s", "GB", "loss", "gradient norm", "share of the matrix product's peak"]
    return f"{first}\n\n{table(head, rows)}" if rows else first


def data_speed() -> str:
    """Cleaning, clustering and splitting, on one thread."""
    found, rows = read("data_speed"), []
    for kind in ("unique", "near_duplicates", "template"):
        for size, own in found[kind].items():
            if isinstance(own, dict):
                share = "" if own["found"] is None else f"{own['found']:.3f}"
                rows.append([kind.replace("_", " "), f"{int(size):,}", f"{own['seconds']:.0f}",
                             f"{own['peak_memory_gb']:.1f}", share])  # fmt: skip
    return table(["texts", "rows", "seconds", "GB", "near-duplicate pairs that share a split"], rows)


def shared_machine() -> str:
    """A training step beside one busy process, against alone."""
    found = read("shared_machine")
    names = {"scripts": "the scripts (`GOMP_SPINCOUNT=1000`)", "default": "the default of OpenMP"}
    rows = [
        [words, *(f"{found['seconds_per_step'][f'{name}_{how}']:.1f}" for how in ("alone", "busy")),
         f"{found[f'{name}_busy_over_alone']:.1f}"] for name, words in names.items()
    ]  # fmt: skip
    return table(["threads that wait", "seconds alone", "beside a busy process", "times as slow"], rows)


def gpu() -> str:
    """Training on a GPU, against what a user would run instead, and the largest batch for each size of card."""
    found = read("gpu")
    ways = {
        "phi3 trl": "`trl sft`, its defaults", "phi3 trl packing": "`trl sft` with packing, bfloat16 and SDPA",
        "phi3 trl packing liger": "the same with Liger kernels", "phi3 recipe": "`recipes/phi3_qlora.yaml`",
        "phi3 recipe liger": "the same with `use_liger_kernel: true`",
        "phi3 recipe unpacked batch 2": "the recipe without packing, 2 rows x 8 steps",
    }  # fmt: skip
    rows = []
    for name, way in ways.items():
        row = found["rows"][name]
        times = row["tokens_per_second"] / found["rows"]["phi3 trl"]["tokens_per_second"]
        numbers = f"{row['tokens_per_second']:,.0f}", f"{times:.1f}", f"{100 * row['mfu']:.0f} %"
        rows.append([way, *numbers, f"{row['peak_memory_gb']:.1f}", f"{row['loss']:.2f}", f"{row['grad_norm']:.2f}"])
    head = ["", "tokens/s", "times `trl sft`", "MFU", "GB", "loss", "gradient norm"]
    cards = {size: found["rows"][f"phi3 batches card of {size} GB"]["largest_batch"] for size in (8, 12, 16, 24)}
    fits = ", ".join(f"{batch} on a card of {size} GB" for size, batch in cards.items())
    where = f"{found['runs'][0]['gpu']}, torch {found['versions']['torch']}, trl {found['versions']['trl']}."
    return f"{table(head, rows)}\n\nLargest batch of 1,024-token rows: {fits}. {where}"


def factuality() -> str:
    found, rates = read("factuality"), {"omission": "OmissionRate", "hallucination": "HallucinationRate"}
    rows = [[name, with_interval(found, f"r_{name}_{rate}_held_out")] for name, rate in rates.items()]
    return table(["measure", "correlation with the experts' rate, held-out dialogues"], rows)


def safety() -> str:
    found = read("safety")
    counts = found["lay"]["held_out"] | {"false_alarms_medquad": found["medquad"]["questions_or_answers"]}
    rows = [[key.replace("_", " "), f"{n['count']:,} of {n['of']:,}"] for key, n in counts.items()]
    return table(["texts in everyday words, and MedQuAD", "count"], rows)


def safety_second_stage() -> str:
    """What the classifier adds to the rules, on the same texts."""
    found = read("safety_second_stage")
    systems = [found["rules"], found["rules_and_classifier"]]
    rows = [
        [key.replace("_", " "), *(f"{of[key]['count']:,} of {of[key]['of']:,}" for of in systems)]
        for key, value in systems[0].items()
        if isinstance(value, dict)
    ]
    for key, words in (("p95_ms_questions", "a question"), ("p95_ms_200_words", "200 words")):
        rows.append([f"milliseconds for {words}, 95th percentile", *(f"{of[key]:.0f}" for of in systems)])
    return table(["", "rules", "rules and classifier"], rows)


def safety_measured() -> str:
    """All counts of the safety checks: on the texts that corrected the rules, and on those that nobody looked at."""
    found = read("safety")
    rows = []
    for key, known in found["lay"]["development"].items():
        unseen = found["lay"]["held_out"][key]
        rows.append([key.replace("_", " "), *(f"{n['count']:,} of {n['of']:,}" for n in (known, unseen))])
    rows += [
        [f"still found, frame {place}", f"{n['count']:,} of {n['of']:,}", ""] for place, n in found["frames"].items()
    ]
    closed = found["closing_phrases"]
    names = {"kept": "lowered by one at most", "at_full_severity": "not lowered"}
    for key, name in names.items():
        rows.append([f"{name} by a closing phrase", f"{closed[key]['count']:,} of {closed[key]['of']:,}", ""])
    alarms = {
        "alarms on exam questions (HeadQA)": found["headqa_questions"],
        "alarms on informative questions (MedQuAD)": found["medquad"]["questions"],
        "alarms on informative answers (MedQuAD)": found["medquad"]["answers"],
    }
    rows += [[name, "", f"{n['count']:,} of {n['of']:,}"] for name, n in alarms.items()]
    return table(["", "seen by the authors of the rules", "unseen"], rows)


def drugs() -> str:
    found = read("drug_coverage")
    counts = ("drugs", "recognised", "with_interactions", "with_contraindications", "with_a_highest_dose")
    countries = ("USA", "England")
    rows = [[key.replace("_", " "), *(str(found[name][key]) for name in countries)] for key in counts]
    lists = {
        "Not recognised": "not_recognised",
        "Recognised by name and class alone, with no row of any check": "by_name_alone",
    }
    lines = [
        f"{words}: {', '.join(sorted({drug for name in countries for drug in found[name][key]}))}."
        for words, key in lists.items()
    ]
    return "\n\n".join([table(["most prescribed drugs", *countries], rows), *lines])


BLOCKS = {
    f.__name__: f
    for f in (
        results,
        answers,
        intervals,
        confidence,
        sweep,
        speed,
        gpu,
        factuality,
        safety,
        drugs,
        decoder_against_encoder,
    )
}
BLOCKS |= {
    f.__name__: f for f in (safety_measured, safety_second_stage, export, seeds, shared_machine, ensemble, long_inputs)
}
BLOCKS["data_speed"] = data_speed
BLOCKS |= {name: partial(quickstart, name) for name in TASKS}


def render(text: str) -> str:
    """Return a page with every block between markers made anew."""
    marked = re.compile(r"(<!-- (\w+):begin -->\n).*?(<!-- \2:end -->)", re.DOTALL)
    return marked.sub(lambda m: f"{m[1]}{BLOCKS[m[2]]()}\n{m[3]}", text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")
