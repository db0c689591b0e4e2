"""Latency of architectures on a machine: predicted by a table of whole-network timings, and measured."""
