"""Placeholder; replaced as the stage is built."""
