"""Several trainings in one process that differ in their seeds, and play their rollouts together.

Each is a thread, of which one runs at a time, until it asks for something that is done for all at once: an environment,
a rollout, or to wait for those that are behind. When all that are left have asked, the thread that asked last does it.
So a training need not know of the others, and its numbers do not depend on them.
"""

import threading
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import torch

from metarl.envs.api import TaskEnv
from metarl.envs.lockstep import SeatEnv, joinable, make_together
from metarl.envs.registry import TaskDistribution
from metarl.joint_rollout import Rollout, checked, play_together
from metarl.rollout import PLAYER, Act, play
from metarl.types import Actor, TrajectoryBatch

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
            return play(env, checked(act, check), actor, episodes, generator, min_steps, trials)
        kind = (env.kind, episodes, min_steps, trials)
        detail = Rollout(env, act, actor, episodes, generator, min_steps, trials, check)
        found: tuple[TrajectoryBatch, Actor] = self.ask(Wish(kind, play_together, detail))
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
