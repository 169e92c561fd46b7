"""Blocks that know nothing of bytes: attention, layers, rotary positions, hash n-grams."""
