"""A trace of a trained net: the addresses it reads and writes, Δ, and the weights that change, step by step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from srwm_agents import plotting
from srwm_agents.files import write_atomically
from srwm_agents.introspective.dynamics import Dynamics, Sequences, wiped
from srwm_agents.introspective.training import Training
from srwm_agents.introspective.wiring import Wiring
from srwm_agents.plotting import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN_WEIGHTS = 12
"""The picture shows so many of the weights that changed most; the JSON lists all that changed by more than"""
LEAST_CHANGE = 0.01
"""this since the step before."""
NAMED_FROM = 0.3
"""A pointer's connection is named in the picture from this g on, when it changes and there is room."""
READ, WRITE, TARGET, ERROR = plotting.COLOURS[0], plotting.COLOURS[1], plotting.COLOURS[2], plotting.COLOURS[4]


@torch.no_grad()
def trace(dynamics: Dynamics, weight: torch.Tensor, sequences: Sequences) -> dict[str, Any]:
    """What the net does in one sequence.

    Args:
        dynamics: of the net.
        weight: [K, Z], W(1).
        sequences: of one sequence and T time steps.

    Returns:
        JSON's types: the names of units and connections, and an entry a time step with input, target (None where there
        is none), output, eval and val as the net saw them, Δ, the connections nearest to both pointers with their g,
        and every weight changed by more than 0.01.
    """
    wiring = dynamics.wiring
    state = dynamics.initial_state(weight[None])
    steps = []
    for t, (x, target, present, wipe) in enumerate(zip(*(part.unbind(1) for part in sequences), strict=True)):
        before = wiped(state, wipe)
        state, step = dynamics.step(before, x, target, present)
        change = (state.weight - before.weight).flatten()
        changed = (change.abs() > LEAST_CHANGE).nonzero().flatten().tolist()
        read, written = (_pointer(wiring, step.distance[0, k], step.touch[0, k]) for k in (0, 1))
        steps.append(
            {
                "t": t + 1,
                "wiped": bool(wipe),
                "x": x[0].tolist(),
                "eval": before.eval[0].tolist(),
                "val": before.val.item(),
                "target": [d if exists else None for d, exists in zip(target[0].tolist(), present[0].tolist())],  # noqa: B905
                "output": step.y[0, wiring.output].tolist(),
                "read": read,
                "written": written,
                "delta": step.y[0, wiring.delta].item(),
                "changed": {wiring.connection_name(number): change[number].item() for number in changed},
                "shift": (state.weight - weight).flatten(),
            }
        )
    largest = torch.stack([step["shift"] for step in steps]).abs().amax(0).topk(SHOWN_WEIGHTS).indices.tolist()
    for step in steps:
        step["shift"] = {wiring.connection_name(number): step["shift"][number].item() for number in largest}
    return {
        "units": wiring.unit_names(),
        "sources": wiring.source_names(),
        "num_bits": wiring.num_bits,
        "steps": steps,
    }


def _pointer(wiring: Wiring, distance: torch.Tensor, touch: torch.Tensor) -> dict[str, Any]:
    number = int(distance.argmin())
    return {
        "number": number,
        "connection": wiring.connection_name(number),
        "g": touch[number].item(),
        "distance": distance[number].sqrt().item(),
        "touched": int((touch > LEAST_CHANGE).sum()),
    }


def draw(traced: dict[str, Any], picture: Path, title: str) -> Path:
    """Draw what :func:`trace` returned as a PNG (or what the picture's ending says)."""
    steps = traced["steps"]
    times = [step["t"] for step in steps]
    wiped_label = "time step (dotted: all activations wiped)" if any(s["wiped"] for s in steps) else "time step"
    with plotting.drawing(picture, plotting.PAGE_INCHES, 10.5) as figure:
        axes = figure.subplots(4, 1, sharex=True, height_ratios=[2.2, 3.4, 1.4, 3.0])
        figure.suptitle(title)
        _draw_inputs(axes[0], steps, times)
        _draw_pointers(axes[1], traced, times)
        _draw_delta(axes[2], steps, times)
        _draw_weights(figure, axes[3], steps, times)
        for axis in axes:
            axis.grid(False)
            for step in steps:
                if step["wiped"]:
                    axis.axvline(step["t"] - 0.5, color=INK, lw=1, ls=":")
        axes[3].set_xlabel(wiped_label)
    return picture


