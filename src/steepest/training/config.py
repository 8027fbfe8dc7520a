"""The configuration of a run: a tree of frozen dataclasses that is the Python argument, the command line and the file.

`None` in a setting means: by the rule for this kind of environment (`presets.py`). A run folder's config.json has no
`None` left that a rule could have filled. Nothing here imports JAX, so that `steepest --help` is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

_MASK = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="{false,true,auto}",
    instance_from_str=lambda given: {"false": False, "true": True, "auto": "auto"}[given[0].lower()],
    is_instance=lambda value: isinstance(value, bool) or value == "auto",
    str_from_instance=lambda value: [str(value).lower()],
    choices=("false", "true", "auto"),
)


LONGEST = 10**9
"""Steps of a memory's span."""


@dataclass(frozen=True)
class UpdateConfig:
    """The policy's update."""

    delta: float | None = None
    """δ: length of a step, KL(π_old‖π_new) in nats per state (for pg: ½‖Δ‖² in parameter units)."""
    delta_final: float | None = None
    """δ of the last update, to which it falls on a straight line; the same in all updates, if not said. A run that is
    resumed for more steps has a longer line."""
    damping: float | None = None
    """λ added to the Fisher matrix for the direction of the step; never in the measure of its length."""
    damping_rule: Literal["fixed", "adaptive", "relative"] = "fixed"
    """adaptive: from λ on by Levenberg and Marquardt. relative: λ times the mean diagonal of the Fisher matrix."""
    solver: Literal["auto", "cg", "direct", "sample-space", "kronecker"] = "auto"
    """How the natural gradient is solved for. auto: the method's own. sample-space takes the empirical Fisher matrix,
    unless a metric is named."""
    cg_iterations: int = 10
    """Conjugate gradient: at most this many Fisher products."""
    warm_start: bool = False
    """Conjugate gradient: start from the last update's solution."""
    preconditioner: Literal["none", "diagonal", "kronecker"] = "none"
    """Conjugate gradient: preconditioned by the Fisher matrix's diagonal, or its Kronecker factors."""
    momentum: float = 0.0
    """Sample space: keep this much of the last solution where the batch says nothing (SPRING), in [0, 1)."""
    metric: Literal["auto", "fisher", "empirical-fisher", "trajectory", "kronecker"] = "auto"
    """npg and trpo: the expected Fisher matrix, that of the sampled actions, that of paths, or its Kronecker factors.
    auto: the method's own."""
    subsample: float | None = None
    """Fisher products on this fraction of the batch, drawn once an update; all else sees all of it. Default: 1, and for
    npg and trpo in functional worlds a quarter, of at least 512 rows."""
    chunk: int | None = None
    """Rows of the batch worked out at a time: less memory for large batches. Default: all up to 16384 rows, 4096 beyond
    that; of large images fewer."""
    divergence: Literal["mean", "max"] = "mean"
    """trpo: hold the mean KL over the states within δ, or the largest."""
    entropy: float = 0.0
    """Temperature τ: maximise the return plus τ times the policy's entropy, in raw reward units per nat."""
    damped_form: bool = False
    """Measure the step by F + λI, as most libraries do: the realised KL is then less than δ."""
    backtracks: int = 10
    """trpo: shrink the step at most so often."""
    shrink: float = 0.8
    """trpo: by this factor."""


@dataclass(frozen=True)
class SamplingConfig:
    """Rollouts and advantages."""

    scheme: Literal["single-path", "vine"] = "single-path"
    """vine: compare several actions in states that the world is put back into, by short rollouts from there."""
    envs: int | None = None
    """Environments stepped together; of several agents each counts as one."""
    rollout: int | None = None
    """Steps of each environment between updates: a batch has envs × rollout rows."""
    group: int | None = None
    """Environments that are stepped together, with seeds and noise of their own; results depend on it. 8 by rule."""
    workers: int | None = None
    """Processes that step the environments, each whole groups of them; 0: this one alone. The results do not depend on
    it. Default: one for each core, as far as groups go, if simulating the run takes one core 5 seconds or more."""
    faults: int = 100
    """Stop with a diagnosis after more faults of environments than this, since the start or the resumption. Until then
    one that raises, or returns what is not finite or of another form, is made anew; with workers also one that hangs
    or ends its process."""
    timeout: float = 60.0
    """Seconds that one step or reset of an environment may take in a worker: then the worker is replaced."""
    gamma: float | None = None
    """γ: discount, in [0, 1]."""
    gae_lambda: float | None = None
    """λ of generalised advantage estimation, in [0, 1]."""
    normalise_observations: bool | None = None
    """Scale observations by running statistics, which belong to the agent."""
    scale_rewards: bool | None = None
    """The critic sees rewards divided by the running deviation of their discounted sum."""
    centre_advantages: bool = True
    """Subtract the batch's mean advantage."""
    segment: int | None = None
    """Steps of an episode that are one path of the covariant metric, at most."""


