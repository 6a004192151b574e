"""Side by side with what people would pick instead: the same work on Holdfast and on each peer, in one run.

`make bench-peers` makes an environment for each peer below `.peers/` (from PyPI, versions in `environments.py`), runs
`worker.py` in each of them, and writes `docs/evidence/peers.json`, the page beside it and its chart. Nothing here is a
dependency of anything: peers are imported by name in their own environment only. Start with `__main__.py`.
"""
