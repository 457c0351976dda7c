"""Our cores in a Sample Factory program of one's own, with its own environment, encoder and learner."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from srwm_agents.cores import CORES
from srwm_agents.integrations.sample_factory import (
    ConfigError,
    add_core_arguments,
    finish_core_config,
    register_core,
)
from srwm_agents.integrations.sample_factory.core import make_model_core
from srwm_agents.integrations.sample_factory.runner import environment_info

# Sample Factory prints a line for each of these at import; ours is imported first to keep gym quiet.
from sample_factory.algo.learning.rnn_utils import build_core_out_from_seq, build_rnn_inputs  # isort: skip
from sample_factory.algo.runners import runner  # isort: skip
from sample_factory.algo.utils.context import global_model_factory, reset_global_context, sf_global_context  # isort: skip
from sample_factory.algo.utils.misc import ExperimentStatus  # isort: skip
from sample_factory.cfg.arguments import parse_full_cfg, parse_sf_args  # isort: skip
from sample_factory.envs.env_utils import register_env  # isort: skip
from sample_factory.model.model_utils import get_rnn_size  # isort: skip
from sample_factory.train import run_rl  # isort: skip

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples/sample_factory_cartpole.py"
SMALL = ["--hidden_size=16", "--num_layers=1", "--num_heads=2", "--ff_size=16"]
ENGINE = [
    *("--device=cpu", "--serial_mode=True", "--async_rl=False", "--seed=0", "--num_workers=1"),
    *("--num_envs_per_worker=4", "--worker_num_splits=1", "--rollout=8", "--batch_size=32", "--train_for_env_steps=64"),
    *("--encoder_mlp_layers", "8"),
]


@pytest.fixture(autouse=True)
def _sample_factory_of_this_test(monkeypatch):
    """Without our Procgen factories, which other tests register; the environment's spaces without a process."""
    monkeypatch.setattr(runner, "obtain_env_info_in_a_separate_process", environment_info)
    factory, environments = vars(global_model_factory()).copy(), sf_global_context().env_registry.copy()
    reset_global_context()
    yield
    reset_global_context()
    vars(global_model_factory()).update(factory)
    sf_global_context().env_registry.update(environments)


@pytest.fixture
def enjoy() -> Any:
    """Sample Factory's replay of a trained policy."""
    reason = "sample_factory.enjoy needs huggingface_hub < 1.0, whose Repository it imports"
    return pytest.importorskip("sample_factory.enjoy", reason=reason, exc_type=ImportError).enjoy


@pytest.fixture
def parse(tmp_path):
    """Flags -> what Sample Factory's parser makes of them, not yet finished."""

    def parse(*flags: str, evaluation: bool = False) -> Any:
        argv = ["--env=own", f"--train_dir={tmp_path}", "--experiment=e", *flags]
        parser, _ = parse_sf_args(argv, evaluation=evaluation)
        add_core_arguments(parser)
        return parse_full_cfg(parser, argv)

    return parse