@dataclass(frozen=True)
class VineConfig:
    """The branches of --scheme vine."""

    states: int | None = None
    """States of the rollout, drawn at random, that branches start from."""
    actions: int | None = None
    """Actions compared in each state: drawn from the policy, or every one, where there are as many."""
    length: int | None = None
    """Steps of a branch, at most; the critic stands for the rest."""


@dataclass(frozen=True)
class ConstraintConfig:
    """A limit on the cost that the environment reports, for cpo and trpo-lagrangian."""

    cost_limit: float | None = None
    """What an episode may cost, the sum of info["cost"] over its steps, in the mean."""
    cost_gamma: float | None = None
    """γ of the cost's advantages, in [0, 1]. Default: that of the reward's."""
    cost_gae_lambda: float | None = None
    """λ of the cost's advantages, in [0, 1]. Default: that of the reward's."""


@dataclass(frozen=True)
class PolicyConfig:
    """The policy network."""

    hidden: tuple[int, ...] = (64, 64)
    """mlp: units of each hidden layer. attention: units of its hidden layer, and its width, a multiple of 4."""
    activation: Literal["auto", "tanh", "relu", "elu", "silu", "gelu"] = "auto"
    """Between the layers. auto: tanh, relu in convolutional networks and gelu in attention."""
    initialisation: Literal["orthogonal", "uniform"] = "orthogonal"
    """Of the layers; uniform: in ±1/√inputs, biases too, as PyTorch's are."""
    head_gain: float = 0.01
    """Of the last layer: small, so that the first policy is almost the same in all states; 1 for an ordinary layer."""
    initial_log_std: float | None = None
    """ln σ of a Gaussian policy at the start, in the units of the action; of a squashed one half the box is 1."""
    distribution: Literal["gaussian", "squashed", "beta"] = "gaussian"
    """Of actions in a Box: a Gaussian that is clipped to the bounds; one squashed into them by tanh; a Beta on them."""
    state_dependent_std: bool = False
    """ln σ of a Gaussian, squashed or not, is an output of the network, within ±5 of initial_log_std; else the same in
    all states, trained."""
    mask: Annotated[bool | Literal["auto"], _MASK] = False
    """Never choose an action that the environment forbids: by its method action_masks(), or info["action_mask"]. auto:
    where it has one of these."""
    network: Literal["auto", "mlp", "trpo-conv", "a3c", "nature", "impala", "minatar", "attention"] = "auto"
    """Its form. auto: by the observation; images of 36×36 pixels or more: nature, smaller ones: minatar, all else: mlp;
    a table from states to actions, whatever is said here. attention: over the observations of stack:N:ENV."""
    channels: Literal["auto", "first", "last"] = "auto"
    """Where an image has its channels. auto: that of the first and the last axis which differs where
    the other two are as long; else the smaller one."""
    layer_norm: bool = False
    """Normalise the units of a layer before each activation; nothing is trained in it."""
    memory: Literal["none", "gru", "lstm"] = "none"
    """What remembers the episode so far, behind the network: for environments that do not show their state."""
    memory_units: int = 64
    """How many units of it."""
    memory_span: int | None = None
    """About how many steps it keeps what it has seen before anything is learnt, in policy and critic. Default: a few.
    Larger where what matters was shown that long ago."""


