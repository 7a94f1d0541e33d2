"""Learners that compare: against the Bayes classifier, scikit-learn and a plain loop; and what chance is."""

import math

import pytest
import torch
from torch import Tensor

from metarl.envs.fields import BadField
from metarl.fewshot import Digits, FewShotLearner, FewShotMAML, MetaNetworks, Nearest, Prototypical, Sinusoid
from metarl.fewshot.episodes import Episodes, Examples, ExampleSpec, accuracy
from metarl.fewshot.learner import LearnerState
from metarl.fewshot.meta_networks import preprocessed
from metarl.networks.predictors import MLP, ConvNet

pytestmark = pytest.mark.usefixtures("one_thread")

WAYS, DIM = 4, 3
SPEC = ExampleSpec(
    obs_dim=DIM,
    action_dim=WAYS,
    horizon=1,
    terminates=False,
    has_success=True,
    discrete=True,
    shape=(DIM,),
    num_classes=WAYS,
)
IDENTITY = {"weight_head": torch.eye(DIM), "bias_head": torch.zeros(DIM)}  # an embedding that changes nothing


def gaussians(shots: int, queries: int, *, generator: torch.Generator) -> tuple[Episodes, Tensor]:
    """Classes N(mean, I / 2) of 20 tasks, and the means [task way dim]; support examples mirror each other about these
    where ``shots`` is even."""
    means = torch.randn(20, WAYS, DIM, generator=generator)

    def drawn(n: int) -> Tensor:
        return torch.randn(20, n, WAYS, DIM, generator=generator) / math.sqrt(2)

    deviations = drawn(max(1, shots // 2))
    support = torch.cat([deviations, -deviations], dim=1) if shots % 2 == 0 else deviations

    def labelled(x: Tensor) -> Examples:
        y = torch.eye(WAYS).repeat(x.shape[1], 1).expand(20, -1, -1)
        return Examples((x + means.unsqueeze(1)).flatten(1, 2), y)

    classes = torch.arange(WAYS).expand(20, -1)
    return Episodes(labelled(support), labelled(drawn(queries)), classes, SPEC), means


def bayes(episodes: Episodes, means: Tensor) -> Tensor:
    """P(class | x) of equally likely classes: proportional to exp(-|x - mean|^2), for the variance is 1/2."""
    distance = torch.cdist(episodes.query.x.double(), means.double(), compute_mode="donot_use_mm_for_euclid_dist")
    density = torch.exp(-distance.square())
    return density / density.sum(-1, keepdim=True)


def test_prototypes_at_the_means_are_the_bayes_classifier() -> None:
    episodes, means = gaussians(2, 50, generator=torch.Generator().manual_seed(0))
    (logits,) = Prototypical(MLP(()), embedding_size=DIM).predictions(LearnerState(IDENTITY, {}), episodes, [])
    torch.testing.assert_close(logits.double().softmax(-1), bayes(episodes, means), rtol=1e-4, atol=1e-6)


def test_more_shots_come_nearer_to_the_bayes_classifier_and_never_beyond() -> None:
    learner, state = Prototypical(MLP(()), embedding_size=DIM), LearnerState(IDENTITY, {})
    found = {}
    for shots in (1, 5, 101):
        generator = torch.Generator().manual_seed(1)
        episodes, means = gaussians(shots, 500, generator=generator)
        (logits,) = learner.predictions(state, episodes, [])
        best = accuracy(bayes(episodes, means).float(), episodes.query.y).mean().item()
        found[shots] = best - accuracy(logits, episodes.query.y).mean().item()
    assert found[1] > 0.05
    assert found[1] > found[5] > found[101] > -0.002
    assert found[101] < 0.01


def test_the_nearest_neighbour_is_scikit_learns() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    tasks, generator = Digits(shots=3, queries=6), torch.Generator().manual_seed(0)
    episodes = tasks.draw(tasks.sample(4, generator), generator)
    learner = Nearest()
    (logits,) = learner.predictions(learner.init(tasks.spec, generator), episodes, [])
    for k in range(4):
        known = KNeighborsClassifier(1).fit(episodes.support.x[k].flatten(1), episodes.support.y[k].argmax(-1))
        assert logits[k].argmax(-1).tolist() == known.predict(episodes.query.x[k].flatten(1)).tolist()
    waves = Sinusoid().draw(torch.tensor([[2.0, 1.0]]), generator)
    (found,) = learner.predictions(learner.init(Sinusoid().spec, generator), waves, [])
    nearest = (waves.query.x[0] - waves.support.x[0].T).abs().argmin(1)
    torch.testing.assert_close(found[0], waves.support.y[0][nearest])


def with_shuffled_labels(episodes: Episodes, generator: torch.Generator) -> Episodes:
    order = torch.rand(episodes.support.y.shape[:2], generator=generator).argsort(1)
    shuffled = episodes.support.y.gather(1, order.unsqueeze(-1).expand_as(episodes.support.y))
    return episodes._replace(support=episodes.support._replace(y=shuffled))


@pytest.mark.parametrize(
    ("learner", "updates", "reached"),
    [(Nearest(), 0, 0.65), (Prototypical(MLP((32,)), learning_rate=3e-3), 80, 0.5)],
    ids=["nearest", "prototypical"],
)
def test_shuffled_labels_give_chance(learner: FewShotLearner, updates: int, reached: float) -> None:
    """The same learner, the same images: what it knows of a task it has from the labels of the support set."""
    tasks = Digits()
    state, draws = learner.init(tasks.spec, torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)
    for _ in range(updates):
        state, _ = learner.update(state, tasks.draw(tasks.sample(16, draws), draws), draws)
    episodes = tasks.draw(tasks.held_out(400, draws), draws)
    (told,) = learner.predictions(state, episodes, [])
    (untold,) = learner.predictions(state, with_shuffled_labels(episodes, draws), [])
    assert accuracy(told, episodes.query.y).mean() > reached
    assert accuracy(untold, episodes.query.y).mean() == pytest.approx(0.2, abs=0.03)


def test_training_on_shuffled_labels_teaches_nothing() -> None:
    tasks, learner = Digits(), FewShotMAML(MLP((32,)), inner_lr=0.4, learning_rate=3e-3)
    state, draws = learner.init(tasks.spec, torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)
    for _ in range(40):
        state, _ = learner.update(state, with_shuffled_labels(tasks.draw(tasks.sample(16, draws), draws), draws), draws)
    episodes = tasks.draw(tasks.held_out(400, draws), draws)
    found = learner.predictions(state, with_shuffled_labels(episodes, draws), [1.0])[-1]
    assert accuracy(found, episodes.query.y).mean() == pytest.approx(0.2, abs=0.03)


# --- meta networks


def one_episode() -> tuple[MetaNetworks, LearnerState, Episodes]:
    learner, tasks = MetaNetworks(MLP((16, 12)), maker_size=8), Digits(ways=3, shots=2, queries=2)
    generator = torch.Generator().manual_seed(0)
    return learner, learner.init(tasks.spec, generator), tasks.draw(tasks.sample(1, generator), generator)


def test_meta_networks_predict_as_a_loop_over_examples_does() -> None:
    """Gradients by autograd an example at a time, one set of fast weights a query example, layers by hand."""
    learner, state, episodes = one_episode()
    (found,) = learner.predictions(state, episodes, [])
    meta, fast_names = state.meta, ("weight_1", "weight_head")
    x, y, query = episodes.support.x[0].flatten(1), episodes.support.y[0], episodes.query.x[0].flatten(1)

    def forward(part: str, x: Tensor, fast: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        p = {key.partition(".")[2]: value for key, value in meta.items() if key.startswith(part + ".")}
        hidden = torch.relu(x @ p["weight_0"] + p["bias_0"])
        slowly = torch.relu(hidden @ p["weight_1"] + p["bias_1"])
        hidden = slowly + torch.relu(hidden @ fast["weight_1"]) if fast else slowly
        out = hidden @ p["weight_head"] + p["bias_head"]
        return hidden, out + hidden @ fast["weight_head"] if fast else out

    def gradients(part: str, i: int) -> dict[str, Tensor]:
        weights = [meta[f"{part}.{name}"].requires_grad_() for name in fast_names]
        loss = torch.nn.functional.cross_entropy(forward(part, x[i : i + 1], {})[1], y[i : i + 1])
        return dict(zip(fast_names, torch.autograd.grad(loss, weights), strict=True))

    def made(part: str, gradient: Tensor) -> Tensor:
        numbers = [preprocessed(g) for g in gradient.flatten()]
        w, b, out = (meta[f"{part}_maker.{name}"] for name in ("in", "bias", "out"))
        return torch.stack([torch.relu(n @ w + b) @ out for n in numbers]).view_as(gradient)

    own = [gradients("embedding", i) for i in range(len(x))]
    quick = {name: made("embedding", torch.stack([g[name] for g in own]).mean(0)) for name in fast_names}
    memory = [{name: made("base", g) for name, g in gradients("base", i).items()} for i in range(len(x))]
    keys = torch.nn.functional.normalize(forward("embedding", x, quick)[0], dim=-1)
    for i, image in enumerate(query):
        asked = torch.nn.functional.normalize(forward("embedding", image[None], quick)[0], dim=-1)
        share = (asked @ keys.T).softmax(-1)[0]
        fast = {name: sum(a * weights[name] for a, weights in zip(share, memory, strict=True)) for name in fast_names}
        torch.testing.assert_close(found[0, i], forward("base", image[None], fast)[1][0], rtol=1e-4, atol=1e-5)


def test_all_networks_of_meta_networks_learn() -> None:
    learner, state, episodes = one_episode()
    after, _ = learner.update(state, episodes, torch.Generator())
    parts = {name.partition(".")[0] for name in state.meta if not torch.equal(after.meta[name], state.meta[name])}
    assert parts == {"base", "embedding", "base_maker", "embedding_maker"}


def test_small_gradients_are_seen_at_their_size_and_large_ones_by_its_logarithm() -> None:
    small = math.exp(-8)
    found = preprocessed(torch.tensor([math.exp(-3), -1.0, small, -small, 0.0]))
    expected = [[-3 / 7, 1.0], [0.0, -1.0], [-1.0, math.exp(-1)], [-1.0, -math.exp(-1)], [-1.0, 0.0]]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_what_tells_classes_apart_refuses_a_regression() -> None:
    with pytest.raises(BadField, match="task is a regression: prototypical tells classes apart"):
        Prototypical().init(Sinusoid().spec, torch.Generator())
    with pytest.raises(BadField, match="inputs of shape \\(1,\\) are no images, use MLP"):
        FewShotMAML(ConvNet()).init(Sinusoid().spec, torch.Generator())
