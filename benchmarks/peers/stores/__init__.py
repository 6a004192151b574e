"""How each peer keeps a conversation: `Store`, one module per peer, each with `open_store(folder)`.

A turn does what the peer's own documentation does: read the history, keep the question, ask the model, keep the answer,
in the peer's order. Nothing is added that the peer does not do (no lock, no sync), and nothing is left out.
"""