@dataclass(frozen=True)
class CriticConfig:
    """The value function and its fit."""

    hidden: tuple[int, ...] = (64, 64)
    """mlp: units of each hidden layer."""
    activation: Literal["auto", "tanh", "relu", "elu", "silu", "gelu"] = "auto"
    """Between the layers, as of the policy's."""
    initialisation: Literal["orthogonal", "uniform"] = "orthogonal"
    """Of the layers, as of the policy's."""
    memory: Literal["none", "gru", "lstm"] | None = None
    """What remembers, as of the policy's. Default: what the policy has; gru for a policy of your own that remembers."""
    memory_units: int | None = None
    """How many units of it. Default: as many as of the policy's."""
    fit: Literal["adam", "gauss-newton"] = "adam"
    """How it is fitted: Adam on minibatches, or the natural gradient of least squares in a trust region."""
    learning_rate: float = 1e-3
    """Adam's."""
    epochs: int | None = None
    """Adam: passes over each batch."""
    minibatch: int = 128
    """Adam: rows of a minibatch; divides the batch. With memory: whole environments, of no more rows if that can be."""
    newton_steps: int = 1
    """Gauss–Newton: steps on each batch."""
    newton_products: int = 10
    """Gauss–Newton: at most this many products with the matrix for a step."""
    newton_delta: float = 0.3
    """Gauss–Newton: ½E(V − V')²/σ² of a step, at most, σ² the mean squared error; in nats."""
    newton_damping: float = 1e-3
    """Gauss–Newton: λ at least, added to the matrix, relative to its curvature along the gradient; at most 1."""
    network: Literal["auto", "mlp", "trpo-conv", "a3c", "nature", "impala", "minatar", "attention", "shared"] = "auto"
    """As of the policy, with weights of its own; auto: that of the policy. shared: the layers `hidden` upon those of
    the policy, which its own step alone changes."""
    layer_norm: bool = False
    """As of the policy's."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Evaluation by the mode of the policy, on environments of its own."""

    every: int | None = None
    """Environment steps between evaluations during training; 0 for none. Default: a tenth of the run."""
    episodes: int = 10
    """Episodes of each evaluation during training."""
    final_episodes: int = 20
    """Episodes of the evaluation at the end."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run does."""

    env: tyro.conf.Positional[str]
    """Gymnasium id, with an optional backend or module before a colon: CartPole-v1, mdp:two-state, my_pkg:MyEnv-v0. Of
    stack:4:CartPole-v1 the last four observations are one. Options for its constructor stand behind it:
    FrozenLake-v1,map_name=8x8,is_slippery=false."""
    algorithm: str = "trpo"
    """pg, npg, covariant, natural-actor-critic, q-npg, acktr, trpo, mirror-descent, cpo or trpo-lagrangian."""
    steps: int = 1_000_000
    """Environment steps in all, rounded up to whole batches."""
    seed: int = 0
    """Of everything random in the run."""
    tuned: bool = False
    """Where nothing else is said, the settings that trials found for this very environment, before the rules: see
    tuned.py. One for which there were no trials is refused."""
    update: Annotated[UpdateConfig, tyro.conf.arg(name="")] = field(default_factory=UpdateConfig)
    sampling: Annotated[SamplingConfig, tyro.conf.arg(name="")] = field(default_factory=SamplingConfig)
    vine: VineConfig = field(default_factory=VineConfig)
    constraint: Annotated[ConstraintConfig, tyro.conf.arg(name="")] = field(default_factory=ConstraintConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint_every: int | None = None
    """Iterations between checkpoints. Default: 10, in functional worlds 100."""
    exact_resume: bool = False
    """Also where the state of the environments cannot be saved: all episodes then begin afresh at every checkpoint,
    in a run that is never stopped too, so that a resumed one ends with the same numbers. Where it can be saved, a
    resumed run always does."""
    keep_checkpoints: int = 3
    """How many of them are kept, the last ones, beside the best."""
    stop_at_return: float | None = None
    """Stop once an evaluation's mean return reaches this."""
    max_failures: int = 20
    """Stop with a diagnosis after so many updates in a row that had to keep the policy."""
    tensorboard: bool = True
    """Write TensorBoard events into the run folder."""
    sinks: tuple[str, ...] = ()
    """Plugins that are given the metrics too, by the names of their entry points in the group "steepest.sinks"."""

    @property
    def batch(self) -> int:
        """Rows of a batch, ghost rows included."""
        return (self.sampling.envs or 0) * (self.sampling.rollout or 0)

    @property
    def branch_steps(self) -> int:
        """Simulator steps that the branches of one iteration take at most; 0 for a single path."""
        return (self.vine.states or 0) * (self.vine.actions or 0) * (self.vine.length or 0)
