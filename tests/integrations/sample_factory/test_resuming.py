"""An experiment's later starts: what was asked for stays, what follows from it and from the machine is derived anew."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from srwm_agents.integrations.sample_factory.arguments import parse_train_args
from srwm_agents.integrations.sample_factory.config import ConfigError, experiment_folder, finish_config, save_config

EARLIER = Path(__file__).parent / "earlier"
"""``config.json`` of experiments that were begun when it held a whole configuration, on machines of 16 cores."""
FAST = ["--preset=fast", "--games=starpilot"]
ENGINE = ("device", "compile", "cuda_graphs", "in_process", "serial_mode", "actor_worker_gpus", "env_threads")


@pytest.fixture
def on_machine(monkeypatch):
    """Go on on a machine with or without a GPU, with so many cores."""

    def go(cuda: bool, cores: int = 16) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)

    go(cuda=False)
    return go


@pytest.fixture
def start(tmp_path, on_machine):
    """Flags -> the configuration of a start of an experiment, which is saved as training saves it."""

    def begin(*flags: str, experiment: str = "e", train_dir: Path = tmp_path):
        cfg = finish_config(parse_train_args([*flags, f"--train_dir={train_dir}", f"--experiment={experiment}"]))
        save_config(cfg)
        return cfg

    return begin


def settings(cfg) -> dict:
    """A configuration without what says how it came about."""
    history = ("request", "given", "cli_args", "command_line", "experiment")
    return {name: value for name, value in cfg.items() if name not in history}


@pytest.mark.parametrize("cuda", [False, True])
def test_an_experiment_uses_the_machine_that_it_is_resumed_on(start, on_machine, cuda: bool) -> None:
    on_machine(cuda=cuda)
    begun = start(*FAST)
    on_machine(cuda=not cuda, cores=6)
    resumed, fresh = start(*FAST), start(*FAST, experiment="other")
    assert settings(resumed) == settings(fresh)
    assert begun.in_process == cuda
    assert resumed.in_process != cuda
    assert resumed.env_threads == (2 if resumed.in_process else 3)
    on_machine(cuda=cuda)
    assert settings(start(*FAST)) == settings(begun)


def test_what_was_asked_of_the_machine_is_asked_of_the_next_one_too(start, on_machine) -> None:
    asked = ["--device=cpu", "--compile=True", "--env_threads=3"]
    start(*FAST, *asked)
    on_machine(cuda=True, cores=4)
    resumed = start(*FAST)
    assert [resumed[name] for name in ENGINE] == ["cpu", True, False, False, False, [], 3]
    assert start(*FAST, "--device=auto").device == "gpu"
    on_machine(cuda=False)
    start(*FAST, "--device=cpu")
    with pytest.raises(ConfigError, match="--device is 'gpu', but PyTorch sees no CUDA device; use --device=cpu"):
        start(*FAST, "--device=gpu")


@pytest.mark.parametrize(
    "flags",
    [
        ["--rollout=16"],
        ["--worker_num_splits=4"],
        ["--num_envs_per_worker=384"],
        ["--rollout=64", "--num_envs_per_worker=96", "--worker_num_splits=1"],
        ["--reward_scale=2", "--serial_mode=True"],
    ],
)
def test_a_flag_does_on_resume_what_it_does_on_a_fresh_start(start, flags: list[str]) -> None:
    start(*FAST)
    fresh = start(*FAST, *flags, experiment="other")
    assert settings(start(*FAST, *flags)) == settings(fresh)
    assert settings(start(*FAST)) == settings(fresh), "and is remembered"


def test_only_what_was_asked_for_is_saved(start, tmp_path) -> None:
    cfg = start(*FAST, "--restart_behavior=overwrite", "--learning_rate=0.5")
    saved = json.loads((tmp_path / "e" / "config.json").read_text())
    assert saved.keys() == {"command_line", "given", "request"}
    assert saved["given"] == ["games", "learning_rate"]
    request = saved["request"]
    assert not {"train_dir", "experiment", "restart_behavior", "vector_size"} & request.keys()
    assert (request["preset"], request["learning_rate"], request["num_envs_per_worker"]) == ("fast", 0.5, 768)
    assert (request["device"], request["recurrence"], request["env_threads"]) == ("auto", -1, -1)
    assert cfg.restart_behavior == "overwrite"
    assert start(*FAST).restart_behavior == "resume", "what deletes comes from this command line only"
    assert list((tmp_path / "e").iterdir()) == [tmp_path / "e" / "config.json"]


def test_a_whole_configuration_as_json_is_a_saved_request_too(start, on_machine, tmp_path) -> None:
    cfg = start(*FAST)
    (tmp_path / "e" / "config.json").write_text(json.dumps(cfg))
    assert settings(start(*FAST)) == settings(cfg)


def test_another_preset_is_refused(start, tmp_path) -> None:
    begun = start("--preset=demo")
    assert settings(start()) == settings(start("--preset=demo")) == settings(begun)
    with pytest.raises(ConfigError, match="--preset is 'memory', but experiment 'e' was begun with 'demo'") as error:
        start("--preset=memory")
    assert "\n" not in str(error.value)
    start("--games=starpilot", experiment="plain")
    with pytest.raises(ConfigError, match="--preset is 'fast', but experiment 'plain' was begun without one"):
        start("--preset=fast", experiment="plain")
    assert start("--preset=memory", "--restart_behavior=restart").distribution_mode == "memory"


def test_a_presets_values_are_those_that_the_experiment_was_begun_with(start, tmp_path) -> None:
    """A later version may have others."""
    start(*FAST)
    file = tmp_path / "e" / "config.json"
    saved = json.loads(file.read_text())
    saved["request"]["learning_rate"] = 0.125
    del saved["request"]["vtrace_lambda"]
    file.write_text(json.dumps(saved))
    resumed = start(*FAST)
    assert resumed.learning_rate == 0.125
    assert resumed.vtrace_lambda == 1, "older than the setting: as it was before there was a choice"


def test_presets_of_the_users_own(start, tmp_path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: fast\nsettings: {games: starpilot, learning_rate: 2e-4, train_for_env_steps: 100}\n")
    begun = start(f"--preset={mine}", "--train_for_env_steps=200")
    assert (begun.learning_rate, begun.train_for_env_steps, begun.rollout) == (2e-4, 200, 32)
    moved = mine.rename(tmp_path / "moved.yaml")
    assert settings(start(f"--preset={moved}")) == settings(start()) == settings(begun)
    with pytest.raises(ConfigError, match=r"--preset is 'fast', but experiment 'e' was begun with '.*mine\.yaml'"):
        start(*FAST)
    moved.write_text("base: fast\nsettings: {games: starpilot, learning_rate: 3e-4}\n")
    with pytest.raises(ConfigError, match=r"learning_rate is 0\.0003 in --preset=.*moved\.yaml, but .* with 0\.0002"):
        start(f"--preset={moved}")
    assert start(f"--preset={moved}", "--learning_rate=3e-4").learning_rate == 3e-4


@pytest.mark.parametrize("how", ["move", "copytree"])
def test_an_experiment_is_resumed_where_it_lies(on_machine, tmp_path, monkeypatch, how: str) -> None:
    """With the default --train_dir, a folder of the current one."""

    def start_in(folder: Path, experiment: str):
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        cfg = finish_config(parse_train_args([*FAST, f"--experiment={experiment}"]))
        save_config(cfg)
        return cfg

    begun = start_in(tmp_path / "here", "e")
    getattr(shutil, how)(tmp_path / "here" / "train_dir" / "e", tmp_path / "there" / "train_dir" / "renamed")
    there = start_in(tmp_path / "there", "renamed")
    assert experiment_folder(there) == tmp_path / "there" / "train_dir" / "renamed"
    assert settings(there) == settings(begun) | {"train_dir": str(tmp_path / "there" / "train_dir")}


def test_the_same_architecture_may_be_spelt_in_other_ways(start) -> None:
    start("--games=starpilot, leaper", "--use_rnn=False", "--num_envs_per_worker=64")
    resumed = start("--games=starpilot,leaper", "--core=feedforward")
    assert (resumed.core, resumed.games, resumed.use_rnn) == ("feedforward", "starpilot,leaper", True)
    assert start("--games= starpilot,leaper").games == "starpilot,leaper"
    with pytest.raises(ConfigError, match="--games is 'leaper', but experiment 'e' was begun with 'starpilot,leaper'"):
        start("--games=leaper")


def test_engines_follow_the_flags_of_the_latest_start(start) -> None:
    def engine(*flags: str) -> tuple[bool, bool]:
        cfg = start(*FAST, *flags)
        return cfg.in_process, cfg.serial_mode

    assert engine("--in_process=True", "--serial_mode=False") == (True, True)
    assert engine() == (True, True)
    assert engine("--serial_mode=True") == (False, True)
    assert engine() == (False, True)
    assert engine("--in_process=True") == (True, True)
    assert engine("--in_process=False", "--serial_mode=False") == (False, False)


def test_what_a_command_imposes_is_not_saved(tmp_path, on_machine) -> None:
    on_machine(cuda=True)
    args = parse_train_args([*FAST, f"--train_dir={tmp_path}", "--experiment=e"])
    cfg = finish_config(args, in_process=False)
    assert not cfg.in_process
    assert cfg.request["in_process"]


def test_settings_of_wandb_and_other_commands_stay(start, tmp_path) -> None:
    cfg = start(*FAST)
    cfg["wandb_unique_id"] = "e_1"
    cfg.request["worker_cpus"] = 2.0
    save_config(cfg)
    for _ in range(2):
        resumed = start(*FAST)
        assert (resumed.wandb_unique_id, resumed.worker_cpus) == ("e_1", 2.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"request":', "is no JSON"),
        ("[]", "is no JSON object"),
        ('{"request": {"rollout": 8}}', "has no 'request' with settings and 'given' with flags"),
        ('{"request": 3, "given": []}', "has no 'request' with settings and 'given' with flags"),
    ],
)
def test_a_damaged_request_is_named(start, tmp_path, text: str, message: str) -> None:
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        start(*FAST)


class TestExperimentsOfEarlierVersions:
    @pytest.fixture
    def earlier(self, tmp_path):
        def put(name: str) -> None:
            (tmp_path / "e").mkdir()
            shutil.copy(EARLIER / f"{name}.json", tmp_path / "e" / "config.json")

        return put

    @pytest.mark.parametrize("cuda", [False, True])
    def test_begun_on_a_cpu(self, start, earlier, on_machine, cuda: bool) -> None:
        """That one was begun with --restart_behavior=overwrite, in another folder."""
        earlier("begun_on_cpu")
        on_machine(cuda, cores=4)
        flags = ["--preset=fast", "--games=starpilot,leaper"]
        resumed, fresh = start(*flags), start(*flags, experiment="other")
        # Its preset had written lambda as a clip, and goes on as it was.
        assert settings(resumed) == settings(fresh) | {"vtrace_c": 0.95, "vtrace_lambda": 1.0}
        assert settings(start()) == settings(resumed)

    @pytest.mark.parametrize("cuda", [False, True])
    def test_begun_on_a_gpu_with_flags(self, start, earlier, on_machine, cuda: bool) -> None:
        earlier("begun_on_gpu")
        on_machine(cuda, cores=4)
        flags = ["--preset=six_games", "--learning_rate=1e-4", "--compile=False", "--reward_treatment=return_norm",
                 "--num_workers=4"]  # fmt: skip
        # What the preset had; it goes on with that.
        before = ["--num_envs_per_worker=768", "--worker_num_splits=2", "--rollout=32", "--batch_size=1536",
                  "--num_batches_per_epoch=8", "--max_pending_iterations=-1", "--spread_starts=0",
                  "--game_value_coeffs="]  # fmt: skip
        resumed, fresh = start(), start(*flags, *before, experiment="other")
        assert settings(resumed) == settings(fresh) | {"vtrace_c": 0.95, "vtrace_lambda": 1.0}
        assert resumed.compile is False
        assert resumed.device == ("gpu" if cuda else "cpu")
        assert start("--worker_num_splits=1", "--num_envs_per_worker=1536").vector_size == 1536

    @pytest.mark.parametrize("cuda", [False, True])
    def test_with_every_kind_of_flag(self, start, earlier, on_machine, cuda: bool) -> None:
        earlier("with_flags")
        on_machine(cuda, cores=4)
        resumed = start("--preset=demo")
        assert [resumed[name] for name in ENGINE] == ["cpu", False, False, True, True, [1], 3]
        assert (resumed.rollout, resumed.recurrence) == (32, 32)
        assert start("--rollout=16").recurrence == 16
        with pytest.raises(ConfigError, match="--preset is 'fast', but experiment 'e' was begun with 'demo'"):
            start("--preset=fast")
        with pytest.raises(ConfigError, match="--hidden_size is 128, but experiment 'e' was begun with 64"):
            start("--hidden_size=128")

    def test_from_before_there_was_a_choice(self, start, earlier, tmp_path) -> None:
        earlier("begun_on_cpu")
        file = tmp_path / "e" / "config.json"
        saved = json.loads(file.read_text())
        for name in ("popart", "critic", "reward_treatment", "unit_keys", "state_decay", "cli_args", "preset"):
            del saved[name]
        file.write_text(json.dumps(saved))
        resumed = start()
        assert (resumed.popart, resumed.critic, resumed.unit_keys, resumed.state_decay) == (False, "shared", False, 1.0)
        for flag, before in (
            ("--popart=True", "False"),
            ("--state_decay=0.5", "1.0"),
            ("--reward_treatment=none", "'clip'"),
        ):
            with pytest.raises(ConfigError, match=f"but experiment 'e' was begun with {before}"):
                start(flag)