class Own(gymnasium.Env):
    """An environment of one's own, with episodes of three steps."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert np.shape(action) == np.shape(self.action_space.sample())
        self.steps += 1
        return self.observation_space.sample(), 1.0, self.steps == 3, False, {}


VECTOR = spaces.Box(-1, 1, (3,), np.float32)
DICT = spaces.Dict({"obs": spaces.Box(-1, 1, (3,), np.float32), "goal": spaces.Box(-1, 1, (2,), np.float32)})
IMAGE = spaces.Box(0, 255, (3, 64, 64), np.uint8)
DISCRETE = spaces.Discrete(3)
CONTINUOUS = spaces.Box(-1, 1, (2,), np.float32)


def train(cfg: Any, observations: spaces.Space, actions: spaces.Space) -> None:
    register_env("own", lambda name, cfg=None, env_config=None, render_mode=None: Own(observations, actions))
    register_core()
    assert run_rl(cfg) == ExperimentStatus.SUCCESS


@pytest.mark.parametrize("core", CORES)
def test_sample_factory_sizes_its_buffers_by_the_core(core: str, parse) -> None:
    cfg = finish_core_config(parse(f"--core={core}", *SMALL))
    module = make_model_core(cfg, 5)
    assert get_rnn_size(cfg) == max(1, module.core.state_size)
    assert module.get_out_size() == 16
    assert (cfg.core, cfg.use_rnn, cfg.recurrence) == (core, True, cfg.rollout)


def test_defaults_of_the_program_are_the_programs(tmp_path) -> None:
    argv = ["--env=own", f"--train_dir={tmp_path}", "--experiment=e", "--num_heads=4"]
    parser, _ = parse_sf_args(argv)
    add_core_arguments(parser)
    parser.set_defaults(core="delta", hidden_size=32, num_heads=2)
    cfg = finish_core_config(parse_full_cfg(parser, argv))
    assert (cfg.core, cfg.hidden_size, cfg.num_heads) == ("delta", 32, 4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_heads=3"], r"--core=srwm: .*num_heads"),
        (["--state_decay=2"], "state_decay is 2.0, expected above 0 and at most 1"),
        (["--rnn_size=64"], "--rnn_size follows from the core .* --hidden_size"),
        (["--rnn_type=lstm"], "--rnn_type follows from the core"),
        (["--use_rnn=False", "--core=lstm"], "--use_rnn=False means --core=feedforward, but --core is 'lstm'"),
        (["--actor_critic_share_weights=False"], "--actor_critic_share_weights is False, allowed: True"),
        (["--recurrence=5"], "--recurrence is 5, expected -1 or a divisor of --rollout = 32, at least 2"),
        (["--recurrence=1"], "--recurrence is 1, expected"),
        (["--rollout=1"], "--rollout is 1, expected at least 2"),
        (["--recurrence=16", "--with_vtrace=True"], "--recurrence is 16, expected --rollout = 32 with V-trace"),
    ],
)
def test_a_wrong_setting_is_one_line(flags: list[str], message: str, parse) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        finish_core_config(parse(*flags))
    assert "\n" not in str(error.value)


def test_no_rnn_is_the_feed_forward_core(parse) -> None:
    cfg = finish_core_config(parse("--use_rnn=False"))
    assert (cfg.core, cfg.use_rnn, cfg.rnn_size) == ("feedforward", True, 1)


def test_forgotten_calls_are_named(parse, tmp_path) -> None:
    argv = ["--env=own", f"--train_dir={tmp_path}", "--experiment=e"]
    parser, _ = parse_sf_args(argv)
    with pytest.raises(ConfigError, match="call add_core_arguments"):
        finish_core_config(parse_full_cfg(parser, argv))
    with pytest.raises(ConfigError, match="call finish_core_config"):
        make_model_core(parse(*SMALL), 5)


def test_only_the_core_is_registered() -> None:
    before = vars(global_model_factory()).copy()
    environments = dict(sf_global_context().env_registry)
    register_core()
    after = vars(global_model_factory())
    assert {name for name in after if after[name] is not before[name]} == {"make_model_core_func"}
    assert sf_global_context().env_registry == environments


@pytest.mark.parametrize(
    ("observations", "actions", "flags"),
    [
        (VECTOR, DISCRETE, ["--core=srwm"]),
        (VECTOR, DISCRETE, ["--core=feedforward", "--batched_sampling=False", "--recurrence=4"]),
        (DICT, CONTINUOUS, ["--core=delta", "--batched_sampling=False"]),
        (DICT, CONTINUOUS, ["--core=srwm", "--batched_sampling=True", "--recurrence=2"]),
        (IMAGE, spaces.Tuple([DISCRETE, DISCRETE]), ["--core=lstm"]),
    ],
)
def test_training_saving_and_replaying(observations, actions, flags: list[str], parse, enjoy) -> None:
    flags = [*SMALL, *ENGINE, *flags]
    train(finish_core_config(parse(*flags)), observations, actions)
    replay = finish_core_config(parse("--no_render", "--max_num_episodes=2", "--device=cpu", evaluation=True))
    status, mean = enjoy(replay)
    assert (status, mean) == (ExperimentStatus.SUCCESS, 3)


def test_a_resumed_experiment_keeps_its_core(parse) -> None:
    flags = ["--core=delta", *SMALL, *ENGINE]
    train(finish_core_config(parse(*flags)), VECTOR, DISCRETE)
    saved = finish_core_config(parse(*ENGINE))
    assert (saved.core, saved.hidden_size, saved.recurrence) == ("delta", 16, 8)
    for flag, message in (
        ("--hidden_size=32", "--hidden_size is 32, but --experiment=e has 16"),
        ("--core=lstm", "--core is 'lstm', but --experiment=e has 'delta'"),
        ("--use_rnn=False", "--core is 'feedforward', but --experiment=e has 'delta'"),
        ("--rollout=6", "--recurrence is 8, expected -1 or a divisor of --rollout = 6"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            finish_core_config(parse(*ENGINE, flag))
    assert finish_core_config(parse("--hidden_size=32", "--restart_behavior=overwrite")).hidden_size == 32
    train(finish_core_config(parse("--train_for_env_steps=128", "--backend=naive")), VECTOR, DISCRETE)


def test_an_experiment_without_a_core_is_not_resumed(parse, tmp_path) -> None:
    (tmp_path / "e").mkdir()
    (tmp_path / "e/config.json").write_text('{"rnn_size": 512}')
    with pytest.raises(ConfigError, match="'e', which was trained without --core"):
        finish_core_config(parse())
    (tmp_path / "e/config.json").write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        finish_core_config(parse())


@pytest.mark.parametrize("core", CORES)
def test_learning_sees_the_states_of_acting(core: str, parse) -> None:
    """Sample Factory's packed sequences, cut at episode ends, give what acting gave, with its states zeroed there."""
    cfg = finish_core_config(parse(f"--core={core}", *SMALL, "--rollout=7"))
    torch.manual_seed(0)
    module = make_model_core(cfg, 5).double().eval()
    batch, steps = 4, 7
    x = torch.randn(batch, steps, 5, dtype=torch.float64)
    dones = torch.rand(batch, steps) < 0.3
    state = torch.randn(batch, cfg.rnn_size, dtype=torch.float64) * 0.1
    if core == "srwm_no_carry":
        state.zero_()  # its state has a step counter
    states, outputs = [], []
    with torch.no_grad():
        for t in range(steps):
            states.append(state)
            out, state = module(x[:, t], state)
            outputs.append(out)
            state = state * ~dones[:, t, None]
        packed, first, inverse = build_rnn_inputs(
            x.flatten(0, 1), dones.flatten().float(), torch.stack(states, 1).flatten(0, 1), steps
        )
        learned = build_core_out_from_seq(module(packed, first)[0], inverse)
    torch.testing.assert_close(learned, torch.stack(outputs, 1).flatten(0, 1), rtol=1e-9, atol=1e-9)


