"""Worlds as pure functions of JAX: what a whole training run can be compiled with. Importing this loads nothing."""
