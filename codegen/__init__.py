"""Lowering programs to kernels and launch plans, one package a target."""