PROBE = """
import sys
for name in ("procgen", "rich", "pandas", "scipy", "matplotlib", "imageio", "av"):
    sys.modules[name] = None  # an import of it fails
from srwm_agents.integrations.sample_factory import register_core
register_core()
loaded = [name for name in sys.modules if name.startswith("srwm_agents.")]
foreign = ("envs.procgen", "envs.single", "agent", "encoders", "learning", "integrations.sample_factory.model")
assert not {f"srwm_agents.{name}" for name in foreign} & set(loaded), loaded
"""


def test_the_cores_need_sample_factory_only() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", PROBE], check=True, timeout=60, env=environment)


def test_without_sample_factory_one_line_names_the_extra() -> None:
    code = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'sample_factory' else find(name, *rest)\n"
        "from srwm_agents.integrations.sample_factory import register_core\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    last = ran.stderr.strip().splitlines()[-1]
    assert last.endswith("sample_factory is not installed; install with: pip install 'srwm-agents[train]'")


def test_the_page_shows_the_example() -> None:
    text = EXAMPLE.read_text()
    assert f"```python\n{text}```\n" in (ROOT / "docs/integrations.md").read_text()
    assert len(text.splitlines()) <= 40


@pytest.mark.slow
@pytest.mark.usefixtures("enjoy")
def test_the_example_trains_saves_and_replays(tmp_path) -> None:
    def run(command: str, *flags: str) -> str:
        words = [sys.executable, str(EXAMPLE), command, "--env=masked_cartpole", "--experiment=cartpole", *flags]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        ran = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=120, env=environment)
        assert ran.returncode == 0, ran.stderr[-3000:]
        return ran.stdout

    run("train", "--train_for_env_steps=3000", "--seed=0")
    assert list((tmp_path / "train_dir/cartpole/checkpoint_p0").glob("checkpoint_*.pth"))
    mean = float(re.findall(r"\(0, ([\d.]+)\)", run("enjoy", "--no_render", "--max_num_episodes=10"))[-1])
    assert mean > 15
