"""The command line end to end: training, resuming, stopping, evaluating, and every kind of wrong input."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from srwm_agents.__main__ import main as srwm_agents_main
from srwm_agents.fewshot import load_classifier
from srwm_agents.fewshot.command import main
from srwm_agents.fewshot.experiment import Experiment
from srwm_agents.fewshot.settings import Settings
from srwm_agents.fewshot.training import Trainer
from srwm_agents.recipes import load_recipe, load_recipes

ROOT = Path(__file__).parent.parent.parent
SMALL = (
    *("--image_size=16", "--encoder_channels=4", "--hidden_size=8", "--num_heads=2", "--num_layers=1", "--ff_size=8"),
    *("--batch_size=4", "--validate_every=4", "--validation_episodes=20", "--log_every=2", "--device=cpu"),
)


@pytest.fixture(autouse=True)
def _few_glyphs(monkeypatch) -> None:
    monkeypatch.setattr("srwm_agents.fewshot.data.glyphs.CLASSES", {"train": 30, "val": 12, "test": 12})


@pytest.fixture
def train(tmp_path):
    def call(*arguments: str, small: bool = True) -> int:
        return main(["train", f"--train_dir={tmp_path}", *(SMALL if small else ()), *arguments])

    return call


def trained(folder: Path) -> int:
    return load_classifier(folder).config.training["steps"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_classifier(folder).state_dict()


def test_train_then_evaluate(train, tmp_path, capsys) -> None:
    assert train("--preset=glyphs", "--train_steps=8") == 0
    folder = tmp_path / "glyphs"
    assert {"agent", "agent_best", "checkpoint.pt", "curves.csv", "learning_curve.png", "settings.json"} <= {
        file.name for file in folder.iterdir()
    }
    curves = pd.read_csv(folder / "curves.csv")
    assert curves["step"].tolist() == [4, 8]
    assert "evaluate it:  python -m srwm_agents fewshot eval" in capsys.readouterr().out
    arguments = ["eval", f"--train_dir={tmp_path}", "--experiment=glyphs", "--episodes=120", "--split=test"]
    assert main(arguments) == 0
    report = json.loads((folder / "evaluation" / "eval_test_1shot.json").read_text())
    assert report["core"] == "srwm"
    assert report["accuracy"][0]["episodes"] == 120
    assert {file.suffix for file in (folder / "evaluation").iterdir()} == {".json", ".csv", ".png"}
    first = report["curve"]
    assert main([*arguments, "--batch_size=50"]) == 0
    assert main(arguments) == 0
    assert json.loads((folder / "evaluation" / "eval_test_1shot.json").read_text())["curve"] == first


def test_resumed_training_is_the_same_as_uninterrupted(train, tmp_path) -> None:
    settings = ("--average_decay=0.9", "--lr_schedule=cosine", "--warmup_steps=2", "--dropout=0.1")
    assert train("--experiment=whole", "--train_steps=9", *settings) == 0
    assert train("--experiment=parts", "--train_steps=9", "--train_for_seconds=0", *settings) == 0
    stopped_at = torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)["step"]
    assert 0 < stopped_at < 9
    assert train("--experiment=parts", "--train_steps=9", *settings) == 0
    for name, tensor in weights(tmp_path / "whole" / "agent").items():
        torch.testing.assert_close(weights(tmp_path / "parts" / "agent")[name], tensor, rtol=0, atol=0)
    assert pd.read_csv(tmp_path / "parts" / "curves.csv")["step"].tolist() == [4, 8, 9]


@pytest.mark.slow
def test_time_ends_training_and_its_schedule(train, tmp_path) -> None:
    arguments = ("--experiment=x", "--train_steps=1000000", "--lr_schedule=cosine", "--validate_every=1000000")
    assert train(*arguments, "--train_seconds=0.5") == 0
    content = torch.load(tmp_path / "x" / "checkpoint.pt", weights_only=True)
    assert content["seconds"] >= 0.5
    assert content["history"][-1]["step"] == content["step"]  # the end is validated
    assert train(*arguments, "--train_seconds=0.5") == 0  # nothing left to do
    assert torch.load(tmp_path / "x" / "checkpoint.pt", weights_only=True)["step"] == content["step"]
    assert train(*arguments, "--train_seconds=2") == 0
    later = torch.load(tmp_path / "x" / "checkpoint.pt", weights_only=True)
    assert later["step"] > content["step"]
    # The last update's rate: the clock is looked at every other update, so the schedule is nearly over.
    assert float(later["optimizer"]["param_groups"][0]["lr"]) < 0.05 * Settings().learning_rate


def test_the_best_agent_is_chosen_on_validation_classes(train, tmp_path, monkeypatch) -> None:
    scores = iter([0.3, 0.7, 0.5])
    monkeypatch.setattr("srwm_agents.fewshot.training.validate", lambda *_: (next(scores), 0.01))
    assert train("--experiment=x", "--train_steps=12") == 0
    assert load_classifier(tmp_path / "x" / "agent_best").config.training["steps"] == 8
    assert load_classifier(tmp_path / "x" / "agent").config.training["steps"] == 12


def test_classifiers_that_a_kill_kept_from_being_saved_are_made_up_for(train, tmp_path, monkeypatch, capsys) -> None:
    """A checkpoint is saved first: no classifier is of updates that are lost, and none of its updates is missing."""
    save, scores = Experiment.save, iter([0.7, 0.5, 0.9])
    monkeypatch.setattr("srwm_agents.fewshot.training.validate", lambda *_: (next(scores), 0.01))

    def save_and_die(self: Experiment, content, history) -> None:
        save(self, content, history)
        if content["step"] in (4, 12):
            raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "save", save_and_die)
    assert train("--experiment=x", "--train_steps=12") == 130
    assert not (tmp_path / "x" / "agent").exists()
    assert train("--experiment=x", "--train_steps=12") == 130
    assert {kind: trained(tmp_path / "x" / kind) for kind in ("agent", "agent_best")} == {"agent": 8, "agent_best": 4}
    capsys.readouterr()
    assert train("--experiment=x", "--train_steps=12") == 0  # nothing is left to do
    assert {kind: trained(tmp_path / "x" / kind) for kind in ("agent", "agent_best")} == {"agent": 12, "agent_best": 12}
    assert "best on validation classes: 90.00 %" in capsys.readouterr().out


def test_what_is_not_there_is_not_named(train, tmp_path, capsys) -> None:
    assert train("--experiment=x", "--train_steps=9", "--train_for_seconds=0", "--validate_every=1000") == 0
    told = capsys.readouterr().out
    assert "agent_best" not in told
    assert "best on validation" not in told
    assert told.strip().endswith("--load_checkpoint_kind latest --experiment x")


def test_one_changed_bit_in_a_checkpoint_is_one_line(train, tmp_path, capsys) -> None:
    assert train("--experiment=x", "--train_steps=2") == 0
    checkpoint = tmp_path / "x" / "checkpoint.pt"
    whole = checkpoint.read_bytes()
    for position in (100, len(whole) // 3, len(whole) // 2, len(whole) - 100, len(whole) - 1):
        checkpoint.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert train("--experiment=x", "--train_steps=3") == 1
        error = capsys.readouterr().err
        assert "checkpoint.pt does not load (it is truncated or altered" in error
        assert error.count("\n") == 1
    checkpoint.write_bytes(whole)
    assert train("--experiment=x", "--train_steps=3") == 0


def test_a_signal_saves_and_stops(train, tmp_path, monkeypatch, capsys) -> None:
    update = Trainer.update

    def interrupted(self: Trainer) -> None:
        update(self)
        if self.step == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "update", interrupted)
    assert train("--experiment=x", "--train_steps=100") == 130
    assert "stopped by a signal at update 3, saved" in capsys.readouterr().err
    assert torch.load(tmp_path / "x" / "checkpoint.pt", weights_only=True)["step"] == 3


def test_a_checkpoint_without_a_newer_setting_resumes(train, tmp_path, capsys) -> None:
    assert train("--experiment=x", "--train_steps=4") == 0
    checkpoint = tmp_path / "x" / "checkpoint.pt"
    content = torch.load(checkpoint, weights_only=True)
    del content["settings"]["state_decay"]
    torch.save(content, checkpoint)
    assert train("--experiment=x", "--train_steps=8", "--state_decay=0.9") == 1
    assert "was trained with state_decay 1.0, not 0.9" in capsys.readouterr().err
    assert train("--experiment=x", "--train_steps=8") == 0
    assert torch.load(checkpoint, weights_only=True)["step"] == 8


def test_a_broken_or_lost_checkpoint_never_means_starting_over(train, tmp_path, capsys) -> None:
    assert train("--experiment=x", "--train_steps=4") == 0
    assert train("--experiment=x", "--train_steps=4", "--shots=2") == 1
    assert "was trained with shots 1, not 2" in capsys.readouterr().err
    checkpoint = tmp_path / "x" / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    assert train("--experiment=x", "--train_steps=4") == 1
    assert "checkpoint.pt does not load" in capsys.readouterr().err
    checkpoint.unlink()
    assert train("--experiment=x", "--train_steps=4") == 1
    assert "holds agent but no checkpoint" in capsys.readouterr().err
    load_classifier(tmp_path / "x" / "agent")
    assert train("--experiment=x", "--train_steps=4", "--restart_behavior=overwrite") == 0


def test_a_loss_that_is_not_finite_ends_training(train, tmp_path, capsys) -> None:
    assert train("--experiment=x", "--learning_rate=1e30", "--max_grad_norm=0", "--train_steps=50") == 1
    error = capsys.readouterr().err
    assert "the loss is" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--core=rnn"], "invalid choice: 'rnn'"),
        (["--preset=imagenet"], "invalid choice: 'imagenet'"),
        (["--learning_rat=1"], "unknown flag --learning_rat, did you mean --learning_rate?"),
        (["--experiment=x", "--dataset=moons"], "unknown data set 'moons', allowed: glyphs, omniglot"),
        (["--experiment=x", "--dataset=glyphs,glyphs"], "task few_shot takes 1 data set(s)"),
        (["--experiment=x", "--train_seconds=0"], "train_seconds is 0.0, expected above 0"),
        (["--experiment=x", "--augment_crop=1.5"], "augment_crop is 1.5, expected above 0 and at most 1"),
        (["--experiment=x", "--augment_colour=-1"], "augment_colour is -1.0, expected from 0 to 1"),
        (["--experiment=x", "--label_scale=0"], "label_scale is 0.0, expected above 0"),
        (["--experiment=x", "--ways=1"], "ways is 1, expected at least 2"),
        (["--experiment=x", "--gradient_accumulation=3"], "batch_size is 4, expected a multiple of"),
        (["--experiment=x", "--dataset=omniglot", "--data-dir=/no/such/place"], "/no/such/place, which does not exist"),
        (["--experiment=x", "--cuda_graph"], "cuda_graph needs one process on a CUDA device"),
        (["--experiment=x", "--device=tpu"], "--device is 'tpu', which PyTorch cannot use here"),
        (["--experiment=x", "--compile=maybe"], "'maybe' is neither True nor False"),
        ([], "name the experiment"),
    ],
)
def test_wrong_input_is_a_one_line_error(train, capsys, tmp_path, arguments, message: str) -> None:
    try:
        status = train(*arguments)
    except SystemExit as stop:
        status = stop.code
    assert status not in (0, None)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_evaluation_names_what_is_wrong(tmp_path, capsys) -> None:
    for arguments, message in (
        ([], "name one of --experiment and --agent"),
        (["--experiment=none"], "no experiment 'none'"),
        ([f"--agent={tmp_path}"], "model.safetensors is missing"),
        ([f"--agent={tmp_path}", "--episodes=0"], "--episodes is 0, expected at least 1"),
    ):
        assert main(["eval", f"--train_dir={tmp_path}", *arguments]) == 1
        assert message in capsys.readouterr().err


def test_settings_and_presets_have_the_values_that_they_had_when_they_were_written_out() -> None:
    """Settings that every core takes are made from the cores' own; those that are new here have the cores' defaults."""
    before = json.loads(Path(__file__).with_name("settings_before.json").read_text())
    now = {f.name: f.default for f in dataclasses.fields(Settings)}
    new = {
        "beta_bias": 0.0,
        "state_limit": 0.0,
        "detach_state_every_step": False,
        "rollout_length": 50,
        "trace_size": 32,
        "context_size": 4,
    }
    folders = {name: str(value) for name, value in now.items() if name.endswith("_dir")}
    assert now | folders == before["defaults"] | new
    presets = load_recipes("fewshot")
    assert presets.pop("folder")["dataset"] == "folder"  # which came later
    assert presets == before["presets"]
    for preset in (*load_recipes("fewshot").values(), load_recipe("fewshot", "_default")):
        Settings(**preset)


def test_every_setting_of_the_core_reaches_it(train, tmp_path) -> None:
    changes = {"query_scale": 0.5, "state_decay": 0.9, "state_limit": 5.0, "input_softmax": True, "backend": "naive"}
    flags = [f"--{name}={value}" for name, value in changes.items()]
    assert train("--experiment=x", "--train_steps=2", *flags) == 0
    config = load_classifier(tmp_path / "x" / "agent").core.config
    assert changes.items() <= vars(config).items()
    assert (config.hidden_size, config.beta_mean, config.input_norm) == (8, -1.0, True)
    # What the state may grow to, and the backend, are no part of what was learned; the rest is.
    assert train("--experiment=x", "--train_steps=3", *flags, "--state_limit=6", "--backend=auto") == 0
    assert train("--experiment=x", "--train_steps=3", *flags, "--query_scale=1") == 1


def test_preparing_says_what_to_get_and_under_which_licence(tmp_path, capsys, lay_out, png) -> None:
    files = {f"mini-imagenet/val/n0{c}/{i}.png": png(9) for c in range(2) for i in range(2)}
    where = [f"--data_dir={lay_out(files)}", f"--cache_dir={tmp_path / 'cache'}"]
    assert main(["data", "prepare", *where]) == 0
    out = capsys.readouterr().out
    assert "mini-imagenet val: 2 classes, 4 images of 3×84×84" in out
    assert "no omniglot in" in out
    assert "MIT, (c) 2015 Brenden Lake" in out
    assert main(["data", "prepare", "--dataset=omniglot", *where]) == 1
    assert main(["data", "prepare", "--dataset=mnist", *where]) == 1
    assert "unknown data set 'mnist'" in capsys.readouterr().err


def test_help_has_defaults_and_imports_nothing_heavy(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    assert stop.value.code == 0
    assert "Of Adam, at its highest; > 0 (default: 0.001)" in " ".join(capsys.readouterr().out.split())
    assert srwm_agents_main(["--help"]) == 0
    assert "fewshot" in capsys.readouterr().out
    assert srwm_agents_main(["fewshoot"]) == 1
    assert "unknown command 'fewshoot', allowed: " in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_train_one_model_and_resume(tmp_path, lay_out, png) -> None:
    images = {
        f"{split}/c{c}/{i}.png": png(40 * c + i) for split in ("train", "val") for c in range(6) for i in range(4)
    }
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "srwm_agents"),
        *("fewshot", "train", "--experiment=x", f"--train_dir={tmp_path}", *SMALL, "--gradient_accumulation=2"),
        *("--dataset=folder", f"--data_dir={lay_out(images)}", f"--cache_dir={tmp_path / 'cache'}"),
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run([*command, "--train_steps=4"], env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("evaluate it:") == 1
    assert load_classifier(tmp_path / "x" / "agent").config.training["steps"] == 4


def test_time_ends_training_however_rarely_the_loss_is_looked_at(train) -> None:
    began = time.monotonic()
    seldom = ["--train_steps=1000000", "--log_every=1000000", "--validate_every=1000000"]
    assert train("--experiment=x", *seldom, "--train_for_seconds=1") == 0
    assert time.monotonic() - began < 60
