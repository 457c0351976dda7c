"""What follows from a request and from the machine: derived anew, by one pure function, at every start."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from srwm_agents.encoders import IMAGE_KEY
from srwm_agents.integrations.sample_factory import per_game
from srwm_agents.integrations.sample_factory.core import buffer_settings
from srwm_agents.integrations.sample_factory.request import PROCGEN, ConfigError, Request, core_of
from srwm_agents.integrations.sample_factory.sizes import Sizes
from srwm_agents.integrations.sample_factory.suites import suite_of
from srwm_agents.launch import Launch
from srwm_agents.machine import available_cores

_UNCLIPPED = 1000.0
"""Sample Factory's own ``reward_clip``: far beyond what any of Procgen's games gives."""
_UNBOUNDED = 1e30
"""The same for environments of which nothing is known."""


@dataclass(frozen=True)
class Machine:
    """What settings depend on."""

    cuda: bool
    """Whether PyTorch sees a CUDA device."""
    cores: int
    """:func:`srwm_agents.machine.available_cores`, of which each process that torchrun started here has its share."""
    rank: int = 0
    """Number of this process among those that learn together."""
    world_size: int = 1
    """How many there are."""

    @classmethod
    def here(cls) -> Machine:
        """This one, for a single process."""
        return cls(torch.cuda.is_available(), available_cores())

    @classmethod
    def share(cls, launch: Launch) -> Machine:
        """What one of the processes of torchrun has of this one."""
        cores = max(1, available_cores() // launch.local_world_size)
        return cls(torch.cuda.is_available(), cores, launch.rank, launch.world_size)


@dataclass(frozen=True)
class Derived:
    """The settings that are derived. Those that are settings of a request too have their effective values here."""

    # What is learned.
    core: str
    tasks: list[str]
    """The games, or the environment's id."""
    games: str
    """Comma-separated; without a meaning for another environment than Procgen."""
    game_gammas: str
    game_value_coeffs: str
    random_starts: str
    reward_clip: float
    """Of actors' rewards."""
    normalize_input_keys: list[str] | None
    """None where they follow from the environment's observations: see ``model.py``."""
    encoder_mlp_layers: list[int]
    """Of numbers and categories; Procgen's are joined with the image's features as they are."""
    save_best_metric: str
    recurrence: int
    """Steps of backpropagation through time."""
    use_rnn: bool
    rnn_type: str
    rnn_num_layers: int
    rnn_size: int
    """By these four Sample Factory sizes its buffers: see :func:`.core.buffer_settings`."""

    # How it is computed.
    world_size: int
    """Processes that learn together, each with batches and games of its own."""
    seed: int | None
    """Another one in each of them, beyond those of the vector environments of the one before."""
    device: str
    compile: bool
    cuda_graphs: bool
    in_process: bool
    serial_mode: bool
    """Queues, locks and buffers of one process."""
    actor_worker_gpus: list[int]
    max_pending_iterations: int
    """No limit (-1) where actors are processes, which cannot wait for the learner."""

    # How games are played.
    vector_size: int
    """Games in each vector environment."""
    num_envs_per_worker: int
    """Vector environments of each worker; in a request, its games."""
    env_threads: int


def derive(request: Request, machine: Machine) -> Derived:
    """Everything that a request leaves open, for a machine.

    Raises:
        ConfigError: what is asked for contradicts itself, so that nothing follows from it.
    """
    procgen = request["env"] == PROCGEN
    games = suite_of(request).tasks(request)
    device = _device(request, machine)
    in_process = _in_process(request, device, machine)
    # A preset's are for all its games, of which a run may play some.
    by_game = {
        name: request[name] if name in request.given and procgen else per_game.only_of(games, request[name])
        for name in per_game.FLAGS
    }
    return Derived(
        core=core_of(request),
        tasks=games,
        games=",".join(games) if procgen else request["games"],
        **by_game,
        reward_clip=_reward_clip(request),
        normalize_input_keys=_normalize_input_keys(request, procgen),
        encoder_mlp_layers=[] if procgen else list(request["encoder_mlp_layers"]),
        save_best_metric=request["save_best_metric"] if procgen or "save_best_metric" in request.given else "reward",
        recurrence=request["rollout"] if request["recurrence"] == -1 else request["recurrence"],
        **buffer_settings(core_of(request), request.settings),
        world_size=machine.world_size,
        seed=_seed(request, machine),
        device=device,
        compile=_on_gpu(request, "compile", device),
        cuda_graphs=_on_gpu(request, "cuda_graphs", device),
        in_process=in_process,
        serial_mode=in_process or request["serial_mode"],
        actor_worker_gpus=_actor_worker_gpus(request, device),
        max_pending_iterations=request["max_pending_iterations"]
        if in_process or "max_pending_iterations" in request.given
        else -1,
        vector_size=_vector_size(request),
        num_envs_per_worker=request["worker_num_splits"],
        env_threads=_env_threads(request, device, in_process, machine),
    )


