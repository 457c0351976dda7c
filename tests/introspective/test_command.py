"""The command line: it trains, saves whole files, resumes exactly, and says in one line what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from srwm_agents.__main__ import COMMANDS
from srwm_agents.__main__ import main as dispatch
from srwm_agents.introspective.checkpoint import CheckpointError, load_net, load_training, save_training
from srwm_agents.introspective.command import make_parser
from srwm_agents.introspective.training import TrainConfig, Training

ROOT = Path(__file__).parents[2]


def train(tmp_path: Path, *flags: str) -> int:
    return dispatch(["introspective", "train", f"--train_dir={tmp_path}", "--experiment=net", *flags])


def test_train_writes_everything(tmp_path: Path, capsys) -> None:
    assert train(tmp_path, "--task=recall", "--updates=5", "--num_seeds=2", "--trace") == 0
    folder = tmp_path / "net"
    assert {file.name for file in folder.iterdir()} == {
        "checkpoint.safetensors",
        "results.json",
        "trace.json",
        "trace.png",
    }
    results = json.loads((folder / "results.json").read_text())
    assert results["seeds"] == [0, 1]
    assert results["config"]["task"] == "recall"
    assert [row["update"] for row in results["curve"]] == [1, 2, 3, 4, 5]
    assert len(results["accuracy"]) == len(results["solved"]) == 2
    assert "0 of 2 solved" in capsys.readouterr().out


def test_the_trace_says_what_the_net_did(tmp_path: Path) -> None:
    assert train(tmp_path, "--task=rewrite", "--updates=30", "--trace") == 0
    traced = json.loads((tmp_path / "net" / "trace.json").read_text())
    net = load_net(tmp_path / "net")
    assert len(traced["steps"]) == 8
    assert [step["t"] for step in traced["steps"] if step["wiped"]] == [5, 7]
    x = torch.tensor([step["x"] for step in traced["steps"]])[None, ::2]
    wipe = torch.tensor([step["wiped"] for step in traced["steps"]])[None, ::2]
    target = torch.tensor([[0.0 if d is None else d for d in step["target"]] for step in traced["steps"]])[None, 1::2]
    present = torch.tensor([[d is not None for d in step["target"]] for step in traced["steps"]])[None, 1::2]
    with torch.no_grad():
        result = net(x, target, present=present, wipe=wipe)
    outputs = torch.tensor([step["output"] for step in traced["steps"]])
    torch.testing.assert_close(result.output[0], outputs[1::2])
    names = {net.wiring.connection_name(k): k for k in range(net.wiring.num_connections)}
    assert len(names) == net.wiring.num_connections
    shift = (result.state.weight[0] - net.weight).flatten()
    for name, value in traced["steps"][-1]["shift"].items():
        assert shift[names[name]].item() == pytest.approx(value, abs=1e-6)
    written = traced["steps"][1]["written"]
    assert names[written["connection"]] == written["number"]


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    config = TrainConfig.of_task("recall", updates=8, num_seeds=2, batch_size=4)
    whole = Training(config)
    list(whole.run())
    broken = Training(config)
    for _ in range(3):
        next(broken.run())
    save_training(broken, tmp_path)
    resumed = load_training(tmp_path, config)
    list(resumed.run())
    assert torch.equal(resumed.weights, whole.weights)
    assert resumed.curve == whole.curve


def test_seeds_side_by_side_are_as_if_alone() -> None:
    together = Training(TrainConfig.of_task("rewrite", updates=5, num_seeds=3, seed=4, batch_size=4))
    alone = Training(TrainConfig.of_task("rewrite", updates=5, num_seeds=1, seed=5, batch_size=4))
    list(together.run())
    list(alone.run())
    torch.testing.assert_close(together.weights[1], alone.weights[0], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(together.weights[0], together.weights[1])


def test_both_gradients_train_alike() -> None:
    runs = {}
    for gradient in ("bptt", "forward"):
        config = TrainConfig.of_task(
            "rewrite", updates=5, batch_size=4, gradient=gradient, precision="float64", optimizer="sgd"
        )
        runs[gradient] = Training(config)
        list(runs[gradient].run())
    torch.testing.assert_close(runs["forward"].weights, runs["bptt"].weights, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_rewrite_is_learned_with_delta_and_not_without() -> None:
    """The point of the net: the ablation cannot do better than half right, whatever its weights."""
    solved = {}
    for delta_scale in (1.0, 0.0):
        training = Training(TrainConfig.of_task("rewrite", updates=300, delta_scale=delta_scale))
        list(training.run())
        solved[delta_scale] = training.evaluate().accuracy[0]
    assert solved[1.0] >= 0.95
    # 2,000 answers at chance have a standard deviation of 0.011; five of them are allowed.
    assert abs(solved[0.0] - 0.5) < 0.06


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch_size=0"], "batch_size is 0, expected at least 1"),
        (["--learning_rate=nan"], "learning_rate is nan, expected at least 0 and finite"),
        (["--width=0"], "width is 0.0, expected above 0"),
        (["--device=tpu9"], "--device is 'tpu9', which PyTorch cannot use here"),
    ],
)
def test_wrong_values_are_one_line(tmp_path: Path, capsys, flags: list[str], message: str) -> None:
    assert train(tmp_path, *flags) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "net").exists()


def test_unknown_names_are_one_line(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        train(tmp_path, "--task=parity")
    assert stopped.value.code == 1
    assert "invalid choice: 'parity' (choose from" in capsys.readouterr().err
    assert dispatch(["introspect"]) == 1
    assert f"unknown command 'introspect', allowed: {', '.join(COMMANDS)}" in capsys.readouterr().err
    assert dispatch([]) == dispatch(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


def test_a_run_that_trains_nothing_says_so(tmp_path: Path, capsys) -> None:
    assert train(tmp_path, "--task=recall", "--updates=2") == 0
    assert train(tmp_path, "--task=recall", "--updates=3") == 0
    assert "going on with" in capsys.readouterr().out
    assert train(tmp_path, "--task=recall", "--updates=1") == 0
    assert "already trained for 3 of 1 updates" in capsys.readouterr().out
    assert json.loads((tmp_path / "net" / "results.json").read_text())["updates"] == 3


def test_runs_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """Format 1 had no SHA-256."""
    training = Training(TrainConfig.of_task("recall", updates=2))
    list(training.run())
    tensors = {"weights": training.weights.detach()}
    about = {"config": json.dumps(training.config.to_json()), "update": "2", "seconds": "1.5", "curve": "[]"}
    (tmp_path / "checkpoint.safetensors").write_bytes(save(tensors, {**about, "format": "1"}))
    assert torch.equal(load_training(tmp_path).weights, training.weights)
    (tmp_path / "checkpoint.safetensors").write_bytes(save(tensors, {**about, "format": "2"}))
    with pytest.raises(CheckpointError, match="is truncated or altered: its SHA-256"):
        load_training(tmp_path)


def test_another_run_in_the_same_folder_is_refused(tmp_path: Path, capsys) -> None:
    assert train(tmp_path, "--task=recall", "--updates=1") == 0
    before = (tmp_path / "net" / "checkpoint.safetensors").read_bytes()
    assert train(tmp_path, "--task=recall", "--updates=1", "--width=0.3") == 1
    error = capsys.readouterr().err
    assert "was trained with --width 0.5, now it is 0.3; name another --experiment" in error
    assert (tmp_path / "net" / "checkpoint.safetensors").read_bytes() == before
    assert train(tmp_path, "--task=recall", "--updates=1", "--width=0.3", "--restart_behavior=overwrite") == 0


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "one bit"])
def test_a_damaged_checkpoint_never_means_starting_over(tmp_path: Path, capsys, damage: str) -> None:
    assert train(tmp_path, "--task=recall", "--updates=1") == 0
    file = tmp_path / "net" / "checkpoint.safetensors"
    whole = file.read_bytes()
    content = {"truncated": whole[:-9], "garbage": b"\x80\x04pickle", "empty": b""}.get(damage)
    content = whole[:-5] + bytes([whole[-5] ^ 4]) + whole[-4:] if content is None else content
    file.write_bytes(content)
    capsys.readouterr()
    assert train(tmp_path, "--task=recall", "--updates=1") == 1
    assert "checkpoint.safetensors is truncated or altered" in capsys.readouterr().err
    assert file.read_bytes() == content


def test_loading_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors is missing"):
        load_net(tmp_path / "nowhere")
    save_training(Training(TrainConfig.of_task("recall", num_seeds=2)), tmp_path)
    with pytest.raises(CheckpointError, match="has no seed 7, there: 0 to 1"):
        load_net(tmp_path, seed=7)


@pytest.mark.slow
def test_ctrl_c_saves_and_stops(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "srwm_agents", "introspective", "train", "--task=recall", "--updates=100000"]
    process = subprocess.Popen(
        [*command, f"--train_dir={tmp_path}"], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()  # it has described itself, and trains next
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "stopped and saved after" in error
    assert error.count("\n") == 1
    assert load_training(tmp_path / "introspective_recall").update > 0


def test_help_shows_every_default(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        make_parser().parse_args(["train", "--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: boolean 3000, recall 1000, rewrite 1000)" in text
    for name in ("learning_rate", "gradient", "delta_scale", "restart_behavior", "trace"):
        assert f"--{name}" in text
