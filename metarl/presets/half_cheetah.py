"""Half-cheetahs that run forward or backward, or at a goal velocity.

``maml2017`` repeats Finn et al. 2017 with the paper's hyperparameters and samples (direction 32M environment steps,
velocity 76M). ``tuned`` is the same task and test within that budget: smooth activations, a shorter credit horizon and
smaller meta-batches, because the noise of the inner gradient limits these tasks (direction: cosine of two estimates
0.15 at lambda 1, 0.3 at 0.95; experiments/inner_gradient_noise.py). ``demo`` is ``tuned``, stopped after a few minutes.
``gpu`` is ``tuned`` with ten times its worlds and four times its steps, for ``--device cuda``. MAML's ``promp`` and
``v5`` are MAML on those definitions of the task, not tuned; ProMP's ``promp`` has the published task and
hyperparameters (160M steps; experiments/all_envs_eval/ppo_run_all.py of jonasrothfuss/ProMP).

``estimators`` and the presets named after an estimator (direction) compare MAML's estimators and ProMP on ProMP's task.
Their settings are ours: with the published ones (lambda 1, inner step 0.1) two estimates of an inner step have a cosine
of 0.01, at discount 0.95 and lambda 0.8 one of 0.08, and 4M steps taught MAML and ProMP nothing. Task, network, inner
step and samples are alike; ProMP takes PPO's outer step, the others TRPO's.

RL² plays two episodes a trial; learning rate and entropy bonus end at zero. VariBAD's ``varibad`` has the published
hyperparameters and budget (100M steps; a replay of 0.6 GiB), its ``tuned`` larger meta-batches and RL²'s 200 updates of
them; no run of either has been long enough for a number yet.
"""

from dataclasses import replace

from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import PPO, TRPO
from metarl.algorithms.promp import ProMP
from metarl.envs.registry import find_preset
from metarl.networks.mlp import GaussianMLP
from metarl.presets.trials import believing, two_episodes
from metarl.runs.experiment import Experiment

SMALL, WIDE = GaussianMLP((64, 64), "tanh"), GaussianMLP((100, 100), "tanh")

TUNED = Experiment(
    task=find_preset("half_cheetah_dir", "maml2017"),
    learner=MAML(policy=WIDE, outer=TRPO(max_kl=0.02, curvature_samples=16_000), inner_lr=0.1, gae_lambda=0.95),
    num_tasks=20,
    iterations=150,
)
PUBLISHED = Experiment(
    task=TUNED.task,
    learner=MAML(
        policy=GaussianMLP((100, 100), "relu"), outer=TRPO(max_kl=0.02, curvature_samples=16_000), inner_lr=0.1
    ),
    num_tasks=40,
    num_envs=20,
    episodes=20,
    iterations=100,
)
DIR_MAML = {
    "tuned": TUNED,
    "demo": replace(TUNED, iterations=25, eval_interval=5, eval_tasks=10),
    "gpu": replace(
        TUNED,
        learner=replace(TUNED.learner, outer=TRPO(max_kl=0.02, curvature_samples=100_000), chunk_samples=1_000_000),
        num_tasks=40,
        num_envs=100,
        episodes=100,
        iterations=60,
    ),
    "maml2017": PUBLISHED,
    "promp": Experiment(
        task=find_preset("half_cheetah_dir", "promp"), learner=MAML(policy=SMALL, inner_lr=0.1), iterations=1000
    ),
    "v5": Experiment(
        task=find_preset("half_cheetah_dir", "v5"), learner=MAML(policy=SMALL, inner_lr=0.1), iterations=500
    ),
}
VEL_MAML = {
    "tuned": replace(TUNED, task=find_preset("half_cheetah_vel", "maml2017"), iterations=400),
    "maml2017": replace(
        PUBLISHED,
        task=find_preset("half_cheetah_vel", "maml2017"),
        learner=replace(PUBLISHED.learner, outer=TRPO(max_kl=0.01, curvature_samples=16_000)),
        num_envs=10,
        episodes=10,
        iterations=475,
    ),
    "promp": replace(DIR_MAML["promp"], task=find_preset("half_cheetah_vel", "promp")),
    "v5": replace(DIR_MAML["v5"], task=find_preset("half_cheetah_vel", "v5")),
}

ESTIMATORS = Experiment(
    task=find_preset("half_cheetah_dir", "promp"),
    learner=MAML(policy=SMALL, outer=TRPO(max_kl=0.05), inner_lr=0.5, discount=0.95, gae_lambda=0.8),
    num_tasks=20,
    iterations=70,
)
DIR_ESTIMATORS = {
    "estimators": ESTIMATORS,
    "emaml": replace(ESTIMATORS, learner=replace(ESTIMATORS.learner, estimator="emaml", exploration_weight=5e-4)),
    "dice": replace(ESTIMATORS, learner=replace(ESTIMATORS.learner, estimator="dice")),
    "lvc": replace(ESTIMATORS, learner=replace(ESTIMATORS.learner, estimator="lvc")),
}
DIR_PROMP = {
    "promp": Experiment(
        task=find_preset("half_cheetah_dir", "promp"),
        learner=ProMP(policy=SMALL, outer=PPO(learning_rate=1e-3, epochs=5, clip=0.3), inner_lr=0.1, kl_penalty=5e-4),
        num_tasks=40,
        num_envs=20,
        episodes=20,
        iterations=1000,
    ),
    "estimators": Experiment(
        task=ESTIMATORS.task,
        learner=ProMP(
            policy=SMALL,
            outer=PPO(learning_rate=3e-3, epochs=10, clip=0.3),
            inner_lr=0.5,
            discount=0.95,
            gae_lambda=0.8,
        ),
        num_tasks=20,
        iterations=70,
    ),
}


DIR_RL2 = {name: two_episodes("half_cheetah_dir", name, trials=80) for name in ("promp", "maml2017")}
VEL_RL2 = {name: two_episodes("half_cheetah_vel", name, trials=80) for name in ("promp", "maml2017")}

DIR_200, VEL_200 = find_preset("half_cheetah_dir", "promp", horizon=200), find_preset("half_cheetah_vel", "promp")
DIR_VARIBAD = {
    "tuned": believing(DIR_200, epochs=8, minibatches=4, trials=80, iterations=200, tuned=True),
    "varibad": believing(DIR_200, epochs=16, minibatches=4, trials=32, iterations=7812),
}
VEL_VARIBAD = {
    "tuned": believing(VEL_200, epochs=8, minibatches=4, trials=80, iterations=200, tuned=True),
    "varibad": believing(VEL_200, epochs=2, minibatches=8, trials=16, iterations=15_625),
}

PRESETS = (DIR_MAML, DIR_ESTIMATORS, DIR_PROMP, DIR_RL2, DIR_VARIBAD, VEL_MAML, VEL_RL2, VEL_VARIBAD)
