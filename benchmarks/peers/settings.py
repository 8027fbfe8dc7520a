"""What each peer recommends for a task: its own tuned settings, copied as numbers.

SB3 and sb3-contrib: rl-baselines3-zoo, hyperparams/ppo.yml and trpo.yml, commit 22e3ff2; its MuJoCo tasks are -v4, and
the same settings are used for -v5, as the zoo has none. Tianshou 2.0.1: examples/mujoco/mujoco_trpo.py and
mujoco_npg.py, one setting for all tasks.
"""

from __future__ import annotations

from typing import Any

_TRPO = {
    "normalize": True, "n_envs": 2, "n_steps": 1024, "batch_size": 128, "gamma": 0.99, "gae_lambda": 0.95,
    "sub_sampling_factor": 1, "cg_max_steps": 25, "cg_damping": 0.1, "n_critic_updates": 20, "learning_rate": 1e-3,
}  # fmt: skip
TRPO: dict[str, dict[str, Any]] = {
    "CartPole-v1": {
        "n_envs": 2, "n_steps": 512, "batch_size": 512, "cg_damping": 1e-3, "gae_lambda": 0.98, "gamma": 0.99,
        "learning_rate": 1e-3, "n_critic_updates": 20,
    },
    "Acrobot-v1": {"normalize": True, "n_envs": 2, "n_steps": 1024},
    "MountainCar-v0": {"normalize": True, "n_envs": 2, "n_steps": 1024, "n_critic_updates": 20},
    "MountainCarContinuous-v0": {"normalize": True, "n_envs": 2, "use_sde": True, "sde_sample_freq": 4},
    "Pendulum-v1": {
        "n_envs": 2, "n_steps": 1024, "gamma": 0.9, "n_critic_updates": 15, "use_sde": True, "sde_sample_freq": 4,
    },
    "LunarLander-v3": {
        "n_envs": 2, "n_steps": 512, "cg_damping": 0.01, "gae_lambda": 0.98, "gamma": 0.99, "learning_rate": 1e-3,
        "n_critic_updates": 15,
    },
    "LunarLanderContinuous-v3": {"normalize": True, "n_envs": 2, "n_steps": 1024, "n_critic_updates": 20},
    "Ant-v5": _TRPO,
    "HalfCheetah-v5": {**_TRPO, "target_kl": 0.04},
    "Hopper-v5": _TRPO,
    "Walker2d-v5": _TRPO,
    "Humanoid-v5": _TRPO,
    "Swimmer-v5": {**_TRPO, "gamma": 0.9999},
}  # fmt: skip

_WIDE = {"log_std_init": -2.0, "ortho_init": False, "activation": "relu", "hidden": [256, 256]}
PPO: dict[str, dict[str, Any]] = {
    "CartPole-v1": {
        "n_envs": 8, "n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20,
        "ent_coef": 0.0, "learning_rate": "lin_0.001", "clip_range": "lin_0.2",
    },
    "Ant-v5": {"normalize": True},
    "HalfCheetah-v5": {
        "normalize": True, "n_envs": 1, "batch_size": 64, "n_steps": 512, "gamma": 0.98, "learning_rate": 2.0633e-05,
        "ent_coef": 0.000401762, "clip_range": 0.1, "n_epochs": 20, "gae_lambda": 0.92, "max_grad_norm": 0.8,
        "vf_coef": 0.58096, "policy": _WIDE,
    },
    "Hopper-v5": {
        "normalize": True, "n_envs": 1, "batch_size": 32, "n_steps": 512, "gamma": 0.999, "learning_rate": 9.80828e-05,
        "ent_coef": 0.00229519, "clip_range": 0.2, "n_epochs": 5, "gae_lambda": 0.99, "max_grad_norm": 0.7,
        "vf_coef": 0.835671, "policy": _WIDE,
    },
    "Walker2d-v5": {
        "normalize": True, "n_envs": 1, "batch_size": 32, "n_steps": 512, "gamma": 0.99, "learning_rate": 5.05041e-05,
        "ent_coef": 0.000585045, "clip_range": 0.1, "n_epochs": 20, "gae_lambda": 0.95, "max_grad_norm": 1.0,
        "vf_coef": 0.871923,
    },
    "Humanoid-v5": {
        "normalize": True, "n_envs": 1, "batch_size": 256, "n_steps": 512, "gamma": 0.95, "learning_rate": 3.56987e-05,
        "ent_coef": 0.00238306, "clip_range": 0.3, "n_epochs": 5, "gae_lambda": 0.9, "max_grad_norm": 2.0,
        "vf_coef": 0.431892, "policy": _WIDE,
    },
    "Swimmer-v5": {
        "normalize": True, "gamma": 0.9999, "n_envs": 4, "n_steps": 1024, "batch_size": 256, "learning_rate": 6e-4,
        "gae_lambda": 0.98,
    },
}  # fmt: skip

TIANSHOU: dict[str, Any] = {
    "envs": 16, "collect": 1024, "buffer": 4096, "hidden": [64, 64], "lr": 1e-3, "lr_decay": True, "gamma": 0.99,
    "gae_lambda": 0.95, "critic_steps": 20, "log_std": -0.5, "observation_norm": True, "return_scaling": True,
    "trpo": {"max_kl": 0.01, "backtrack_coeff": 0.8, "max_backtracks": 10}, "npg": {"trust_region_size": 0.1},
}  # fmt: skip
