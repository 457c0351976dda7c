"""Flags and settings: presets, overrides, derived values, and one-line errors."""

from __future__ import annotations

import json
import re
from dataclasses import FrozenInstanceError, fields

import pytest
import torch

import train_rl
from srwm_agents.command_help import Shown, described
from srwm_agents.command_help import shown as level
from srwm_agents.cores import CORES, CoreConfig
from srwm_agents.integrations.sample_factory.arguments import make_parser, parse_train_args
from srwm_agents.integrations.sample_factory.checks import RANGES
from srwm_agents.integrations.sample_factory.config import ConfigError, finish_config
from srwm_agents.integrations.sample_factory.deriving import Machine, derive
from srwm_agents.integrations.sample_factory.request import request_of
from srwm_agents.integrations.sample_factory.training import reason_of
from srwm_agents.recipes import load_recipe, load_recipes

from sample_factory.model.model_utils import get_rnn_size  # isort: skip


PRESETS = load_recipes("training")
DERIVED = {"num_envs_per_worker", "max_pending_iterations", *load_recipe("training", "_on_gpu")}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_consistent(preset: str, tmp_path) -> None:
    if preset == "popgym":
        pytest.importorskip("popgym")
    cfg = finish_config(parse_train_args([f"--preset={preset}", f"--train_dir={tmp_path}", "--device=cpu"]))
    for name, value in PRESETS[preset].items():
        assert cfg.request[name] == value if name != "experiment" else cfg.experiment == value, name
        clips = name != "reward_clip" or cfg.reward_treatment == "clip"
        if name not in DERIVED and clips:
            assert cfg[name] == value, name


def test_a_presets_settings_of_games_go_with_those_that_are_played(tmp_path) -> None:
    flags = ["--preset=six_games", f"--train_dir={tmp_path}", "--device=cpu"]
    cfg = finish_config(parse_train_args([*flags, "--games=maze,starpilot"]))
    assert (cfg.game_gammas, cfg.random_starts) == ("maze=.999", "maze=100")
    cfg = finish_config(parse_train_args([*flags, "--games=starpilot"]))
    assert (cfg.game_gammas, cfg.random_starts) == ("", "")
    with pytest.raises(ConfigError, match="--random_starts names 'maze', but --games are: starpilot"):
        finish_config(parse_train_args([*flags, "--games=starpilot", "--random_starts=maze=100"]))


def test_the_papers_settings() -> None:
    args = parse_train_args(["--preset=paper"])
    assert (args.rollout, args.batch_size, args.optimizer, args.learning_rate) == (50, 1600, "rmsprop", 6e-4)
    assert (args.lr_schedule, args.max_grad_norm, args.gamma, args.reward_clip) == ("linear_decay", 40, 0.99, 1)
    assert (args.hidden_size, args.num_layers, args.num_heads, args.ff_size) == (128, 2, 8, 512)


def test_flags_override_presets(tmp_path) -> None:
    args = parse_train_args(["--preset=demo", "--rollout=16", f"--train_dir={tmp_path}"])
    assert args.rollout == 16
    assert args.cli_args == {"preset": "demo", "rollout": 16, "train_dir": str(tmp_path)}


def test_only_the_clip_clips_where_games_are_played(make_cfg) -> None:
    """Actors scale and clip by Sample Factory's own flags; what is not to be clipped must leave them whole."""
    assert make_cfg().reward_clip == 1
    assert make_cfg("--reward_clip=3").reward_clip == 3
    for treatment in ("none", "return_norm"):
        assert make_cfg(f"--reward_treatment={treatment}", "--preset=fast", "--device=cpu").reward_clip == 1000


@pytest.mark.parametrize("core", CORES)
def test_sample_factory_sizes_its_buffers_by_the_cores_state(make_model, core: str) -> None:
    """get_rnn_size(cfg) is imported by name all over Sample Factory: only the flags behind it can say the size."""
    cfg, _, model = make_model(f"--core={core}")
    assert get_rnn_size(cfg) == max(1, model.core.core.state_size)