def _draw_inputs(axis: Axes, steps: list[dict[str, Any]], times: list[int]) -> None:
    """Inputs as a strip below, output, target and error above."""
    for k in range(len(steps[0]["output"])):
        axis.plot(times, [step["output"][k] for step in steps], color=INK, lw=1.4, label=f"output o{k}")
        due = [(step["t"], step["target"][k]) for step in steps if step["target"][k] is not None]
        axis.scatter(*zip(*due, strict=True), marker="o", s=42, fc="none", ec=TARGET, lw=1.6, label=f"target d{k}")
        if steps[0]["eval"]:
            error = [step["eval"][min(k, len(step["eval"]) - 1)] for step in steps]
            axis.bar(times, error, width=0.35, color=ERROR, label=f"eval{k}: the last error")
    inputs = len(steps[0]["x"])
    for k in range(inputs):
        values = [[step["x"][k] for step in steps]]
        y = -1.35 - 0.28 * k
        extent = (times[0] - 0.5, times[-1] + 0.5, y - 0.12, y + 0.12)
        axis.imshow(values, aspect="auto", cmap="coolwarm", vmin=-1, vmax=1, extent=extent)
    axis.set_xlim(times[0] - 0.6, times[-1] + 0.6)
    axis.set_ylim(-1.55 - 0.28 * inputs, 1.15)
    axis.set_yticks(
        [1, 0, -1, *(-1.35 - 0.28 * k for k in range(inputs))], ["1", "0", "−1", *(f"x{k}" for k in range(inputs))]
    )
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    axis.set_title("what it sees and says (inputs: blue −1, red 1)", loc="left")


def _draw_pointers(axis: Axes, traced: dict[str, Any], times: list[int]) -> None:
    """The nearest connection over time: one band of equal height for each kind of unit that connections lead to."""
    from matplotlib.colors import to_rgba

    sources, units = len(traced["sources"]), traced["units"]
    bands = []
    for label, prefix in (("outputs", "o"), ("hidden", "h"), ("ana", "ana"), ("mod", "mod"), ("Δ", "Δ")):
        rows = [i for i, name in enumerate(units) if name.rstrip("0123456789") == prefix]
        if rows:
            bands.append((f"into {label}", rows[0] * sources, (rows[-1] + 1) * sources))

    def height(number: int) -> float:
        return next(k + (number + 0.5 - low) / (high - low) for k, (_, low, high) in enumerate(bands) if number < high)

    for k in range(len(bands)):
        axis.axhspan(k, k + 1, color=("#eceff3", "#ffffff")[k % 2], zorder=0)
    for kind, colour, marker, side in (("read", READ, "o", -9), ("written", WRITE, "v", 6)):
        pointers = [step[kind] for step in traced["steps"]]
        heights = [height(pointer["number"]) for pointer in pointers]
        colours = [to_rgba(colour, max(0.08, pointer["g"])) for pointer in pointers]
        axis.scatter(times, heights, s=46, marker=marker, color=colours, lw=0)
        axis.scatter([], [], s=46, marker=marker, color=colour, label=f"{kind} (solid: g = 1)")
        named, at = "", -len(times)
        for t, y, pointer in zip(times, heights, pointers, strict=True):
            new = pointer["connection"] != named and t - at >= len(times) / 5  # names need room
            if new and pointer["g"] > NAMED_FROM:
                named, at = pointer["connection"], t
                axis.annotate(named, (t, y), (0, side), textcoords="offset points", color=colour, ha="center")
    axis.set_ylim(-0.15, len(bands) + 0.15)
    axis.set_yticks([k + 0.5 for k in range(len(bands))], [label for label, _, _ in bands])
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    axis.set_title("connection nearest to the reading and the writing pointer", loc="left")


def _draw_delta(axis: Axes, steps: list[dict[str, Any]], times: list[int]) -> None:
    axis.bar(times, [step["delta"] for step in steps], width=0.6, color=WRITE, label="Δ")
    axis.plot(times, [step["val"] for step in steps], color=READ, lw=1.4, label="val: what was read")
    axis.axhline(0, color=INK, lw=0.6)
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    axis.set_title("what it writes and has read", loc="left")


def _draw_weights(figure: Figure, axis: Axes, steps: list[dict[str, Any]], times: list[int]) -> None:
    names = list(steps[0]["shift"])
    shift = [[step["shift"][name] for step in steps] for name in names]
    largest = max(max(map(abs, row)) for row in shift) or 1.0
    extent = (times[0] - 0.5, times[-1] + 0.5, len(names) - 0.5, -0.5)
    image = axis.imshow(shift, aspect="auto", cmap="PuOr", vmin=-largest, vmax=largest, extent=extent)
    axis.set_yticks(range(len(names)), names)
    figure.colorbar(image, cax=axis.inset_axes((1.02, 0, 0.025, 1)))
    axis.set_title("the weights that change most: their shift from W(1) after each step", loc="left")


def write_trace(training: Training, index: int, folder: Path) -> list[Path]:
    """``trace.json`` and ``trace.png`` of net ``index`` on one sequence that training did not see."""
    config = training.config
    sequences = training.evaluation_batch(index, 1).sequences
    dtype = training.weights.dtype
    sequences = sequences._replace(x=sequences.x.to(dtype), target=sequences.target.to(dtype))
    sequences = Sequences(*(part.to(training.device) for part in sequences.blocks(config.steps_per_input)))
    traced = trace(training.dynamics, training.weights[index].detach(), sequences)
    traced = {"config": config.to_json(), "seed": training.seeds[index], "update": training.update, **traced}
    document = write_atomically(folder / "trace.json", json.dumps(traced, indent=1) + "\n")
    title = f"{config.task}, seed {training.seeds[index]}, after {training.update} updates"
    return [document, draw(traced, folder / "trace.png", title)]
