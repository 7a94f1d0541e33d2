"""Several trainings in one process that differ in their seeds, and play their rollouts together.

Each is a thread, of which one runs at a time, until it asks for something that is done for all at once: an environment,
a rollout, or to wait for those that are behind. When all that are left have asked, the thread that asked last does it.
So a training need not know of the others, and its numbers do not depend on them.
"""

import math
import threading
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from metarl.algorithms.gradient import GradientLearner
from metarl.envs.api import Several, TaskEnv
from metarl.envs.lockstep import SeatEnv, joinable, make_together, together
from metarl.envs.registry import TaskDistribution
from metarl.rollout import EARLY_STOP_INTERVAL, PLAYER, Act, may_stop_early, play
from metarl.types import Actor, Previous, TrajectoryBatch

HEARING = 0.2  # s between looks of the main thread at signals that another one was sent

_SEAT: ContextVar["Seat | None"] = ContextVar("seat", default=None)


class Wish(NamedTuple):
    """What a seat asks for."""

    kind: Any
    """Equal among those that are answered together."""
    answer: Callable[[list[Any]], Sequence[Any]]
    """Answers all of a kind, from the details of each."""
    detail: Any


class Seat:
    """One training."""

    def __init__(self, turns: "Turns", number: int, work: Callable[[], Any]) -> None:
        self.turns, self.number = turns, number
        self.iteration: int | None = None
        """Where it waits for others, iterations that it has completed."""
        self.wish: Wish | None = None
        self.answer: Any = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._live, args=(work,), name=f"seat {number}", daemon=True)

    def ask(self, wish: Wish) -> Any:
        """What is asked for, when all have asked for something."""
        self.wish = wish
        self._let_others()
        answer, self.answer = self.answer, None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def catch_up(self, iteration: int) -> None:
        """Waits until no other has completed fewer iterations."""
        self.iteration = iteration
        self._let_others()

    def _let_others(self) -> None:
        self.turns.next()
        self.turns.wait(self)
        self.turns.check(self.number)

    def _live(self, work: Callable[[], Any]) -> None:
        _SEAT.set(self)
        PLAYER.set(self._play)
        try:
            self.turns.wait(self)
            torch.set_num_threads(self.turns.num_threads)  # a new thread takes what another one set last
            self.result = work()
        except BaseException as error:
            self.error = error
        self.turns.leave(self)

    def _play(
        self,
        env: TaskEnv,
        act: Act,
        actor: Actor,
        episodes: int,
        generator: torch.Generator,
        min_steps: int,
        trials: bool,
    ) -> tuple[TrajectoryBatch, Actor]:
        check = partial(self.turns.check, self.number)
        if not isinstance(env, SeatEnv):
            return play(env, _checked(act, check), actor, episodes, generator, min_steps, trials)
        kind = (env.kind, episodes, min_steps, trials)
        detail = Rollout(env, act, actor, episodes, generator, min_steps, trials, check)
        found: tuple[TrajectoryBatch, Actor] = self.ask(Wish(kind, _play_together, detail))
        return found


class Turns:
    """Gives the turns, in the order of the seats.

    Args:
        check: called with a seat's number, in its thread, whenever it goes on; it may raise to end it.
    """

    def __init__(
        self, works: Sequence[Callable[[], Any]], *, check: Callable[[int], None] = lambda number: None
    ) -> None:
        self.check, self.num_threads = check, torch.get_num_threads()
        self.seats = [Seat(self, number, work) for number, work in enumerate(works)]
        self._left = list(self.seats)
        self._turn: Seat | None = self.seats[0]
        self._changed = threading.Condition()

    def run(self) -> list[Seat]:
        """Does all of the work; each seat then has its result or its error."""
        for seat in self.seats:
            seat.thread.start()
        for seat in self.seats:
            while seat.thread.is_alive():
                seat.thread.join(HEARING)
        return self.seats

    def wait(self, seat: Seat) -> None:
        """Until it is a seat's turn; called by its thread."""
        with self._changed:
            self._changed.wait_for(lambda: self._turn is seat)

    def next(self) -> None:
        """Gives the turn to a seat that can use it; called by the thread that has it."""
        if self._left and not (ready := self._ready()):
            self._serve()
            ready = self._ready()
        with self._changed:
            self._turn = ready[0] if self._left else None
            self._changed.notify_all()

    def leave(self, seat: Seat) -> None:
        self._left.remove(seat)
        self.next()

    def _ready(self) -> list[Seat]:
        return [seat for seat in self._left if seat.wish is None and seat.iteration is None]

    def _serve(self) -> None:
        asking = [seat for seat in self._left if seat.wish is not None]
        while asking:
            wish = asking[0].wish
            assert wish is not None
            alike = [seat for seat in asking if seat.wish is not None and seat.wish.kind == wish.kind]
            try:
                answers = wish.answer([seat.wish.detail for seat in alike if seat.wish is not None])
            except BaseException as error:
                answers = [error] * len(alike)
            for seat, answer in zip(alike, answers, strict=True):
                seat.wish, seat.answer = None, answer
            asking = [seat for seat in asking if seat not in alike]
        if not self._ready():
            first = min(seat.iteration for seat in self._left if seat.iteration is not None)
            for seat in self._left:
                if seat.iteration == first:
                    seat.iteration = None