def test_environments_a_worker_are_split_into_vectors(make_cfg) -> None:
    cfg = make_cfg("--num_envs_per_worker=24", "--worker_num_splits=2", "--num_workers=1", "--batch_size=96")
    assert (cfg.vector_size, cfg.num_envs_per_worker) == (12, 2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--games=bigfsh"], "unknown game 'bigfsh'; did you mean 'bigfish'?"),
        (["--distribution_mode=memory"], "game 'starpilot' has no distribution_mode 'memory'"),
        (["--num_levels=-3"], "num_levels is -3"),
        (["--env=doom"], "--env is 'doom', allowed: procgen, or the id of a Gymnasium environment"),
        (["--hidden_size=15"], "hidden_size is 15, expected a multiple of num_heads = 2"),
        (["--rnn_size=64"], "--rnn_size follows from the core and cannot be set; use --core, --hidden_size"),
        (["--actor_critic_share_weights=False"], "--actor_critic_share_weights is False, allowed: True"),
        (["--critic=separate", "--popart=True"], "--popart=True does not go with --critic=separate, expected shared"),
        (["--critic=separate", "--with_vtrace=False"], "--critic=separate needs --with_vtrace=True"),
        (["--advantage_loss_coeff=-1"], "--advantage_loss_coeff is -1.0, expected at least 0"),
        (["--normalize_returns=True"], "--normalize_returns=True does not go with --with_vtrace=True"),
        (["--recurrence=4"], "--recurrence is 4, expected --rollout = 8"),
        (["--batch_size=30"], "--batch_size is 30, expected a multiple of --rollout = 8"),
        (["--num_envs_per_worker=6", "--worker_num_splits=2"], "expected a multiple of 2 (the number of games)"),
        (["--num_envs_per_worker=7"], "--num_envs_per_worker is 7, expected a multiple of --worker_num_splits = 2"),
        (["--batch_size=24", "--num_envs_per_worker=8"], "one must divide the other"),
        (["--use_rnn=False", "--core=srwm"], "--use_rnn=False means --core=feedforward"),
        (["--num_policies=2"], "--num_workers is 1, expected at least --num_policies = 2"),
        (["--num_workers=0"], "--num_workers is 0, expected at least 1"),
        (["--learning_rate=-1"], "--learning_rate is -1.0, expected at least 0"),
        (["--vtrace_lambda=1.5"], "--vtrace_lambda is 1.5, expected from 0 to 1"),
        (["--gamma=nan"], "--gamma is nan, expected from 0 to 1"),
        (["--num_envs_per_worker=0"], "--num_envs_per_worker is 0, expected at least 1"),
        (["--in_process=True", "--async_rl=False"], "--in_process=True needs --async_rl=True, but it is False"),
        (["--in_process=True", "--with_pbt=True"], "--in_process=True needs --with_pbt=False, but it is True"),
        (["--gamma=2"], "--gamma is 2.0, expected from 0 to 1"),
        (["--game_gammas=ninja=.9"], "--game_gammas names 'ninja', but --games are: "),
        (["--game_gammas=starpilot"], "--game_gammas is 'starpilot', expected GAME=DISCOUNT,"),
        (["--game_gammas=starpilot=2"], "--game_gammas has 2 for starpilot, expected from 0 to 1"),
        (
            ["--game_gammas=starpilot=1", "--reward_treatment=return_norm"],
            "--game_gammas is starpilot=1, expected discounts of at least 0 and below 1",
        ),
        (["--random_starts=maze=9"], "--random_starts names 'maze', but --games are: "),
        (["--random_starts=starpilot=.9"], "--random_starts is 'starpilot=.9', expected GAME=STEPS,"),
        (["--random_starts=starpilot=-9"], "--random_starts has -9 for starpilot, expected a whole number"),
        (["--random_starts=maze:9"], "--random_starts is 'maze:9', expected GAME=STEPS,"),
        (["--game_value_coeffs=starpilot=-1"], "--game_value_coeffs has -1 for starpilot, expected at least 0"),
        (["--game_value_coeffs=starpilot=inf"], "--game_value_coeffs has inf for starpilot, expected at least 0"),
        (["--game_value_coeffs=starpilot"], "--game_value_coeffs is 'starpilot', expected GAME=FACTOR,"),
        (["--game_gammas=starpilot=.9", "--with_vtrace=False"], "--game_gammas=starpilot=.9 needs --with_vtrace=True"),
        (
            ["--reward_treatment=none", "--reward_clip=2"],
            "--reward_clip is 2.0, but --reward_treatment=none does not clip",
        ),
        (
            ["--reward_treatment=return_norm", "--gamma=1"],
            "--gamma is 1.0, expected discounts of at least 0 and below 1",
        ),
        (["--reward_treatment=return_norm", "--with_vtrace=False"], "needs --with_vtrace=True, but it is False"),
        (["--popart=True", "--with_vtrace=False"], "--popart=True needs --with_vtrace=True"),
        (["--popart=True", "--balance_games=True"], "--popart=True does not go with --balance_games=True"),
        (["--popart_step_size=0"], "--popart_step_size is 0.0, expected above 0 and at most 1"),
        (["--augment_shift=64"], "--augment_shift is 64, expected from 0 to 63"),
        (["--augment_shift=-1"], "--augment_shift is -1, expected from 0 to 63"),
        (["--augment_shift=2", "--with_vtrace=False"], "--augment_shift=2 needs --with_vtrace=True"),
        (["--augment_consistency=0.1"], "--augment_consistency is 0.1, expected 0 while --augment_shift is 0"),
        (["--augment_shift=2", "--augment_consistency=-1"], "--augment_consistency is -1.0, expected at least 0"),
    ],
)
def test_settings_that_cannot_work_are_named(make_cfg, flags, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_cfg(*flags)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_settings_end_with_one_line_and_no_folder(small_flags, tmp_path, capsys) -> None:
    assert train_rl.main([*small_flags, f"--train_dir={tmp_path}", "--games=bigfsh"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("python -m srwm_agents train: error: unknown game 'bigfsh'")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--laerning_rate=1"], "unknown flag --laerning_rate, did you mean --learning_rate?"),
        (["--core=rnn"], "invalid choice: 'rnn'"),
        (["--preset=fastest"], "invalid choice: 'fastest'"),
        (["--preset=sixgames"], ", did you mean six_games?"),
        (["--preset=nowhere.yaml"], "--preset: nowhere.yaml cannot be read: No such file"),
        (["--rollout=many"], "invalid int value: 'many'"),
        (["--reward_treatment=norm"], "invalid choice: 'norm'"),
    ],
)
def test_wrong_flags_are_one_line(flags, message: str, capsys) -> None:
    with pytest.raises(SystemExit) as exit_info:
        train_rl.main(flags)
    assert exit_info.value.code == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("laerning_rate: 1", "has the setting 'laerning_rate', which no flag has, did you mean learning_rate?"),
        ("rollout: 3.5", "rollout in --preset=mine.yaml: invalid int value: '3.5'"),
        ("compile: 3", "compile in --preset=mine.yaml: "),
        ("core: rnn", "core in --preset=mine.yaml: invalid choice: 'rnn'"),
        ("rollout: [3]", "rollout in --preset=mine.yaml is [3], expected one value"),
        ("encoder_conv_mlp_layers: 256", "encoder_conv_mlp_layers in --preset=mine.yaml is 256, expected a list"),
        ("encoder_conv_mlp_layers: [a]", "encoder_conv_mlp_layers in --preset=mine.yaml: invalid int value: 'a'"),
        ("restart_behavior: overwrite", "has restart_behavior, which deletes or moves what is there: a flag only"),
        ("preset: fast", "has the setting 'preset', which no flag has"),
    ],
)
def test_wrong_settings_of_a_users_preset_are_one_line(tmp_path, monkeypatch, capsys, settings, message) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(f"base: fast\nsettings:\n  {settings}\n")
    with pytest.raises(SystemExit) as exit_info:
        train_rl.main(["--preset=mine.yaml"])
    assert exit_info.value.code == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_users_preset_is_read_as_flags_are(tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("settings: {gamma: 1, seed: null, games: starpilot, decoder_mlp_layers: [8, 4], compile: yes}\n")
    args = parse_train_args([f"--preset={file}", "--games=leaper"])
    assert (args.games, args.seed, args.decoder_mlp_layers, args.compile) == ("leaper", None, [8, 4], True)
    assert (args.gamma, type(args.gamma)) == (1, float)
    assert args.rollout == parse_train_args([]).rollout
    assert args.cli_args == {"preset": str(file), "games": "leaper"}


def test_every_core_setting_is_a_flag() -> None:
    args = vars(parse_train_args([]))
    for field in fields(CoreConfig):
        if field.name not in ("input_size", "rollout_length"):
            assert args[field.name] == field.default, field.name
    assert parse_train_args(["--unit_keys=True"]).unit_keys is True


def test_what_is_derived_depends_on_request_and_machine_alone() -> None:
    request = request_of(parse_train_args(["--preset=fast", "--games=starpilot"]))
    on_gpu = derive(request, Machine(cuda=True, cores=8))
    assert on_gpu == derive(request, Machine(cuda=True, cores=8))
    assert (on_gpu.device, on_gpu.env_threads, on_gpu.vector_size, on_gpu.num_envs_per_worker) == ("gpu", 2, 384, 2)
    on_cpu = derive(request, Machine(cuda=False, cores=8))
    assert (on_cpu.device, on_cpu.env_threads, on_cpu.compile, on_cpu.in_process) == ("cpu", 4, False, False)
    with pytest.raises(FrozenInstanceError):
        on_cpu.device = "gpu"  # type: ignore[misc]


def help_of(flag: str, capsys, *before: str) -> str:
    with pytest.raises(SystemExit) as exit_info:
        train_rl.main([*before, flag])
    assert exit_info.value.code == 0
    return capsys.readouterr().out


def test_help_is_short_and_has_ours_first(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = help_of("--help", capsys)
    assert len(shown.splitlines()) <= 160
    assert "(default: 128)" in shown
    for preset in PRESETS:
        assert preset in shown
    ours, theirs = shown.split("Sample Factory's own, honoured too:")
    subjects = re.findall(r"^(\w.*):$", ours, re.M)
    assert subjects[:5] == ["the run", "what it plays", "what it sees", "core", "learning"]
    for flag in ("--games", "--core", "--critic", "--cuda_graphs", "--max_pending_iterations"):
        assert flag in ours
    assert "--vtrace_rho 1.0" in theirs


def test_every_flag_is_in_one_subject_with_its_default_and_help_all_describes_it(capsys) -> None:
    parser = make_parser()
    groups = [group for group in parser._action_groups if group._group_actions]
    placed = [action.dest for group in groups for action in group._group_actions]
    assert len(placed) == len(set(placed)) == len(parser._actions)
    assert groups[-1].title == "help"
    shown = help_of("--help-all", capsys)
    brief = help_of("--help", capsys)
    for action in parser._actions:
        if action.option_strings[-1].startswith("--help"):
            continue
        text = described(action)
        assert "default:" in text, action.dest
        assert " ".join(text.split()) in " ".join(shown.split()), action.dest
        assert (f"{action.option_strings[0]} " in brief) == (level(action) is not Shown.ONLY_IN_ALL), action.dest


def test_what_is_allowed_is_in_the_help_of_every_number_with_a_range(capsys) -> None:
    actions = {action.dest: action for action in make_parser()._actions}
    for allowed, names in RANGES.items():
        for name in names:
            assert allowed.signs in described(actions[name]), name


def test_help_has_the_presets_values(capsys) -> None:
    shown = " ".join(help_of("--help", capsys, "--preset=paper").split())
    assert "adam, lamb, rmsprop (default: rmsprop)" in shown


def test_a_resumed_experiment_keeps_its_architecture(make_cfg, tmp_path) -> None:
    (tmp_path / "e").mkdir()
    saved = make_cfg("--core=delta")
    (tmp_path / "e" / "config.json").write_text(json.dumps(saved))
    resumed = make_cfg("--core=delta", "--learning_rate=0.5")
    assert (resumed.core, resumed.learning_rate, resumed.vector_size) == ("delta", 0.5, saved.vector_size)
    with pytest.raises(ConfigError, match="--core is 'lstm', but experiment 'e' was begun with 'delta'"):
        make_cfg("--core=lstm")
    for flag, begun in (("--popart=True", "False"), ("--reward_treatment=none", "'clip'")):
        with pytest.raises(ConfigError, match=f"experiment 'e' was begun with {begun}"):
            make_cfg(flag)
    old = {name: value for name, value in saved.items() if name not in ("popart", "reward_treatment")}
    (tmp_path / "e" / "config.json").write_text(json.dumps(old))
    assert make_cfg().reward_clip == 1
    with pytest.raises(ConfigError, match="--popart is True, but experiment 'e' was begun with False"):
        make_cfg("--popart=True")
    (tmp_path / "e" / "config.json").write_text('{"core":')
    with pytest.raises(ConfigError, match="is no JSON"):
        make_cfg()


def test_resuming_from_a_best_checkpoint_that_is_not_there_does_not_start_over(make_cfg, small_flags, tmp_path, capsys):
    folder = tmp_path / "e" / "checkpoint_p0"
    folder.mkdir(parents=True)
    (tmp_path / "e" / "config.json").write_text(json.dumps(make_cfg()))
    (folder / "checkpoint_000000001_32.pth").write_bytes(b"")
    flags = [*small_flags, f"--train_dir={tmp_path}", "--experiment=e", "--load_checkpoint_kind=best"]
    assert train_rl.main(flags) == 1
    assert "has no best checkpoint yet" in capsys.readouterr().err
    assert len(list(folder.iterdir())) == 1


def test_a_run_begun_on_a_gpu_goes_on_on_a_cpu(make_cfg, tmp_path) -> None:
    saved = make_cfg() | {"device": "gpu", "actor_worker_gpus": [0]}
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "config.json").write_text(json.dumps(saved))
    assert make_cfg("--device=cpu").actor_worker_gpus == []


def test_what_ended_a_run_is_said_in_one_line() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.multinomial(torch.tensor([float("nan"), 1.0]), 1)
    assert "training has diverged" in reason_of(caught.value)
    on_gpu = RuntimeError("CUDA error: device-side assert triggered\nCompile with `TORCH_USE_CUDA_DSA` …\n")
    assert "training has diverged" in reason_of(on_gpu)
    assert reason_of(KeyError("obs\nand more")) == "KeyError: 'obs\\nand more'"
    assert reason_of(OSError("no room\nfor anything")) == "OSError: no room"
    assert reason_of(AssertionError()) == "AssertionError"