def _device(request: Request, machine: Machine) -> str:
    if request["device"] == "auto":
        return "gpu" if machine.cuda else "cpu"
    if request["device"] == "gpu" and not machine.cuda:
        raise ConfigError("--device is 'gpu', but PyTorch sees no CUDA device; use --device=cpu")
    return request["device"]


def _on_gpu(request: Request, name: str, device: str) -> bool:
    """Whether to do what presets turn on for a GPU.

    On a CPU, compiling needs a C++ compiler, there are no graphs, and threads of one process would share Python's
    interpreter for nothing: only where a flag asks for it.
    """
    return request[name] and (device == "gpu" or name in request.given)


def _in_process(request: Request, device: str, machine: Machine) -> bool:
    if request["serial_mode"] and "serial_mode" in request.given and "in_process" not in request.given:
        return False
    if machine.world_size > 1 and "in_process" not in request.given:
        return True
    if request["env"] != PROCGEN:  # its steps are computed by processes of their own, or are few
        return request["in_process"]
    return _on_gpu(request, "in_process", device)


def _seed(request: Request, machine: Machine) -> int | None:
    vectors = request["num_workers"] * request["worker_num_splits"]
    return None if request["seed"] is None else request["seed"] + machine.rank * vectors


def _reward_clip(request: Request) -> float:
    treatment = request["reward_treatment"]
    if treatment == "clip":
        return request["reward_clip"]
    if "reward_clip" in request.given:
        raise ConfigError(
            f"--reward_clip is {request['reward_clip']}, but --reward_treatment={treatment} does not clip by it: "
            "leave one of them out"
        )
    return _UNCLIPPED if request["env"] == PROCGEN else _UNBOUNDED


def _normalize_input_keys(request: Request, procgen: bool) -> list[str] | None:
    if not procgen or not request["normalize_input"] or request["normalize_input_keys"] is not None:
        return request["normalize_input_keys"]
    # All that the network sees; other entries are for the learner alone.
    return [IMAGE_KEY, "last_reward", *(["last_action"] if request["last_action"] else [])]


def _actor_worker_gpus(request: Request, device: str) -> list[int]:
    """Acting where the learner is keeps whole trajectories on the GPU; only frames travel."""
    if "actor_worker_gpus" in request.given:
        return list(request["actor_worker_gpus"])
    return [0] if device == "gpu" else []


def _vector_size(request: Request) -> int:
    """One C++ vector environment a split: ``num_envs_per_worker`` counts games being played, as users mean it."""
    games, splits = request["num_envs_per_worker"], request["worker_num_splits"]
    if games % splits:
        raise ConfigError(
            f"--num_envs_per_worker is {games}, expected a multiple of --worker_num_splits = {splits}"
            f"{sizes_of(request).advice()}"
        )
    return games // splits


def sizes_of(request: Request) -> Sizes:
    """What has to be divisible by what."""
    names = ("num_envs_per_worker", "batch_size", "rollout", "worker_num_splits", "num_batches_per_epoch")
    return Sizes(
        **{name: request[name] for name in names},
        games=len(suite_of(request).tasks(request)),
        batched_sampling=request["batched_sampling"],
    )


def _env_threads(request: Request, device: str, in_process: bool, machine: Machine) -> int:
    """C++ threads of each Procgen vector, processes of each vector of another environment.

    A worker steps one of its vectors at a time, so its share of the cores serves each of them. In one process all
    vectors but the one that is being acted for are stepped at the same time.
    """
    if request["env_threads"] >= 0:
        return request["env_threads"]
    if request["env"] != PROCGEN and not in_process:
        return 0  # its environments are stepped by the worker that has it
    workers = request["num_workers"]
    at_once = max(1, workers * request["worker_num_splits"] - 1) if in_process else workers
    cores = machine.cores if device == "gpu" or request["env"] == PROCGEN else machine.cores // 2  # of acting, learning
    return max(1, cores // at_once)