def present() -> Seat | None:
    """The seat of the thread that asks; none where nothing takes turns."""
    return _SEAT.get()


def make_env(tasks: TaskDistribution, num_tasks: int, num_envs: int, *, seed: int, **options: Any) -> TaskEnv:
    """``tasks.make``, or a seat's part of what all seats need where tasks can be joined."""
    seat = present()
    if seat is None or not joinable(tasks):
        return tasks.make(num_tasks, num_envs, seed=seed, **options)

    def answer(seeds: list[Any]) -> Sequence[Any]:
        return make_together(tasks, num_tasks, num_envs, seeds=seeds, **options)

    env: TaskEnv = seat.ask(Wish((tasks, num_tasks, num_envs, options), answer, seed))
    return env


@dataclass(frozen=True)
class Rollout:
    """Arguments of :func:`metarl.rollout.play`."""

    env: SeatEnv
    act: Act
    actor: Actor
    episodes: int
    generator: torch.Generator
    min_steps: int
    trials: bool
    check: Callable[[], None]
    """Raises where the seat is to end."""


Played = tuple[TrajectoryBatch, Actor]


class _NotAsAlone(Exception):
    """What all have played together would have been other numbers for one of them."""


def _play_together(rollouts: list[Rollout]) -> list[Played] | list[Played | Exception]:
    """One rollout of all, and what each has of it. Where that fails each plays its own, so that one can fail alone."""
    before = [(one.generator.get_state(), one.env.draws()) for one in rollouts]
    try:
        return _in_one(rollouts)
    except (MemoryError, torch.OutOfMemoryError):  # it is the number of them that fails
        raise
    except Exception:
        for one, (actions, resets) in zip(rollouts, before, strict=True):
            one.generator.set_state(actions)
            one.env.put_back(resets)
    return [_by_itself(one) for one in rollouts]


def _by_itself(rollout: Rollout) -> Played | Exception:
    try:
        return _in_one([rollout])[0]
    except Exception as error:
        return error


def _in_one(rollouts: list[Rollout]) -> list[Played]:
    first, size = rollouts[0], rollouts[0].env.num_tasks
    env = together([one.env for one in rollouts])
    act, actor = _one_actor(rollouts) or _side_by_side(rollouts)
    generator = Several([one.generator for one in rollouts])
    act = _checked(act, first.check)
    batch, actor = play(env, act, actor, first.episodes, generator, first.min_steps, first.trials)
    generator.require_unused()
    own = actor if isinstance(actor, list) else _split(actor, size, len(rollouts))
    most = batch.reward.shape[2]
    played = env.steps_played() if may_stop_early(env, first.min_steps) else [most] * len(rollouts)
    lengths = [min(most, EARLY_STOP_INTERVAL * math.ceil(steps / EARLY_STOP_INTERVAL)) for steps in played]
    if not env.spec.terminates and len(set(lengths)) > 1:  # resets on schedule drew for those that were through, too
        raise _NotAsAlone
    env.give_back()
    batches = [
        tree_map(lambda x: x[:, :, :length].contiguous(), part)  # noqa: B023 - a sum's bits depend on the layout
        for part, length in zip(_split(batch, size, len(rollouts)), lengths, strict=True)
    ]
    return list(zip(batches, own, strict=True))


def _checked(act: Act, check: Callable[[], None]) -> Act:
    """The same, and a check before every step."""

    def acting(*arguments: Any) -> tuple[Tensor, Any, Actor]:
        check()
        return act(*arguments)

    return acting


def _split(tree: Any, size: int, number: int) -> list[Any]:
    return [tree_map(lambda x: x[i * size : (i + 1) * size], tree) for i in range(number)]  # noqa: B023


def _one_actor(rollouts: list[Rollout]) -> tuple[Act, Actor] | None:
    """All parameters in one actor, where equal learners act by those of each task: no matrix product is of two."""
    actors = [one.actor for one in rollouts]
    methods = [(getattr(one.act, "__func__", None), getattr(one.act, "__self__", None)) for one in rollouts]
    if not isinstance(methods[0][1], GradientLearner) or any(method != methods[0] for method in methods):
        return None  # another learner's may be a dictionary, too, and not of tasks
    return rollouts[0].act, {name: torch.cat([actor[name] for actor in actors]) for name in actors[0]}


def _side_by_side(rollouts: list[Rollout]) -> tuple[Act, Actor]:
    """Actors that act one after the other."""

    def act(actors: list[Actor], obs: Tensor, previous: Previous, generator: Any) -> tuple[Tensor, Any, Actor]:
        seeds = range(len(rollouts))
        own_obs, own_previous = obs.chunk(len(seeds)), _split(previous, len(obs) // len(seeds), len(seeds))
        found = [rollouts[i].act(actors[i], own_obs[i], own_previous[i], generator.parts[i]) for i in seeds]
        actions, dists, actors = (list(part) for part in zip(*found, strict=True))
        return torch.cat(actions), tree_map(lambda *leaves: torch.cat(leaves), *dists), actors

    return act, [one.actor for one in rollouts]
