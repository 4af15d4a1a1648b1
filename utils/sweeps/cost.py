"""What a run costs beside its quality: minutes, and energy as codecarbon measures or estimates it."""

import logging
from pathlib import Path

from codecarbon import OfflineEmissionsTracker
from codecarbon.core.cpu import is_rapl_available

from utils.json_files import read_json, write_json

COST = "cost.json"


def add_cost(folder: Path, minutes: float, energy: float | None) -> dict[str, float]:
    """Add to the minutes and kWh that a run took so far, also before the sweep was killed; returns the sums."""
    cost = read_json(folder / COST)
    cost["minutes"] = cost.get("minutes", 0.0) + minutes
    if energy is not None:
        cost["energy_kwh"] = cost.get("energy_kwh", 0.0) + energy
    write_json(folder / COST, cost)
    return cost


def start_meter() -> OfflineEmissionsTracker:
    """Start codecarbon's tracker for this process and its children; offline, and without its files.

    Sensors are read where the machine shows them (RAPL, NVML; those count all that runs there). Elsewhere the CPU's
    power is estimated from its model's and the time that these processes have used, that of memory from its size.
    """
    logging.getLogger("codecarbon").setLevel(logging.ERROR)
    meter = OfflineEmissionsTracker(
        country_iso_code="USA",  # must be given; changes the CO2, which is not read, and not the energy
        tracking_mode="process", output_methods=[], log_level="error", allow_multiple_runs=True,
    )  # fmt: skip
    meter.start_task()
    return meter


def read_meter(meter: OfflineEmissionsTracker | None) -> float | None:
    """kWh since it was last read; None without a meter."""
    if meter is None:
        return None
    energy = meter.stop_task().energy_consumed
    meter.start_task()
    return energy


def energy_note(jobs: int) -> str:
    """How the energy of the runs was found, in a sentence."""
    if jobs > 1:
        return "Energy is empty: of several runs at once, none can be told from the others."
    if is_rapl_available():
        return "Energy is measured by sensors (RAPL, and NVML on a GPU), which count all that ran on the machine."
    return (
        "Energy is estimated by codecarbon, from the CPU's model, the time that the runs used it and the size of the "
        "memory; that of a GPU is measured."
    )
