"""Few-shot training throughput: updates a second at a preset's sizes, with and without CUDA graph and torch.compile.

Glyphs take the place of Omniglot, so that no data set is needed: 28×28 grey images, the same number of classes. First
each mode is checked: 20 updates from the same seed must have the same mean loss as the plain mode. Then medians
(min-max) over windows of updates are printed, and the plain mode's device time by kind of kernel (torch.profiler).

    python benchmarks/fewshot.py --json experiments/fewshot/speed.json
    python benchmarks/fewshot.py --preset omniglot-1shot --queries 1
    python benchmarks/fewshot.py --preset mini-1shot --updates 50 --classes 64

Any flag of ``fewshot train`` overrides the preset.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from srwm_agents.command_line import OneLineParser
from srwm_agents.fewshot.command import add_settings
from srwm_agents.fewshot.data import glyphs, image_format
from srwm_agents.fewshot.settings import Settings
from srwm_agents.fewshot.training import Trainer, tune
from srwm_agents.processes import Processes
from srwm_agents.recipes import load_recipe, recipe_names

MODES = {
    "plain": {},
    "graph": {"cuda_graph": True},
    "compiled": {"compile": True},
    "compiled graph": {"compile": True, "cuda_graph": True},
}
CHECKED_UPDATES = 20
TOLERANCE = 0.05
"""Largest relative difference of the mean loss in the check. bfloat16 and TF32 round differently in compiled kernels,
and the differences grow from update to update; a repeated draw or a missed update changes far more."""


def settings_of(preset: str, overrides: list[str], mode: str) -> Settings:
    """The preset's settings with overriding flags, on glyphs in its data set's image format."""
    parser = OneLineParser(allow_abbrev=False)
    add_settings(parser)
    parser.set_defaults(**load_recipe("fewshot", preset))
    values = vars(parser.parse_args(overrides))
    size, channels = image_format(values["dataset"].split(",")[0])
    values |= {"dataset": "glyphs", "image_size": size, "channels": channels, "mixed_precision": "bf16"}
    if values.get("rotations"):
        values["rotations"] = "glyphs"
    return Settings(**{**values, **MODES[mode]})


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def updates_per_second(trainer: Trainer, device: torch.device, updates: int, windows: int) -> list[float]:
    rates = []
    for _ in range(windows):
        wait(device)
        began = time.perf_counter()
        for _ in range(updates):
            trainer.update()
        wait(device)
        rates.append(updates / (time.perf_counter() - began))
    return rates


def device_time(trainer: Trainer, device: torch.device, updates: int = 10) -> dict[str, float]:
    """Device time of one update in milliseconds, by kind of kernel."""
    activities = [
        torch.profiler.ProfilerActivity.CUDA if device.type == "cuda" else torch.profiler.ProfilerActivity.CPU
    ]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(updates):
            trainer.update()
        wait(device)
    total: dict[str, float] = defaultdict(float)
    for event in profile.key_averages():
        spent = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        total[kind_of(event.key.lower())] += spent / updates / 1000
        total["kernels"] += event.count / updates if spent else 0
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def kind_of(kernel: str) -> str:
    kinds = {
        "memory layers": ("srwm", "delta_", "rnn"),
        "batch norm and what follows": ("norm_pool", "batch_norm", "bn_", "batchnorm"),
        "pooling": ("pool",),
        "convolution": ("conv", "xmma", "cudnn", "wgrad", "dgrad", "implicit"),
        "matrix products": ("gemm", "addmm", "::mm", "cutlass", "nvjet"),
        "optimizer": ("adam", "multi_tensor", "fused_adam"),
        "drawing": ("rand", "topk", "sort", "gather", "index", "scatter"),
    }
    return next((kind for kind, words in kinds.items() if any(word in kernel for word in words)), "the rest")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--preset", default="omniglot-1shot", choices=sorted(set(recipe_names("fewshot")) - {"sequential"})
    )
    parser.add_argument("--modes", default=",".join(MODES), help="comma-separated (on a CPU: plain only)")
    parser.add_argument("--updates", type=int, default=200, help="of each window")
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--classes", type=int, default=1028, help="of the stand-in data set")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args, overrides = parser.parse_known_args()
    glyphs.CLASSES.update(train=args.classes, val=20)
    results: dict[str, Any] = {"preset": args.preset, "overrides": overrides, "modes": {}}
    reference = None
    with Processes("auto") as processes:
        device = processes.device
        name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
        results |= {"device": name, "torch": torch.__version__, "python": platform.python_version()}
        tune(device, one_shape=True)
        for mode in args.modes.split(",") if device.type == "cuda" else ["plain"]:
            trainer = Trainer(settings_of(args.preset, overrides, mode), processes)
            for _ in range(CHECKED_UPDATES):
                trainer.update()
            loss, _ = trainer.read_totals(CHECKED_UPDATES)
            reference = loss if reference is None else reference
            if not abs(loss - reference) <= TOLERANCE * reference:
                print(
                    f"{mode}: mean loss {loss:.4f} over {CHECKED_UPDATES} updates, plain {reference:.4f}: not the same"
                )
                return 1
            rates = updates_per_second(trainer, device, args.updates, args.windows)
            results["modes"][mode] = {"loss": loss, "updates_per_second": rates}
            spread = f"({min(rates):.1f}-{max(rates):.1f})"
            print(f"{mode:15} {statistics.median(rates):7.1f} updates/s {spread}, loss {loss:.4f}")
            if mode == "plain":
                results["device_ms_per_update"] = device_time(trainer, device)
    print(f"{name}, {args.preset}, {' '.join(overrides) or 'as it is'}; device time of a plain update, ms:")
    for kind, value in results["device_ms_per_update"].items():
        print(f"  {kind:28} {value:8.3f}")
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
